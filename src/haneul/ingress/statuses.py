"""The status of objects of the Gateway API: what it has to become, beside what others wrote into it. Pure.

A condition keeps the moment at which it last changed. A route's status has an entry for each parent, and those of other
controllers stay; so it is written only if the object is still the one that was read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from haneul.ingress.claims import CONTROLLER
from haneul.ingress.states import ClassState, Condition, GatewayState, ListenerState, ParentState, RouteState
from haneul.kernel.kube import GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, Manifest, Resource

_LONGEST_MESSAGE: Final = 1000
#: As many as a Gateway's status may have.
_MOST_ADDRESSES: Final = 16

State = ClassState | GatewayState | RouteState


def resource_of_state(state: State) -> Resource:
    """Return the resource type of the object that is told something."""
    match state:
        case ClassState():
            return GATEWAY_CLASSES
        case GatewayState():
            return GATEWAYS
        case RouteState():
            return HTTP_ROUTES


def status_patch(state: State, manifest: Manifest, addresses: Sequence[str], now: datetime) -> Manifest | None:
    """Return what is to be merged into an object; None if its status says so already."""
    standing = manifest.get("status") or {}
    writer = _Writer(manifest["metadata"].get("generation", 0), now)
    match state:
        case ClassState(_, conditions):
            wanted: dict[str, Any] = {"conditions": writer.conditions(conditions, standing.get("conditions"))}
        case GatewayState(_, conditions, listeners):
            wanted = {
                "addresses": [_address(address) for address in addresses[:_MOST_ADDRESSES]],
                "conditions": writer.conditions(conditions, standing.get("conditions")),
                "listeners": writer.listeners(listeners, standing.get("listeners") or []),
            }
        case RouteState(_, parents):
            wanted = {"parents": writer.parents(parents, standing.get("parents") or [])}
    if all((standing.get(name) or []) == value for name, value in wanted.items()):
        return None
    return {"metadata": {"resourceVersion": manifest["metadata"].get("resourceVersion")}, "status": wanted}


class _Writer:
    def __init__(self, generation: int, now: datetime) -> None:
        self._generation = generation
        self._now = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def conditions(self, wanted: Sequence[Condition], standing: Sequence[Manifest] | None) -> list[Manifest]:
        """Return conditions, each with the moment at which it became what it is; those of others are kept."""
        known = {entry["type"]: entry for entry in standing or []}
        made = {condition.type: self._condition(condition, known.get(condition.type)) for condition in wanted}
        return [*made.values(), *(entry for name, entry in known.items() if name not in made and not _is_ours(name))]

    def _condition(self, condition: Condition, standing: Mapping[str, Any] | None) -> Manifest:
        status = "True" if condition.holds else "False"
        changed = self._now
        if standing and standing.get("status") == status:
            changed = standing.get("lastTransitionTime") or self._now
        return {
            "type": condition.type,
            "status": status,
            "observedGeneration": self._generation,
            "lastTransitionTime": changed,
            "reason": condition.reason,
            "message": condition.message[:_LONGEST_MESSAGE],
        }

    def listeners(self, wanted: Sequence[ListenerState], standing: Sequence[Manifest]) -> list[Manifest]:
        known = {entry["name"]: entry for entry in standing}
        return [
            {
                "name": state.name,
                "supportedKinds": [{"group": HTTP_ROUTES.group, "kind": kind} for kind in state.kinds],
                "attachedRoutes": state.attached,
                "conditions": self.conditions(state.conditions, known.get(state.name, {}).get("conditions")),
            }
            for state in wanted
        ]

    def parents(self, wanted: Sequence[ParentState], standing: Sequence[Manifest]) -> list[Manifest]:
        """Return the entries of others as they are, and ours behind them."""
        others = [entry for entry in standing if entry.get("controllerName") != CONTROLLER]
        mine = {_key(entry.get("parentRef") or {}): entry for entry in standing if entry not in others}
        made = [
            {
                "parentRef": dict(state.reference),
                "controllerName": CONTROLLER,
                "conditions": self.conditions(
                    state.conditions, mine.get(_key(dict(state.reference)), {}).get("conditions")
                ),
            }
            for state in wanted
        ]
        return [*others, *made]


def _is_ours(name: str) -> bool:
    """Say whether a condition is one that this writes, so that it goes where it does not hold any more."""
    return name in ("Accepted", "Programmed", "ResolvedRefs", "Conflicted", "PartiallyInvalid")


def _key(reference: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(reference.items()))


def _address(address: str) -> dict[str, str]:
    try:
        return {"type": "IPAddress", "value": str(ipaddress.ip_address(address))}
    except ValueError:
        return {"type": "Hostname", "value": address}
