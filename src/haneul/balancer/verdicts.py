"""How a Service is told what was decided on it: its status, and an event when that is news. Pure.

``balancer.haneul.dev/Balanced`` is True while the Service is served as it asks; the status has the address, and with it
each port with what is wrong with it (Kubernetes API reference, "LoadBalancerIngress", "PortStatus").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from haneul.balancer.annotations import PREFIX
from haneul.balancer.decisions import Verdict
from haneul.kernel.kube import EVENTS, Manifest

CONDITION: Final = f"{PREFIX}Balanced"
FINALIZER: Final = f"{PREFIX}cleanup"
CONTROLLER: Final = f"{PREFIX}controller"
_LONGEST_MESSAGE: Final = 1000


def status_of(verdict: Verdict, service: Manifest, now: datetime) -> Manifest | None:
    """Return the parts of a Service's status to write; None if they stand there already.

    Conditions of others are in it as they are, since a list is written whole.
    """
    standing = service.get("status") or {}
    conditions = standing.get("conditions") or []
    before = _ours(conditions)
    condition, ingress = _condition(verdict, before, now), _ingress(verdict)
    said = (standing.get("loadBalancer") or {}).get("ingress") or []
    if condition == before and _essence(said) == _essence(ingress):
        return None
    others = [entry for entry in conditions if entry["type"] != CONDITION]
    return {"loadBalancer": {"ingress": ingress}, "conditions": [*others, condition]}


def nothing_served(service: Manifest) -> Manifest | None:
    """Return the parts of the status of a Service that is not served any more; None if they stand there already."""
    standing = service.get("status") or {}
    conditions = standing.get("conditions") or []
    if not (standing.get("loadBalancer") or {}).get("ingress") and not _ours(conditions):
        return None
    others = [entry for entry in conditions if entry["type"] != CONDITION]
    return {"loadBalancer": {"ingress": None}, "conditions": others or None}


def event_of(verdict: Verdict, service: Manifest, now: datetime) -> Manifest | None:
    """Return the event that tells of a verdict; None if the Service's condition says the same already."""
    before = _ours((service.get("status") or {}).get("conditions") or [])
    message = verdict.message[:_LONGEST_MESSAGE]
    if before and (before.get("reason"), before.get("message")) == (verdict.reason, message):
        return None
    metadata = service["metadata"]
    told = f"{metadata['uid']} {verdict.reason} {message} {now.isoformat()}"
    name = f"{metadata['name'][:40].rstrip('-.')}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "type": "Normal" if verdict.balanced else "Warning",
        "reason": verdict.reason,
        "note": message,
        "action": "Balance",
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": CONTROLLER,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }


def _ours(conditions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((entry for entry in conditions if entry["type"] == CONDITION), None)


def _condition(verdict: Verdict, before: Mapping[str, Any] | None, now: datetime) -> Manifest:
    status = "True" if verdict.balanced else "False"
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if before and before["status"] == status:
        moment = before["lastTransitionTime"]
    return {
        "type": CONDITION,
        "status": status,
        "reason": verdict.reason,
        "message": verdict.message[:_LONGEST_MESSAGE],
        "lastTransitionTime": moment,
    }


def _ingress(verdict: Verdict) -> list[Manifest]:
    if not verdict.address:
        return []
    errors = dict(verdict.errors)
    slots = sorted({*verdict.ports, *errors})
    ports = [
        {"port": slot.port, "protocol": str(slot.protocol)}
        | ({"error": f"{PREFIX}{errors[slot]}"} if slot in errors else {})
        for slot in slots
    ]
    # Nodes may not take a short cut past a balancer that tells members the client's address.
    return [{"ip": verdict.address, "ipMode": "Proxy" if verdict.proxied else "VIP", "ports": ports}]


def _essence(ingress: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return what matters of an entry: an older API knows no ``ipMode`` and leaves it out."""
    return [
        (
            entry.get("ip"),
            [(port["port"], port["protocol"], port.get("error")) for port in entry.get("ports") or []],
        )
        for entry in ingress
    ]
