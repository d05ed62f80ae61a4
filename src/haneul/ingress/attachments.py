"""Which HTTPRoutes are attached to which listeners, for which hosts, and why others are not. Pure.

Source: Gateway API, ``HTTPRoute.spec.parentRefs``, ``Listener.hostname`` and ``Listener.allowedRoutes``. Of a
listener's host and a route's, the more precise one is served where the other covers it; ``*`` is any number of labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from haneul.ingress.gateways import Gateway, Listener, listeners_of
from haneul.ingress.http_routes import Route
from haneul.ingress.model import ANY_HOST
from haneul.ingress.states import Condition
from haneul.kernel.kube import GATEWAYS
from haneul.kernel.kube_objects import Place

#: The fields by which a route names a parent.
_FIELDS = ("group", "kind", "namespace", "name", "sectionName", "port")


@dataclass(frozen=True)
class Attachment:
    """A route at a listener, for some of their hosts."""

    route: Route
    listener: Listener
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Parent:
    """A Gateway of ours that a route names, and what comes of that."""

    route: Route
    reference: tuple[tuple[str, str | int], ...]
    accepted: Condition
    attachments: tuple[Attachment, ...] = ()


def parents_of(route: Route, gateways: Sequence[Gateway]) -> Iterator[Parent]:
    """Yield what comes of each parent of a route that is one of these Gateways."""
    own = {gateway.place: gateway for gateway in gateways}
    for reference in route.manifest["spec"].get("parentRefs") or []:
        kind = reference.get("group", GATEWAYS.group), reference.get("kind") or GATEWAYS.kind
        place = Place(GATEWAYS.kind, reference.get("namespace") or route.place.namespace, reference.get("name", ""))
        if kind == (GATEWAYS.group, GATEWAYS.kind) and place in own:
            yield _parent(route, reference, own[place])


def _parent(route: Route, reference: Mapping[str, Any], gateway: Gateway) -> Parent:
    named = tuple((field, reference[field]) for field in _FIELDS if field in reference)
    listeners = [one for one in listeners_of([gateway]) if _is_meant(one, reference)]
    if not listeners:
        return Parent(route, named, _refused("NoMatchingParent", "the Gateway has no such listener that is accepted"))
    allowed = [one for one in listeners if one.takes_routes and _may(route, one)]
    if not allowed:
        return Parent(route, named, _refused("NotAllowedByListeners", "no listener takes routes of this namespace"))
    made = tuple(Attachment(route, one, hosts) for one in allowed if (hosts := _hosts(route, one)))
    if not made:
        return Parent(route, named, _refused("NoMatchingListenerHostname", "no listener has one of its hosts"))
    return Parent(route, named, Condition("Accepted", holds=True, reason="Accepted"), made)


def _refused(reason: str, message: str) -> Condition:
    return Condition("Accepted", holds=False, reason=reason, message=message)


def _is_meant(listener: Listener, reference: Mapping[str, Any]) -> bool:
    return reference.get("sectionName") in (None, "", listener.name) and reference.get("port") in (None, listener.port)


def _may(route: Route, listener: Listener) -> bool:
    return listener.namespaces is None or route.place.namespace in listener.namespaces


def _hosts(route: Route, listener: Listener) -> tuple[str, ...]:
    """Return which hosts a route has at a listener."""
    if not route.hosts:
        # One that names hosts, of which none can be read, does not want all.
        return () if route.manifest["spec"].get("hostnames") else (listener.host,)
    found = (common(host, listener.host) for host in route.hosts)
    return tuple(dict.fromkeys(host for host in found if host is not None))


def common(one: str, other: str) -> str | None:
    """Return the more precise of two hosts of which one covers the other; None if neither does."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def covers(wide: str, host: str) -> bool:
    """Say whether a host is all of another one: itself, any, or ``*.`` for any number of labels before the rest."""
    return wide in (ANY_HOST, host) or (wide.startswith("*.") and host.removeprefix("*").endswith(wide[1:]))


def precision(host: str) -> tuple[bool, int]:
    """Return what hosts are sorted by that cover the same one, the most precise last."""
    return (bool(host) and not host.startswith("*."), len(host))


def covering(host: str) -> list[str]:
    """Return every host that covers one, the most precise first, itself among them."""
    labels = host.removeprefix("*.").split(".")
    wider = [f"*.{'.'.join(labels[number:])}" for number in range(1, len(labels))]
    return list(dict.fromkeys([host, *wider, ANY_HOST]))
