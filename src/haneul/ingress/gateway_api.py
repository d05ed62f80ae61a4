"""From Gateways and HTTPRoutes to servers of the route model, and to what these objects are told. Pure.

A host belongs to the namespace of the Gateway through which the oldest route got it, and is no host of an Ingress then.
Within it all routes are put together as the specification says: of several that match a request, by the precision of
the host, then of the path, then method, headers, queries, then age. A request is for the listener with the most precise
host, never for the routes of another.

A host at an HTTPS listener that names no certificate gets one as hosts of Ingress objects do, where anybody gives some.
An issuer asks by plain HTTP, so such a host answers there even if no listener does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from haneul.ingress.attachments import Attachment, Parent, covering, covers, parents_of, precision
from haneul.ingress.claims import CONTROLLER, Age
from haneul.ingress.gateways import listeners_of, read_gateways
from haneul.ingress.grammar import parse_host
from haneul.ingress.http_routes import read_route
from haneul.ingress.issued import certificate_of, refusal_of
from haneul.ingress.model import ANY_HOST, Location, Problem, Reason, Scheme, Server
from haneul.ingress.observed import Observed
from haneul.ingress.options import Options
from haneul.ingress.paths import precedence
from haneul.ingress.states import ClassState, Condition, GatewayState, ParentState, RouteState
from haneul.kernel.kube import GATEWAYS, HTTP_ROUTES, Manifest
from haneul.kernel.kube_objects import Place, place_of


@dataclass(frozen=True)
class Served:
    """What comes of the Gateway API's objects."""

    servers: tuple[Server, ...]
    problems: tuple[Problem, ...]
    served: frozenset[Place]
    ours: frozenset[Place]
    states: tuple[ClassState | GatewayState | RouteState, ...]


@dataclass(frozen=True)
class _Won:
    """An attachment with what of its hosts it has, and why it does not have the others."""

    attachment: Attachment
    hosts: tuple[str, ...]
    lost: Mapping[str, tuple[Reason, str]]


class GatewayApi:
    """A cluster's objects of the Gateway API, as far as they are ours."""

    def __init__(self, observed: Observed, options: Options, now: datetime) -> None:
        self._options = options
        self._now = now
        self._classes, self._gateways = read_gateways(
            observed, options.ports, options.addresses, supplied=options.supplied or options.issuer
        )
        self._forgotten: list[Place] = []
        self._parents: list[Parent] = []
        for manifest in observed.all(HTTP_ROUTES):
            place = place_of(HTTP_ROUTES, manifest)
            route = read_route(manifest, observed, closed=_why(options.closed.get(place)))
            found = [] if manifest["metadata"].get("deletionTimestamp") else list(parents_of(route, self._gateways))
            self._parents += found
            if not found and _is_told(manifest):
                self._forgotten.append(place)
        self._parents.sort(key=lambda parent: parent.route.born)
        self._attached = [
            attachment
            for parent in self._parents
            for attachment in parent.attachments
            # One that has nothing to serve takes no host away from others.
            if attachment.listener.ready
            and attachment.route.locations
            and attachment.route.place not in options.excluded
        ]

    def wanted(self) -> dict[str, tuple[Age, Place]]:
        """Return every host that a route wants and may have, with the oldest of those routes."""
        found: dict[str, tuple[Age, Place]] = {}
        for attachment in self._attached:
            for host in attachment.hosts:
                if host not in self._options.refused_hosts:
                    found.setdefault(host, (attachment.route.born, attachment.route.place))
        return found

    def serve(self, taken: Mapping[str, Place], *, room: int) -> Served:
        """Return what is served; ``taken`` are the hosts that Ingress objects have, each with the oldest of them.

        ``room`` is for how many hosts the issuer may be asked by itself.
        """
        owners: dict[str, Place] = {}
        for attachment in self._attached:
            for host in attachment.hosts:
                if host not in taken and host not in self._options.refused_hosts:
                    owners.setdefault(host, attachment.listener.gateway)
        won = [self._won(attachment, taken, owners) for attachment in self._attached]
        by_scheme = {scheme: _by_host(won, scheme) for scheme in Scheme}
        secure = [
            self._server(host, Scheme.HTTPS, owners[host].namespace, by_scheme[Scheme.HTTPS])
            for host in sorted(by_scheme[Scheme.HTTPS])
        ]
        asked = self._asked([server for server in secure if server.challenged], room)
        plain = [
            replace(
                self._server(host, Scheme.HTTP, owners[host].namespace, by_scheme[Scheme.HTTP]),
                challenged=host in asked,
            )
            for host in sorted({*by_scheme[Scheme.HTTP], *asked})
        ]
        # Challenges come by plain HTTP.
        servers = (*plain, *(replace(server, challenged=False) for server in secure))
        too_many = "the cluster has as many certificates of the issuer as it gets"
        refusals = [
            Problem(by_scheme[Scheme.HTTPS][host][0].attachment.route.place, Reason.CERTIFICATE_REFUSED, why)
            for host in (server.host for server in secure if server.challenged)
            if (why := asked.get(host, f"{host}: {too_many}"))
        ]
        routed = {location.ingress for server in servers for location in server.locations}
        return Served(
            servers,
            (*self._problems(won), *refusals),
            frozenset(routed),
            frozenset(parent.route.place for parent in self._parents),
            tuple(self._states(won)),
        )

    def _won(self, attachment: Attachment, taken: Mapping[str, Place], owners: Mapping[str, Place]) -> _Won:
        lost: dict[str, tuple[Reason, str]] = {}
        for host in attachment.hosts:
            shown = host or "any host"
            if why := self._options.refused_hosts.get(host):
                lost[host] = Reason.HOST_REFUSED, f"{shown}: {why}"
            elif host in taken:
                lost[host] = Reason.HOST_TAKEN, f"{shown} belongs to Ingress {taken[host]}, which is older"
            elif not self._shares(attachment.listener.gateway.namespace, owners[host].namespace):
                lost[host] = Reason.HOST_TAKEN, f"{shown} belongs to Gateway {owners[host]} by an older route"
        return _Won(attachment, tuple(host for host in attachment.hosts if host not in lost), lost)

    def _shares(self, one: str, other: str) -> bool:
        return one == other or self._options.hosts_across_namespaces

    def _server(self, host: str, scheme: Scheme, owner: str, by_host: Mapping[str, Sequence[_Won]]) -> Server:
        listeners = [
            one
            for one in listeners_of(self._gateways)
            if one.ready
            and one.scheme is scheme
            and covers(one.host, host)
            and self._shares(one.gateway.namespace, owner)
        ]
        best = max((one.host for one in listeners), key=precision, default=host)
        chosen = [one for one in listeners if one.host == best]
        found: dict[tuple[object, ...], Location] = {}
        seen: set[object] = set()
        # The most precise host first: of a route that has several, that one counts.
        for rank, wide in enumerate(covering(host)):
            for one in by_host.get(wide, ()):
                if one.attachment.listener not in chosen:
                    continue
                for number, location in enumerate(one.attachment.route.locations):
                    route = one.attachment.route
                    key = (precedence(location.path), location.conditions.precedence, route.born, number)
                    if (key, route.place) not in seen:
                        seen.add((key, route.place))
                        found[rank, *key] = _at(location, one.attachment)
        locations = tuple(found[key] for key in sorted(found))
        secure, schemes = scheme is Scheme.HTTPS, frozenset((scheme,))
        certificate = next((one for one in (one.certificate(host) for one in chosen) if one), None)
        supplied = secure and certificate is None and any(one.supplied for one in chosen)
        if supplied:
            given = certificate_of(host, self._options, self._now) if self._may_ask(host) else None
            certificate = given or self._options.issued.get(host)
        challenged = supplied and self._may_ask(host)
        return Server(host, locations, certificate, tls=secure, schemes=schemes, for_routes=True, challenged=challenged)

    def _may_ask(self, host: str) -> bool:
        """Say whether the issuer is to give a host's certificate."""
        names = self._options.by_itself
        may = names.has(host) if names else host != ANY_HOST and not host.startswith("*.")
        return self._options.issuer and may

    def _asked(self, servers: Sequence[Server], room: int) -> dict[str, str]:
        """Return the hosts that the issuer is asked for, each with why it gave none; some if they are too many."""
        options = self._options
        hosts = sorted((server.host for server in servers), key=lambda host: (host not in options.by_acme, host))
        if options.by_itself:
            hosts = hosts[: max(room, 0)]
        return {host: refusal_of(host, options) for host in hosts}

    def _problems(self, won: Sequence[_Won]) -> Iterator[Problem]:
        for parent in self._parents:
            yield from parent.route.problems
            if why := self._refusal(parent.route.place):
                yield Problem(parent.route.place, Reason.CONFIGURATION_REFUSED, why)
        for one in won:
            yield from (Problem(one.attachment.route.place, *why) for why in one.lost.values())

    def _refusal(self, place: Place) -> str:
        """Return why the proxy does not take a route; empty if it does."""
        if place in self._options.excluded:
            return f"the proxy does not take it: {self._options.excluded[place]}"
        if place in self._options.closed:
            return f"the proxy does not take it, it is closed: {self._options.closed[place]}"
        return ""

    def _states(self, won: Sequence[_Won]) -> Iterator[ClassState | GatewayState | RouteState]:
        yield from self._classes
        of_route: dict[Place, list[ParentState]] = {place: [] for place in self._forgotten}
        attached: set[tuple[Place, str, Place]] = set()
        by_attachment = {id(one.attachment): one for one in won}
        for parent in self._parents:
            mine = [by_attachment[id(one)] for one in parent.attachments if id(one) in by_attachment]
            accepted = self._accepted(parent, mine)
            conditions = [accepted, parent.route.resolved]
            if accepted.holds and parent.route.broken:
                why = "; ".join(parent.route.broken)
                conditions.append(Condition("PartiallyInvalid", holds=True, reason="UnsupportedValue", message=why))
            state = ParentState(parent.reference, tuple(conditions))
            of_route.setdefault(parent.route.place, []).append(state)
            if accepted.holds:
                places = [(one.listener.gateway, one.listener.name) for one in parent.attachments]
                attached |= {(gateway, name, parent.route.place) for gateway, name in places}
        counts = Counter((gateway, name) for gateway, name, _ in attached)
        yield from (gateway.state(counts) for gateway in self._gateways)
        yield from (RouteState(place, tuple(states)) for place, states in sorted(of_route.items()))

    def _accepted(self, parent: Parent, won: Sequence[_Won]) -> Condition:
        """Return whether a route is accepted at a parent, after all that may have gone wrong besides."""
        if not parent.accepted.holds:
            return parent.accepted
        route = parent.route
        if why := self._refusal(route.place):
            return Condition("Accepted", holds=False, reason="UnsupportedValue", message=why)
        if route.is_useless:
            return Condition("Accepted", holds=False, reason="UnsupportedValue", message="; ".join(route.broken))
        if won and not any(one.hosts for one in won):
            reason, message = next(why for one in won for why in one.lost.values())
            return Condition("Accepted", holds=False, reason=reason.value, message=message)
        return parent.accepted


def _by_host(won: Sequence[_Won], scheme: Scheme) -> dict[str, list[_Won]]:
    """Return who has each host, the oldest first."""
    found: dict[str, list[_Won]] = {}
    for one in won:
        if one.attachment.listener.scheme is scheme:
            for host in one.hosts:
                found.setdefault(host, []).append(one)
    return found


def route_hosts_asked_for(observed: Observed) -> Iterator[str]:
    """Yield every host that a listener or an HTTPRoute names."""
    named = [
        listener.get("hostname") or ""
        for gateway in observed.all(GATEWAYS)
        for listener in gateway.get("spec", {}).get("listeners") or []
    ]
    for route in observed.all(HTTP_ROUTES):
        named += route.get("spec", {}).get("hostnames") or []
    for host in named:
        try:
            yield parse_host(host)
        except ValueError:
            continue


def _why(closed: str | None) -> str:
    return "" if closed is None else closed or "the proxy does not take it"


def _at(location: Location, attachment: Attachment) -> Location:
    """Return a location as it is at a listener: a redirect that names no scheme and no port keeps the listener's."""
    redirect = location.rule.redirect if location.rule else None
    if location.rule is None or redirect is None or redirect.scheme or redirect.port:
        return location
    listener = attachment.listener
    kept = replace(redirect, port=listener.port, port_of=listener.scheme.value)
    return replace(location, rule=replace(location.rule, redirect=kept))


def _is_told(manifest: Manifest) -> bool:
    """Say whether a route's status has something of ours."""
    parents = (manifest.get("status") or {}).get("parents") or []
    return any(parent.get("controllerName") == CONTROLLER for parent in parents)
