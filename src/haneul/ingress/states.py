"""What objects of the Gateway API are told in their status, as far as it does not depend on what stands there. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from haneul.kernel.kube_objects import Place


@dataclass(frozen=True)
class Condition:
    """A condition of the Gateway API, whose words its types and reasons are."""

    type: str
    holds: bool
    reason: str
    message: str = ""


@dataclass(frozen=True)
class ClassState:
    """What a GatewayClass is told."""

    place: Place
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class ListenerState:
    """What a Gateway is told of a listener; ``attached`` is how many routes it has."""

    name: str
    attached: int
    kinds: tuple[str, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class GatewayState:
    """What a Gateway is told."""

    place: Place
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerState, ...]


@dataclass(frozen=True)
class ParentState:
    """What an HTTPRoute is told of a parent; ``reference`` are the fields that name it, as it wrote them."""

    reference: tuple[tuple[str, str | int], ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class RouteState:
    """What an HTTPRoute is told, of those of its parents that are ours; perhaps none any more."""

    place: Place
    parents: tuple[ParentState, ...]
