"""Values of HTTPRoutes: what a rule asks of requests, and what it does with them. Pure.

Neither is part of the proxy's configuration: both are in its table, so they change without a reload, and no value of
theirs has to be a word of nginx's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from haneul.ingress.model import Backend


@dataclass(frozen=True)
class Conditions:
    """What a request has to have besides its path: a method, headers and queries, each a name and a value."""

    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    queries: tuple[tuple[str, str], ...] = ()

    @property
    def any(self) -> bool:
        """Say whether there is one."""
        return bool(self.method or self.headers or self.queries)

    @property
    def precedence(self) -> tuple[bool, int, int]:
        """Return what those of one path are sorted by (Gateway API, ``HTTPRouteRule.matches``)."""
        return (not self.method, -len(self.headers), -len(self.queries))


@dataclass(frozen=True)
class Share:
    """The part ``weight`` of all requests, for a backend; None is one that there is not, and answers 500."""

    backend: Backend | None
    weight: int


@dataclass(frozen=True)
class HeaderChanges:
    """What becomes of headers: some are set, some are added to, some are taken away."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class PathChange:
    """What a path becomes: ``to``, or ``to`` in place of the prefix ``of``."""

    to: str
    of: str | None = None


@dataclass(frozen=True)
class Redirect:
    """Where clients are sent; what is empty is as in the request. ``port`` 0 is none.

    A port that goes with one scheme only, as a listener's does, has that in ``port_of``.
    """

    status: int
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: PathChange | None = None
    port_of: str = ""


@dataclass(frozen=True)
class Rule:
    """What an HTTPRoute's rule does with requests; its name is its place, as the rest changes without a reload."""

    place: str
    shares: tuple[Share, ...] = ()
    request: HeaderChanges = field(default_factory=HeaderChanges)
    answer: HeaderChanges = field(default_factory=HeaderChanges)
    path: PathChange | None = None
    redirect: Redirect | None = None

    protocol: ClassVar[str] = "HTTP"
    tls: ClassVar[None] = None
    affinity: ClassVar[None] = None

    @property
    def name(self) -> str:
        """Return a name of letters and digits; redirects and paths that change differ from one match to the next."""
        said = repr((self.place, self.path, self.redirect))
        return f"r{hashlib.sha256(said.encode()).hexdigest()[:20]}"
