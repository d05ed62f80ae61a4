"""What ingress needs of a proxy, of whoever knows whose hosts are whose, and of whoever gives certificates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from haneul.ingress.model import Certificate
from haneul.ingress.renewals import Refusals
from haneul.ingress.table import Table
from haneul.kernel.errors import InvalidInputError, UnavailableError


class ConfigurationRefusedError(InvalidInputError):
    """The proxy does not take a configuration; what it served before, it serves on."""

    code = "ingress-configuration-refused"
    title = "The proxy refuses its configuration"


@dataclass(frozen=True)
class Configuration:
    """What a proxy is started with: a text, and the files that it names, relative to the proxy's own folder."""

    text: str
    #: What tells it from others; the proxy says which one it serves.
    generation: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    #: Whether nothing is served with it: no host and no path.
    idle: bool = False


class Proxy(Protocol):
    """A proxy that serves on while whoever tells it what to serve is gone.

    Connections that are open when routes change are served to their end. UnavailableError says that it does not answer.
    """

    async def check(self, configuration: Configuration) -> None:
        """Raise ConfigurationRefusedError if the proxy would not take this; nothing is changed."""
        ...

    async def route(self, configuration: Configuration, table: Table) -> None:
        """Serve these routes, with these endpoints, from when this returns; raises as ``check`` does."""
        ...

    async def point(self, table: Table) -> None:
        """Send requests to these endpoints from when this returns, without a reload."""
        ...


class Hosts(Protocol):
    """Who may have which hosts."""

    async def refused(self, hosts: Sequence[str]) -> Mapping[str, str]:
        """Return, of these hosts, those that this cluster may not serve, and why; ``*.`` stands for one label."""
        ...


class CertificateRefusedError(UnavailableError):
    """An authority does not give a certificate; ``wait`` is how many seconds it wants to be left alone.

    ``over`` says that nothing comes of the order any more; else it can be gone on with.
    """

    code = "ingress-certificate-refused"
    title = "No certificate could be had"

    def __init__(self, detail: str, *, wait: float | None = None, over: bool = False) -> None:
        super().__init__(detail)
        self.wait = wait
        self.over = over


@dataclass(frozen=True)
class Begun:
    """An order that an authority has taken: which text it wants to find by each token, and what only it knows.

    ``kept`` is a text, with a key in it, by which another process goes on with the order.
    """

    challenges: Mapping[str, str]
    order: Any = field(repr=False)
    kept: str = field(default="", repr=False)


class Authority(Protocol):
    """Who gives certificates to whoever answers for a host (RFC 8555)."""

    async def begin(self, host: str) -> Begun:
        """Order a certificate; raises CertificateRefusedError."""
        ...

    async def resume(self, host: str, kept: str) -> Begun:
        """Go on with an order that was begun, perhaps by a process that ended; raises CertificateRefusedError."""
        ...

    async def finish(self, begun: Begun) -> tuple[bytes, bytes]:
        """Let the authority look, and return chain and key, PEM; raises CertificateRefusedError."""
        ...


class CertificateStore(Protocol):
    """Where certificates stay that were given, and what was refused; one controller at a time uses it."""

    def certificates(self) -> dict[str, Certificate]:
        """Return every host's certificate."""
        ...

    def keep(self, host: str, certificate: Certificate) -> None:
        """Keep the certificate of a host, in place of the one before, and forget its order, both at once."""
        ...

    def order(self, host: str) -> str:
        """Return the order of a host that was begun and came to no end; empty if there is none."""
        ...

    def ordered(self, host: str, kept: str) -> None:
        """Keep a host's order, or with an empty text forget it; its certificate stays."""
        ...

    def refusals(self) -> dict[str, Refusals]:
        """Return what was refused."""
        ...

    def remember(self, refusals: Mapping[str, Refusals]) -> None:
        """Keep what was refused, in place of what was known."""
        ...

    def orders(self) -> dict[str, datetime]:
        """Return when hosts without a certificate were ordered for the last time."""
        ...

    def count(self, orders: Mapping[str, datetime]) -> None:
        """Keep when they were, in place of what was known."""
        ...

    def tidy(self, wanted: Collection[str], now: datetime, longest: timedelta) -> set[str]:
        """Forget and return hosts that were unwanted at each look for longer than that, certificate and order."""
        ...


class Certificates(Protocol):
    """Certificates for hosts that bring none."""

    async def certificates(self, hosts: Sequence[str]) -> Mapping[str, Certificate]:
        """Return a certificate for each of these hosts that gets one, good for a while; the same while it is."""
        ...
