"""Values of ingress: servers, locations, upstreams, certificates, and what is wrong with objects. Pure.

Everything in here was parsed: texts are of one of the grammars, names are those of Kubernetes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Final

from haneul.ingress.annotations import Wishes
from haneul.ingress.expressions import Expression
from haneul.ingress.grammar import Url
from haneul.ingress.rules import Conditions, Rule
from haneul.ingress.states import ClassState, GatewayState, RouteState
from haneul.kernel.kube_objects import Place

#: The host of the server for requests that name no host of any Ingress.
ANY_HOST: Final = ""


class Reason(StrEnum):
    """Why an Ingress is told something; the reasons of events."""

    ANNOTATION_REFUSED = "AnnotationRefused"
    BACKEND_MISSING = "BackendMissing"
    CANARY_ALONE = "CanaryAlone"
    CERTIFICATE_BROKEN = "CertificateBroken"
    CERTIFICATE_REFUSED = "CertificateRefused"
    CLOSED = "Closed"
    CONFIGURATION_REFUSED = "ConfigurationRefused"
    FIELD_REFUSED = "FieldRefused"
    HOST_REFUSED = "HostRefused"
    HOST_TAKEN = "HostTaken"
    PATH_REFUSED = "PathRefused"
    PATH_TAKEN = "PathTaken"


MEANINGS: Final = {
    Reason.ANNOTATION_REFUSED: "an annotation is not of its form, or not supported; it is left out, or closes paths",
    Reason.BACKEND_MISSING: "there is no such Service or port, or it is of a kind that is not served",
    Reason.CANARY_ALONE: "a canary's path is no path of another Ingress, or that one has a canary already",
    Reason.CERTIFICATE_BROKEN: "a Secret is missing, has no certificate with its key, or one for another host or time",
    Reason.CERTIFICATE_REFUSED: "the issuer gave no certificate for a host, or cannot; what it had before is served on",
    Reason.CLOSED: "what restricts access cannot be done as it is written; paths answer 503",
    Reason.CONFIGURATION_REFUSED: "nginx does not take what the object asks for; its paths are closed (503)",
    Reason.FIELD_REFUSED: "a field of an HTTPRoute is not supported; it or its rule is left out, or closed",
    Reason.HOST_REFUSED: "the host is none, or this cluster may not serve it",
    Reason.HOST_TAKEN: "the host belongs to an older object of another namespace, or of the other kind",
    Reason.PATH_REFUSED: "the path is none, or an expression that is not taken",
    Reason.PATH_TAKEN: "the path of the host belongs to an older Ingress",
}


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong with an Ingress or an HTTPRoute, in words for whoever wrote it."""

    ingress: Place
    reason: Reason
    message: str


@dataclass(frozen=True, order=True)
class Peer:
    """Where a pod answers."""

    address: str
    port: int


@dataclass(frozen=True, order=True)
class Backend:
    """A Service's port, by its name or number."""

    namespace: str
    service: str
    port: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


@dataclass(frozen=True)
class Affinity:
    """The cookie that keeps a client at one endpoint; ``max_age`` in seconds, 0 as long as the browser runs."""

    cookie: str
    path: str
    max_age: int
    same_site: str
    secure: bool


@dataclass(frozen=True)
class Canary:
    """Which requests go to another backend: by a header, else by a cookie, else ``weight`` of ``total``."""

    backend: Backend
    header: str
    value: str
    cookie: str
    weight: int
    total: int


@dataclass(frozen=True)
class PeerTls:
    """How endpoints' certificates are verified; ``authority`` is PEM."""

    authority: bytes
    name: str


@dataclass(frozen=True)
class Upstream:
    """Endpoints that requests are spread over. What of it changes without a reload is no part of its name."""

    backend: Backend
    protocol: str = "HTTP"
    tls: PeerTls | None = None
    affinity: Affinity | None = None
    canary: Canary | None = None
    #: Tells apart upstreams that share a backend and have canaries of their own.
    place: str = ""

    @property
    def name(self) -> str:
        """Return a name of letters and digits."""
        tls = f"{hashlib.sha256(self.tls.authority).hexdigest()} {self.tls.name}" if self.tls else ""
        said = "\0".join((str(self.backend), self.protocol, tls, repr(self.affinity), self.place))
        return f"u{hashlib.sha256(said.encode()).hexdigest()[:20]}"


class Match(StrEnum):
    """How a path is compared, of several that match the first of these."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    EXPRESSION = "Expression"


@dataclass(frozen=True)
class Path:
    """A path that was parsed; of a prefix, without the ``/`` at its end."""

    match: Match
    text: str
    expression: Expression | None = None

    @property
    def covering(self) -> tuple[Path, ...]:
        """Return every path at which all is that is at this one, itself too; of expressions nobody knows more."""
        if self.match is Match.EXPRESSION:
            return (self,)
        elements = self.text.split("/")
        above = ["/".join(elements[:number]) or "/" for number in range(len(elements), 0, -1)]
        return tuple(dict.fromkeys((self, *(Path(Match.PREFIX, text) for text in above))))


@dataclass(frozen=True)
class PeopleAuth:
    """Only people who are signed on at the gate, and whom one of the names fits; without any, all of them."""

    projects: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """Return the words that the gate is asked with."""
        kinds = (("project", self.projects), ("group", self.groups), ("person", self.people), ("email", self.emails))
        return " ".join(f"{kind}:{name}" for kind, names in kinds for name in names) or "anyone"


@dataclass(frozen=True)
class AskedAuth:
    """A Service of the application's own says who gets in."""

    upstream: Upstream
    url: Url
    sign_in: Url | None
    headers: tuple[str, ...]


@dataclass(frozen=True)
class PasswordAuth:
    """Names and hashed passwords, as lines of ``htpasswd``."""

    realm: str
    passwords: bytes = field(repr=False)


Auth = PeopleAuth | AskedAuth | PasswordAuth


@dataclass(frozen=True)
class Location:
    """A path of a host and what is done there. ``closed`` says why nobody gets in; then nothing else counts."""

    path: Path
    #: The Ingress or HTTPRoute that it is of.
    ingress: Place
    wishes: Wishes
    upstream: Upstream | None = None
    auth: Auth | None = None
    closed: str = ""
    #: The Ingress whose canary takes a part of the requests.
    canary_of: Place | None = None
    #: Of an HTTPRoute: what requests have to have besides the path, and what is done with them.
    conditions: Conditions = field(default_factory=Conditions)
    rule: Rule | None = None

    @property
    def name(self) -> str:
        """Return what tells it from other locations of its host that have a rule."""
        rule = self.rule.name if self.rule else ""
        said = repr((self.path, self.ingress, self.conditions, self.closed, rule))
        return f"haneul_rule_{hashlib.sha256(said.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class Certificate:
    """A certificate with its chain and its key, PEM; ``digest`` is of both."""

    chain: bytes
    key: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Return what tells it from others."""
        return hashlib.sha256(self.chain + b"\0" + self.key).hexdigest()[:32]


class Scheme(StrEnum):
    """By what clients reach a server."""

    HTTP = "http"
    HTTPS = "https"


BOTH: Final = frozenset(Scheme)


@dataclass(frozen=True)
class Spot:
    """A path as a proxy compares it, and the locations that requests there are for, in the order of precedence."""

    path: Path
    locations: tuple[Location, ...]

    @property
    def choice(self) -> str:
        """Return the name of what chooses among the locations; empty if nothing has to."""
        if not self.locations[0].conditions.any:
            return ""
        said = repr([(location.name, location.conditions) for location in self.locations])
        return f"c{hashlib.sha256(said.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class Server:
    """A host with its locations, in the order of precedence."""

    host: str
    locations: tuple[Location, ...]
    certificate: Certificate | None = None
    #: Whether somebody asked for TLS there, with a certificate of its own or without.
    tls: bool = False
    schemes: frozenset[Scheme] = BOTH
    #: Whether it is for HTTPRoutes: ``*`` is any number of labels then, and several locations may have one path.
    for_routes: bool = False
    #: Whether an issuer may ask here who answers for the host.
    challenged: bool = False

    @cached_property
    def spots(self) -> tuple[Spot, ...]:
        """Return all paths; whoever has a path without conditions leaves nothing of it to those that come later."""
        if not self.for_routes:
            return tuple(Spot(location.path, (location,)) for location in self.locations)
        there: dict[Path, list[tuple[int, Location]]] = {}
        for number, location in enumerate(self.locations):
            there.setdefault(location.path, []).append((number, location))
        found = {path: chain.from_iterable(there.get(wide, ()) for wide in path.covering) for path in there}
        return tuple(
            Spot(path, _until_any(location for _, location in sorted(some, key=itemgetter(0))))
            for path, some in found.items()
        )


@dataclass(frozen=True)
class Routes:
    """All that is served, what is wrong, and which objects are served at all."""

    servers: tuple[Server, ...] = ()
    problems: tuple[Problem, ...] = ()
    served: frozenset[Place] = frozenset()
    ours: frozenset[Place] = frozenset()
    #: What objects of the Gateway API are told in their status.
    states: tuple[ClassState | GatewayState | RouteState, ...] = ()

    @property
    def certified(self) -> frozenset[str]:
        """Return the hosts that are to get certificates from an issuer."""
        return frozenset(server.host for server in self.servers if server.challenged)

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """Return every upstream by its name."""
        found = {}
        for server in self.servers:
            for location in server.locations:
                auth = location.auth.upstream if isinstance(location.auth, AskedAuth) else None
                found.update({one.name: one for one in (location.upstream, auth) if one})
        return found

    @property
    def rules(self) -> dict[str, Rule]:
        """Return every rule by its name."""
        every = (location.rule for server in self.servers for location in server.locations if not location.closed)
        return {rule.name: rule for rule in every if rule}

    @property
    def choices(self) -> dict[str, tuple[Location, ...]]:
        """Return, by its name, whatever has to be chosen among."""
        return {spot.choice: spot.locations for server in self.servers for spot in server.spots if spot.choice}

    @property
    def backends(self) -> frozenset[Backend]:
        """Return every backend that requests may go to."""
        upstreams, rules = self.upstreams.values(), self.rules.values()
        canaries = {upstream.canary.backend for upstream in upstreams if upstream.canary}
        shares = {share.backend for rule in rules for share in rule.shares if share.backend}
        return frozenset({upstream.backend for upstream in upstreams} | canaries | shares)


def _until_any(locations: Iterable[Location]) -> tuple[Location, ...]:
    """Return locations up to the first that takes every request."""
    found = []
    for location in locations:
        found.append(location)
        if not location.conditions.any:
            break
    return tuple(found)
