"""What objects are told: events for what is wrong, and in an Ingress's status where it is served. Pure.

The API has no conditions for an Ingress, so what is wrong is an event on it (``kubectl describe ingress``). An event's
name is a digest of what it says, so that whoever comes later counts on instead of saying everything again.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from haneul.ingress.model import Problem
from haneul.kernel.kube import EVENTS, Manifest, Resource

_REPORTER: Final = "haneul.dev/ingress"
_LONGEST_NOTE: Final = 1000


def event_of(problem: Problem, resource: Resource, manifest: Manifest, now: datetime) -> Manifest:
    """Return the event that tells an object of a problem (Kubernetes API reference "Event", events.k8s.io/v1)."""
    metadata = manifest["metadata"]
    said = "\0".join((metadata.get("uid", ""), problem.reason, problem.message))
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {
            "name": f"{metadata['name'][:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "eventTime": moment(now),
        "type": "Warning",
        "reason": problem.reason.value,
        "action": "Serve",
        "note": problem.message[:_LONGEST_NOTE],
        "regarding": {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
        },
        "reportingController": _REPORTER,
        "reportingInstance": _REPORTER,
    }


def counted_up(event: Manifest, now: datetime) -> dict[str, Any]:
    """Return what an event that is there already becomes as it happens again: one of a series."""
    count = int((event.get("series") or {}).get("count", 1))
    return {"series": {"count": count + 1, "lastObservedTime": moment(now)}}


def moment(now: datetime) -> str:
    """Return a moment as events have it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def status_of(ingress: Manifest, addresses: Sequence[str], *, served: bool) -> dict[str, Any] | None:
    """Return what an Ingress's status has to become; None if it says so already."""
    wanted = [_entry(address) for address in addresses] if served else []
    standing = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    if [{key: entry.get(key) for key in ("ip", "hostname") if entry.get(key)} for entry in standing] == wanted:
        return None
    return {"loadBalancer": {"ingress": wanted}}


def _entry(address: str) -> dict[str, str]:
    try:
        return {"ip": str(ipaddress.ip_address(address))}
    except ValueError:
        return {"hostname": address}
