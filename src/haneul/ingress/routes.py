"""From a cluster's objects to what is served: servers, locations, upstreams, certificates, and what is wrong. Pure.

One object that is wrong takes nothing away from others. What of an Ingress is wrong is told to it; what restricts
access and is wrong closes its paths (they answer 503), as nobody meant them to be open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from haneul.ingress.access import AccessRefusedError, auth_of, tls_of
from haneul.ingress.annotations import Wishes, read_annotations
from haneul.ingress.certificates import out_of_time, read_certificate, uncovered
from haneul.ingress.claims import Age, Claims, age, ours
from haneul.ingress.endpoints import port_of
from haneul.ingress.gateway_api import GatewayApi, route_hosts_asked_for
from haneul.ingress.grammar import parse_host
from haneul.ingress.issued import certificate_of, refusal_of
from haneul.ingress.model import (
    ANY_HOST,
    Affinity,
    Backend,
    Canary,
    Certificate,
    Location,
    Match,
    Path,
    Problem,
    Reason,
    Routes,
    Server,
    Upstream,
)
from haneul.ingress.observed import Observed
from haneul.ingress.options import Options
from haneul.ingress.paths import parse_rule_path, precedence
from haneul.kernel.kube import INGRESS_CLASSES, INGRESSES, SECRETS, SERVICES, Manifest
from haneul.kernel.kube_objects import Place, place_of

#: How many hosts of a cluster an issuer is asked for by itself: its limits are for all clusters together.
MOST_CERTIFIED: Final = 100
#: How many limits of clients a cluster's Ingress objects may have: for each nginx has 1 MiB of memory.
MOST_LIMITS: Final = 200


def compile_routes(observed: Observed, options: Options, now: datetime) -> Routes:
    """Return what a cluster's objects ask for, as far as it can be served."""
    return _Compiler(observed, options, now).routes()


def hosts_asked_for(observed: Observed) -> list[str]:
    """Return every host that one of our Ingress objects or a route names, sorted."""
    found = set(route_hosts_asked_for(observed))
    for manifest in ours(observed.all(INGRESSES), observed.all(INGRESS_CLASSES)):
        wishes, _ = read_annotations(manifest["metadata"].get("annotations") or {})
        named = [rule.get("host") or "" for rule in _rules(manifest)]
        for host in [*named, *wishes.server_alias]:
            try:
                found.add(parse_host(host))
            except ValueError:
                continue
    return sorted(found)


@dataclass(frozen=True)
class _Ingress:
    place: Place
    manifest: Manifest
    wishes: Wishes
    closed: str

    @property
    def born(self) -> Age:
        return age(self.manifest)

    @property
    def spec(self) -> dict[str, Any]:
        return self.manifest.get("spec") or {}


class _Compiler:
    def __init__(self, observed: Observed, options: Options, now: datetime) -> None:
        self._observed = observed
        self._options = options
        self._now = now
        self._gateway_api = GatewayApi(observed, options, now)
        self._claims = Claims(across_namespaces=options.hosts_across_namespaces, routes=self._gateway_api.wanted())
        self._locations: dict[str, dict[Path, Location]] = defaultdict(dict)
        #: Which hosts each Ingress has a path of.
        self._own: dict[Place, set[str]] = defaultdict(set)
        self._certificates: dict[str, Certificate | None] = {}
        #: Hosts for which a Secret is named.
        self._brought: set[str] = set()
        #: Hosts that are to get certificates from the issuer.
        self._certified: set[str] = set()
        self._problems: list[Problem] = []

    def routes(self) -> Routes:
        mine = ours(self._observed.all(INGRESSES), self._observed.all(INGRESS_CLASSES))
        read = [self._read(manifest) for manifest in mine]
        served = self._limited(self._closed(ingress) for ingress in read if not self._is_excluded(ingress))
        for ingress in served:
            if not ingress.wishes.canary:
                self._add_rules(ingress)
        for ingress in served:
            if not ingress.wishes.canary:
                self._add_fallback(ingress)
                if ingress.place not in self._options.closed:
                    self._add_certificates(ingress)
                    self._add_issued(ingress)
        for ingress in served:
            if ingress.wishes.canary and ingress.place not in self._options.closed:
                self._add_canary(ingress)
        servers = tuple(
            Server(
                host,
                tuple(sorted(found.values(), key=lambda location: precedence(location.path))),
                self._certificates.get(host) or self._options.issued.get(host),
                tls=host in self._certificates or host in self._options.issued,
                challenged=host in self._certified,
            )
            for host, found in sorted(self._locations.items())
        )
        locations = [location for server in servers for location in server.locations]
        routed = {one for location in locations for one in (location.ingress, location.canary_of) if one}
        by_routes = self._gateway_api.serve(self._claims.hosts(), room=MOST_CERTIFIED - len(self._certified))
        return Routes(
            (*servers, *by_routes.servers),
            tuple(sorted({*self._problems, *by_routes.problems})),
            served=by_routes.served | routed,
            ours=by_routes.ours | {ingress.place for ingress in read},
            states=by_routes.states,
        )

    def _read(self, manifest: Manifest) -> _Ingress:
        place = place_of(INGRESSES, manifest)
        wishes, refusals = read_annotations(manifest["metadata"].get("annotations") or {})
        for refusal in refusals:
            end = "; its paths are closed until then" if refusal.closes else "; it is left out"
            self._tell(place, Reason.ANNOTATION_REFUSED, f"{refusal}{end}")
        closing = next((str(refusal) for refusal in refusals if refusal.closes), "")
        return _Ingress(place, manifest, wishes, closing)

    def _is_excluded(self, ingress: _Ingress) -> bool:
        why = self._options.excluded.get(ingress.place)
        if why is not None:
            self._tell(ingress.place, Reason.CONFIGURATION_REFUSED, f"the proxy does not take it: {why}")
        return why is not None

    def _closed(self, ingress: _Ingress) -> _Ingress:
        why = self._options.closed.get(ingress.place)
        if why is None:
            return ingress
        self._tell(ingress.place, Reason.CONFIGURATION_REFUSED, f"the proxy does not take it, it is closed: {why}")
        return replace(ingress, closed=why or "the proxy does not take it")

    def _limited(self, ingresses: Iterable[_Ingress]) -> list[_Ingress]:
        """Return them with those closed whose limits of clients come after as many as there may be."""
        found, limits = [], 0
        for ingress in ingresses:
            wanted = 0 if ingress.closed or ingress.wishes.canary else ingress.wishes.limits
            if wanted and limits + wanted > MOST_LIMITS:
                why = f"limit-rps, limit-rpm and limit-connections: older ones have {limits} of {MOST_LIMITS}"
                self._tell(ingress.place, Reason.CLOSED, f"{why}; its paths are closed until then")
                found.append(replace(ingress, closed=why))
                continue
            limits += wanted
            found.append(ingress)
        return found

    def _add_rules(self, ingress: _Ingress) -> None:
        aliases = [alias for alias in ingress.wishes.server_alias if self._take_host(alias, ingress)]
        for rule in _rules(ingress.manifest):
            host = self._host(rule, ingress)
            if host is None:
                continue
            for entry in (rule.get("http") or {}).get("paths") or []:
                location = self._location(entry, ingress)
                if location:
                    for one in [host, *aliases] if host else [host]:
                        self._add(one, location)

    def _host(self, rule: Mapping[str, Any], ingress: _Ingress) -> str | None:
        """Return a rule's host if the Ingress has it."""
        if not rule.get("host"):
            return ANY_HOST if self._take_host(ANY_HOST, ingress) else None
        try:
            host = parse_host(rule["host"])
        except ValueError as error:
            self._tell(ingress.place, Reason.HOST_REFUSED, f"{rule['host'][:100]!r}: {error}")
            return None
        return host if self._take_host(host, ingress) else None

    def _take_host(self, host: str, ingress: _Ingress) -> bool:
        if why := self._options.refused_hosts.get(host):
            self._tell(ingress.place, Reason.HOST_REFUSED, f"{host}: {why}")
            return False
        if owner := self._claims.host(host, ingress.place, ingress.born):
            why = f"{host or 'any host'} belongs to {owner.kind} {owner}, which is older"
            self._tell(ingress.place, Reason.HOST_TAKEN, why)
            return False
        return True

    def _location(self, entry: Mapping[str, Any], ingress: _Ingress) -> Location | None:
        wishes = ingress.wishes
        text, kind = entry.get("path") or "/", entry.get("pathType") or "ImplementationSpecific"
        try:
            path = parse_rule_path(text, kind, expressions=wishes.use_regex or wishes.rewrite_target is not None)
        except ValueError as error:
            self._tell(ingress.place, Reason.PATH_REFUSED, f"{text[:100]!r}: {error}")
            return None
        if wishes.rewrite_target and wishes.rewrite_target.groups > (path.expression.groups if path.expression else 0):
            why = f"{text[:100]!r} has fewer groups than rewrite-target {wishes.rewrite_target} names"
            self._tell(ingress.place, Reason.PATH_REFUSED, why)
            return None
        return self._made(path, entry.get("backend") or {}, ingress)

    def _made(self, path: Path, backend: Mapping[str, Any], ingress: _Ingress) -> Location:
        closed = ingress.closed
        try:
            auth = auth_of(ingress.wishes, ingress.place.namespace, self._observed, gate=self._options.gate)
            upstream = self._upstream(backend, ingress)
        except AccessRefusedError as error:
            auth, upstream, closed = None, None, closed or str(error)
            self._tell(ingress.place, Reason.CLOSED, f"{error}; its paths are closed until then")
        return Location(path, ingress.place, ingress.wishes, upstream, auth, closed)

    def _upstream(self, backend: Mapping[str, Any], ingress: _Ingress) -> Upstream | None:
        found = self._backend(backend, ingress)
        if found is None:
            return None
        wishes = ingress.wishes
        affinity = None
        if wishes.affinity:
            affinity = Affinity(
                wishes.session_cookie_name,
                wishes.session_cookie_path,
                wishes.session_cookie_max_age,
                wishes.session_cookie_samesite,
                wishes.session_cookie_secure,
            )
        return Upstream(found, wishes.backend_protocol, tls_of(wishes, found, self._observed), affinity)

    def _backend(self, backend: Mapping[str, Any], ingress: _Ingress) -> Backend | None:
        service = backend.get("service") or {}
        name, namespace = service.get("name"), ingress.place.namespace
        if not name:
            self._tell(ingress.place, Reason.BACKEND_MISSING, "a backend that is no Service is not served")
            return None
        found = self._observed.get(SERVICES, namespace, name)
        if found is None:
            self._tell(ingress.place, Reason.BACKEND_MISSING, f"there is no Service {namespace}/{name}")
            return None
        if (found.get("spec") or {}).get("type") == "ExternalName":
            why = f"the Service {namespace}/{name} has no endpoints: it is of type ExternalName"
            self._tell(ingress.place, Reason.BACKEND_MISSING, why)
            return None
        wanted = service.get("port") or {}
        port = port_of(found, wanted)
        if port is None:
            shown = wanted.get("name") or wanted.get("number")
            self._tell(ingress.place, Reason.BACKEND_MISSING, f"the Service {namespace}/{name} has no port {shown}")
            return None
        return Backend(namespace, name, port)

    def _add(self, host: str, location: Location) -> None:
        if owner := self._claims.path(host, location.path, location.ingress):
            if owner != location.ingress:
                why = f"{location.path.text!r} of {host or 'any host'} belongs to Ingress {owner}, which is older"
                self._tell(location.ingress, Reason.PATH_TAKEN, why)
            return
        self._locations[host][location.path] = location
        self._own[location.ingress].add(host)

    def _add_fallback(self, ingress: _Ingress) -> None:
        """Let a default backend answer where the Ingress has nothing; without rules, where nobody has the host."""
        backend = ingress.spec.get("defaultBackend")
        if not backend:
            return
        path = Path(Match.PREFIX, "/")
        rules = _rules(ingress.manifest)
        if not rules:
            if self._take_host(ANY_HOST, ingress):
                self._add(ANY_HOST, self._made(path, backend, ingress))
            return
        for host in sorted(self._own[ingress.place]):
            if path not in self._locations[host]:
                self._add(host, self._made(path, backend, ingress))

    def _add_certificates(self, ingress: _Ingress) -> None:
        own = self._own[ingress.place]
        for entry in ingress.spec.get("tls") or []:
            named = [host.lower() for host in entry.get("hosts") or []]
            hosts = {host for host in own if host and (not named or any(_covers(name, host) for name in named))}
            certificate = self._certificate(entry.get("secretName") or "", ingress) if hosts else None
            self._brought |= hosts if entry.get("secretName") else set()
            for host in sorted(hosts):
                if not self._claims.may_certify(host, ingress.place) or self._certificates.get(host):
                    continue
                why = uncovered(certificate, host) if certificate else ""
                if why:
                    self._tell(ingress.place, Reason.CERTIFICATE_BROKEN, f"Secret {entry['secretName']}: {why}")
                self._certificates[host] = None if why else certificate

    def _add_issued(self, ingress: _Ingress) -> None:
        """Let hosts have certificates of the issuer where the Ingress wants that, and no Secret has one.

        Or by itself, where whoever runs this wants that; never where a Secret may be on its way.
        """
        names, wanted = self._options.by_itself, ingress.wishes.certificate
        if not wanted and names is None:
            return
        if not self._options.issuer:
            if self._options.supplied:
                return
            why = "certificate: there is no issuer; whoever runs this has to name one"
            self._tell(ingress.place, Reason.CERTIFICATE_REFUSED, why)
            return
        for host in sorted(host for host in self._own[ingress.place] if host != ANY_HOST):
            if self._certificates.get(host) or not self._claims.may_certify(host, ingress.place):
                continue
            if not wanted and (host in self._brought or host.startswith("*.")):
                continue
            if why := self._unasked(host):
                if wanted:
                    self._tell(ingress.place, Reason.CERTIFICATE_REFUSED, f"{host}: {why}")
                continue
            if names is not None and host not in self._certified and len(self._certified) >= MOST_CERTIFIED:
                why = f"older hosts have all {MOST_CERTIFIED} certificates that a cluster gets of the issuer"
                self._tell(ingress.place, Reason.CERTIFICATE_REFUSED, f"{host}: {why}")
                continue
            self._certified.add(host)
            if refusal := refusal_of(host, self._options):
                self._tell(ingress.place, Reason.CERTIFICATE_REFUSED, refusal)
            if certificate := certificate_of(host, self._options, self._now):
                self._certificates[host] = certificate

    def _unasked(self, host: str) -> str:
        """Return why the issuer is not asked for a host; empty if it is."""
        if host.startswith("*."):
            return "the issuer gives none for '*'"
        names = self._options.by_itself
        return "" if names is None or names.has(host) else "it is no name that the issuer is asked for"

    def _certificate(self, name: str, ingress: _Ingress) -> Certificate | None:
        if not name:
            return None
        secret = self._observed.get(SECRETS, ingress.place.namespace, name)
        if secret is None:
            self._tell(ingress.place, Reason.CERTIFICATE_BROKEN, f"there is no Secret {name} with a certificate")
            return None
        try:
            certificate = read_certificate(secret)
        except ValueError as error:
            self._tell(ingress.place, Reason.CERTIFICATE_BROKEN, f"Secret {name}: {error}")
            return None
        # Served all the same: clients say more of it than one that is not for the host.
        if why := out_of_time(certificate, self._now):
            self._tell(ingress.place, Reason.CERTIFICATE_BROKEN, f"Secret {name}: {why}")
        return certificate

    def _add_canary(self, ingress: _Ingress) -> None:
        for rule in _rules(ingress.manifest):
            for entry in (rule.get("http") or {}).get("paths") or []:
                self._join(rule.get("host") or ANY_HOST, entry, ingress)

    def _join(self, host: str, entry: Mapping[str, Any], ingress: _Ingress) -> None:
        """Let a canary's path take its part of the requests of the same path of another Ingress."""
        text, exact = entry.get("path") or "/", entry.get("pathType") == "Exact"
        found = next(
            (
                location
                for path, location in self._locations.get(host.lower(), {}).items()
                if (path.match is Match.EXACT) == exact
                and text in (path.text, f"{path.text}/")
                and location.ingress.namespace == ingress.place.namespace
            ),
            None,
        )
        if found is None or (found.upstream and found.upstream.canary):
            why = "is no path of another Ingress" if found is None else "has a canary already"
            self._tell(ingress.place, Reason.CANARY_ALONE, f"{text[:100]!r} of {host or 'any host'} {why}")
            return
        backend = self._backend(entry.get("backend") or {}, ingress)
        if backend is None or found.upstream is None or ingress.closed:
            return
        wishes = ingress.wishes
        canary = Canary(
            backend,
            wishes.canary_by_header,
            wishes.canary_by_header_value,
            wishes.canary_by_cookie,
            wishes.canary_weight,
            wishes.canary_weight_total,
        )
        place = f"{host.lower()} {found.path.match} {found.path.text}"
        joined = replace(found.upstream, canary=canary, place=place)
        self._locations[host.lower()][found.path] = replace(found, upstream=joined, canary_of=ingress.place)

    def _tell(self, ingress: Place, reason: Reason, message: str) -> None:
        self._problems.append(Problem(ingress, reason, message))


def _rules(manifest: Manifest) -> list[dict[str, Any]]:
    return (manifest.get("spec") or {}).get("rules") or []


def _covers(name: str, host: str) -> bool:
    """Say whether a host of a TLS entry is a host, or a wildcard for it."""
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])
