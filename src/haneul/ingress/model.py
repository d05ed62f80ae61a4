"""Values of ingress: servers, locations, upstreams, certificates, and what is wrong with objects. Pure.

Everything in here was parsed: texts are of one of the grammars, names are those of Kubernetes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from haneul.ingress.annotations import Wishes
from haneul.ingress.expressions import Expression
from haneul.ingress.grammar import Url
from haneul.kernel.kube_objects import Place

#: The host of the server for requests that name no host of any Ingress.
ANY_HOST: Final = ""


class Reason(StrEnum):
    """Why an Ingress is told something; the reasons of events."""

    ANNOTATION_REFUSED = "AnnotationRefused"
    BACKEND_MISSING = "BackendMissing"
    CANARY_ALONE = "CanaryAlone"
    CERTIFICATE_BROKEN = "CertificateBroken"
    CLOSED = "Closed"
    CONFIGURATION_REFUSED = "ConfigurationRefused"
    HOST_REFUSED = "HostRefused"
    HOST_TAKEN = "HostTaken"
    PATH_REFUSED = "PathRefused"
    PATH_TAKEN = "PathTaken"


MEANINGS: Final = {
    Reason.ANNOTATION_REFUSED: "an annotation is not of its form, or not supported; it is left out, or closes paths",
    Reason.BACKEND_MISSING: "there is no such Service or port, or it is of a kind that is not served",
    Reason.CANARY_ALONE: "a canary's path is no path of another Ingress, or that one has a canary already",
    Reason.CERTIFICATE_BROKEN: "a Secret is missing, has no certificate with its key, or one for another host or time",
    Reason.CLOSED: "what restricts access cannot be done as it is written; paths answer 503",
    Reason.CONFIGURATION_REFUSED: "nginx does not take what the object asks for; its paths are closed (503)",
    Reason.HOST_REFUSED: "the host is none, or this cluster may not serve it",
    Reason.HOST_TAKEN: "the host belongs to an older Ingress of another namespace",
    Reason.PATH_REFUSED: "the path is none, or an expression that is not taken",
    Reason.PATH_TAKEN: "the path of the host belongs to an older Ingress",
}


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong with an Ingress, in words for whoever wrote it."""

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
    ingress: Place
    wishes: Wishes
    upstream: Upstream | None = None
    auth: Auth | None = None
    closed: str = ""
    #: The Ingress whose canary takes a part of the requests.
    canary_of: Place | None = None


@dataclass(frozen=True)
class Certificate:
    """A certificate with its chain and its key, PEM; ``digest`` is of both."""

    chain: bytes
    key: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Return what tells it from others."""
        return hashlib.sha256(self.chain + b"\0" + self.key).hexdigest()[:32]


@dataclass(frozen=True)
class Server:
    """A host with its locations, in the order of precedence."""

    host: str
    locations: tuple[Location, ...]
    certificate: Certificate | None = None
    #: Whether somebody asked for TLS there, with a certificate of its own or without.
    tls: bool = False


@dataclass(frozen=True)
class Routes:
    """All that is served, what is wrong, and which objects are served at all."""

    servers: tuple[Server, ...] = ()
    problems: tuple[Problem, ...] = ()
    served: frozenset[Place] = frozenset()
    ours: frozenset[Place] = frozenset()

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
    def backends(self) -> frozenset[Backend]:
        """Return every backend that requests may go to."""
        upstreams = self.upstreams.values()
        canaries = {upstream.canary.backend for upstream in upstreams if upstream.canary}
        return frozenset({upstream.backend for upstream in upstreams} | canaries)
