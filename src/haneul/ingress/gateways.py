"""Gateways of our classes and their listeners: which are served, and what they are told. Pure.

Whoever runs the proxy says at which ports it listens; a Gateway's listeners are hosts there, of plain HTTP or of TLS
that ends there. Two listeners of one Gateway with the same protocol and host are in conflict, and neither is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from haneul.ingress.certificates import read_certificate, uncovered
from haneul.ingress.claims import CONTROLLER, Age, age
from haneul.ingress.grammar import parse_host
from haneul.ingress.grants import is_granted
from haneul.ingress.model import ANY_HOST, Certificate, Scheme
from haneul.ingress.observed import Observed
from haneul.ingress.states import ClassState, Condition, GatewayState, ListenerState
from haneul.kernel.kube import GATEWAY_CLASSES, GATEWAYS, HTTP_ROUTES, NAMESPACES, SECRETS, Manifest
from haneul.kernel.kube_objects import Place, place_of

_SUPPORTED_KIND: Final = HTTP_ROUTES.kind


@dataclass(frozen=True)
class Listener:
    """A host of a Gateway that routes may be attached to; ``host`` is empty for any."""

    gateway: Place
    born: Age
    name: str
    scheme: Scheme
    port: int
    host: str
    certificates: tuple[Certificate, ...]
    #: Whether it can be served; routes are attached to it all the same.
    ready: bool
    #: From which namespaces routes are taken; None is all.
    namespaces: frozenset[str] | None
    takes_routes: bool
    #: Whether it names no certificate, so that each of its hosts gets one as hosts of Ingress objects do.
    supplied: bool = False

    def certificate(self, host: str) -> Certificate | None:
        """Return the first of its certificates that is for a host; the first of all if none is."""
        fitting = (one for one in self.certificates if not uncovered(one, host))
        return next(fitting, self.certificates[0] if self.certificates else None)


@dataclass(frozen=True)
class Seen:
    """A listener as a Gateway has it: None where it is none that routes could be attached to."""

    name: str
    listener: Listener | None
    kinds: tuple[str, ...]
    accepted: Condition
    resolved: Condition
    conflicted: Condition

    @property
    def is_good(self) -> bool:
        """Say whether it is served."""
        return self.listener is not None and self.listener.ready


@dataclass(frozen=True)
class Gateway:
    """A Gateway of one of our classes."""

    place: Place
    listeners: tuple[Seen, ...]
    #: Addresses that it asks for and that are none of ours.
    foreign: tuple[str, ...]

    def state(self, attached: Mapping[tuple[Place, str], int]) -> GatewayState:
        """Return what it is told; ``attached`` is how many routes each listener has."""
        good = [seen.is_good for seen in self.listeners]
        reason = "Accepted" if all(good) else "ListenersNotValid"
        programmed = Condition("Programmed", holds=True, reason="Programmed")
        if not any(good):
            programmed = Condition("Programmed", holds=False, reason="Invalid", message="none of its listeners is")
        elif self.foreign:
            why = f"not an address of this ingress: {', '.join(self.foreign)}"
            programmed = Condition("Programmed", holds=False, reason="AddressNotUsable", message=why)
        return GatewayState(
            self.place,
            (Condition("Accepted", holds=any(good), reason=reason), programmed),
            tuple(_listener_state(seen, attached.get((self.place, seen.name), 0)) for seen in self.listeners),
        )


def read_gateways(
    observed: Observed, ports: Mapping[Scheme, Collection[int]], addresses: Collection[str], *, supplied: bool = False
) -> tuple[list[ClassState], list[Gateway]]:
    """Return our classes with what they are told, and their Gateways, the oldest first.

    ``ports`` are those that the proxy has for each scheme, ``addresses`` where clients reach it; ``supplied`` says
    whether hosts without a certificate get one here.
    """
    mine = [
        found for found in observed.all(GATEWAY_CLASSES) if found.get("spec", {}).get("controllerName") == CONTROLLER
    ]
    states = {found["metadata"]["name"]: _class_state(found) for found in sorted(mine, key=age)}
    names = {name for name, state in states.items() if state.conditions[0].holds}
    gateways = [
        _gateway(found, observed, ports, addresses, supplied=supplied)
        for found in sorted(observed.all(GATEWAYS), key=age)
        if found.get("spec", {}).get("gatewayClassName") in names and not found["metadata"].get("deletionTimestamp")
    ]
    return list(states.values()), gateways


def _class_state(manifest: Manifest) -> ClassState:
    place = place_of(GATEWAY_CLASSES, manifest)
    if manifest["spec"].get("parametersRef"):
        why = "parametersRef: this ingress has no parameters"
        return ClassState(place, (Condition("Accepted", holds=False, reason="InvalidParameters", message=why),))
    return ClassState(place, (Condition("Accepted", holds=True, reason="Accepted"),))


def _gateway(
    manifest: Manifest,
    observed: Observed,
    ports: Mapping[Scheme, Collection[int]],
    addresses: Collection[str],
    *,
    supplied: bool,
) -> Gateway:
    spec = manifest["spec"]
    entries = spec.get("listeners") or []
    taken = Counter((entry.get("protocol"), _host_text(entry)) for entry in entries)
    made = [_seen(entry, manifest, observed, ports, taken, supplied=supplied) for entry in entries]
    wanted = [entry.get("value") or "" for entry in spec.get("addresses") or []]
    foreign = tuple(value for value in wanted if value and value not in addresses)
    return Gateway(place_of(GATEWAYS, manifest), tuple(made), foreign)


def _seen(
    entry: Mapping[str, Any],
    gateway: Manifest,
    observed: Observed,
    ports: Mapping[Scheme, Collection[int]],
    taken: Mapping[tuple[str | None, str], int],
    *,
    supplied: bool,
) -> Seen:
    name, protocol = entry["name"], entry.get("protocol")
    allowed = entry.get("allowedRoutes") or {}
    kinds = _kinds(allowed)
    resolved = Condition("ResolvedRefs", holds=True, reason="ResolvedRefs")
    if len(kinds) < len(allowed.get("kinds") or []):
        why = f"only {_SUPPORTED_KIND} is served"
        resolved = Condition("ResolvedRefs", holds=False, reason="InvalidRouteKinds", message=why)
    conflicted = Condition("Conflicted", holds=False, reason="NoConflicts")
    if taken[protocol, _host_text(entry)] > 1:
        why = "another listener of this Gateway has the same protocol and host"
        conflicted = Condition("Conflicted", holds=True, reason="HostnameConflict", message=why)
    accepted = _accepted(entry, ports)
    scheme = Scheme.HTTPS if protocol == "HTTPS" else Scheme.HTTP
    certificates: tuple[Certificate, ...] = ()
    # The API takes HTTPS without certificateRefs, and leaves to us what that means; a name that is wrong stays wrong.
    supplied = supplied and scheme is Scheme.HTTPS and not (entry.get("tls") or {}).get("certificateRefs")
    if accepted.holds and scheme is Scheme.HTTPS and not supplied:
        certificates, refused = _certificates(entry, gateway, observed)
        resolved = refused or resolved
    listener = None
    if accepted.holds and not conflicted.holds:
        listener = Listener(
            place_of(GATEWAYS, gateway),
            age(gateway),
            name,
            scheme,
            entry["port"],
            parse_host(entry["hostname"]) if entry.get("hostname") else ANY_HOST,
            certificates,
            ready=scheme is Scheme.HTTP or bool(certificates) or supplied,
            namespaces=_namespaces(allowed.get("namespaces") or {}, gateway, observed),
            takes_routes=_SUPPORTED_KIND in kinds,
            supplied=supplied,
        )
    return Seen(name, listener, kinds, accepted, resolved, conflicted)


def _host_text(entry: Mapping[str, Any]) -> str:
    return (entry.get("hostname") or ANY_HOST).lower()


def _accepted(entry: Mapping[str, Any], ports: Mapping[Scheme, Collection[int]]) -> Condition:
    protocol, port = entry.get("protocol"), entry.get("port")
    if protocol not in ("HTTP", "HTTPS"):
        why = "only HTTP and HTTPS are served"
        return Condition("Accepted", holds=False, reason="UnsupportedProtocol", message=why)
    if ((entry.get("tls") or {}).get("mode") or "Terminate") != "Terminate":
        why = "TLS ends here: only the mode Terminate is served"
        return Condition("Accepted", holds=False, reason="UnsupportedProtocol", message=why)
    offered = ports.get(Scheme(protocol.lower()), ())
    if port not in offered:
        why = f"{protocol} is served at {', '.join(map(str, sorted(offered))) or 'no port'}"
        return Condition("Accepted", holds=False, reason="PortUnavailable", message=why)
    try:
        parse_host(entry.get("hostname") or "any")
    except ValueError as error:
        return Condition("Accepted", holds=False, reason="UnsupportedValue", message=f"hostname: {error}")
    return Condition("Accepted", holds=True, reason="Accepted")


def _kinds(allowed: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which kinds of routes a listener takes, of those that are served."""
    wanted = allowed.get("kinds") or [{"kind": _SUPPORTED_KIND}]
    groups = (HTTP_ROUTES.group, None)
    return tuple(
        _SUPPORTED_KIND for kind in wanted if kind.get("kind") == _SUPPORTED_KIND and kind.get("group") in groups
    )


def _namespaces(allowed: Mapping[str, Any], gateway: Manifest, observed: Observed) -> frozenset[str] | None:
    own = gateway["metadata"]["namespace"]
    match allowed.get("from") or "Same":
        case "All":
            return None
        case "Same":
            return frozenset((own,))
        case "Selector":
            selector = allowed.get("selector") or {}
            every = observed.all(NAMESPACES)
            return frozenset(found["metadata"]["name"] for found in every if _selected(found, selector))
        case _:
            return frozenset()


def _selected(namespace: Manifest, selector: Mapping[str, Any]) -> bool:
    """Say whether a namespace's labels are as a selector wants them (Kubernetes API reference "LabelSelector")."""
    labels = namespace["metadata"].get("labels") or {}
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expressed(labels, expression) for expression in selector.get("matchExpressions") or []
    )


def _expressed(labels: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def _certificates(
    entry: Mapping[str, Any], gateway: Manifest, observed: Observed
) -> tuple[tuple[Certificate, ...], Condition | None]:
    """Return the certificates of a listener, and what is wrong with the first of its references that is wrong."""
    found: list[Certificate] = []
    refused: list[Condition] = []
    own = gateway["metadata"]["namespace"]
    references = (entry.get("tls") or {}).get("certificateRefs") or []
    if not references:
        refused.append(_unresolved("InvalidCertificateRef", "tls.certificateRefs names no certificate"))
    for reference in references:
        namespace, name = reference.get("namespace") or own, reference.get("name", "")
        shown = f"Secret {namespace}/{name}"
        if (reference.get("group") or "", reference.get("kind") or SECRETS.kind) != ("", SECRETS.kind):
            refused.append(_unresolved("InvalidCertificateRef", "only a Secret can be named"))
        elif not is_granted(observed, GATEWAYS, own, Place(SECRETS.kind, namespace, name), SECRETS):
            refused.append(_unresolved("RefNotPermitted", f"{shown}: no ReferenceGrant there lets this Gateway use it"))
        elif (secret := observed.get(SECRETS, namespace, name)) is None:
            refused.append(_unresolved("InvalidCertificateRef", f"there is no {shown} with a certificate"))
        else:
            try:
                found.append(read_certificate(secret))
            except ValueError as error:
                refused.append(_unresolved("InvalidCertificateRef", f"{shown}: {error}"))
    return tuple(found), refused[0] if refused else None


def _unresolved(reason: str, message: str) -> Condition:
    return Condition("ResolvedRefs", holds=False, reason=reason, message=message)


def _listener_state(seen: Seen, attached: int) -> ListenerState:
    programmed = Condition("Programmed", holds=True, reason="Programmed")
    if not seen.is_good:
        programmed = Condition("Programmed", holds=False, reason="Invalid", message="it is not served")
    return ListenerState(seen.name, attached, seen.kinds, (seen.accepted, programmed, seen.resolved, seen.conflicted))


def listeners_of(gateways: Iterable[Gateway]) -> list[Listener]:
    """Return every listener that routes could be attached to."""
    return [seen.listener for gateway in gateways for seen in gateway.listeners if seen.listener]
