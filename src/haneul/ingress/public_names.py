"""Which hosts an issuer is asked for though nobody said so: those with names that it can find in public. Pure.

No public issuer gives certificates for special-use names (RFC 6761, and ``internal``, ``home.arpa``, ``local``,
``onion``, ``alt``), and asking it only uses up its limits. An issuer of one's own may: then its names are said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haneul.ingress.model import ANY_HOST

#: What ends names that nobody finds in public.
SPECIAL: Final = frozenset(
    ("alt", "arpa", "example", "internal", "invalid", "lan", "local", "localhost", "onion", "test")
)


@dataclass(frozen=True)
class PublicNames:
    """The names at and below which hosts get certificates by themselves; without any, all that are not special."""

    below: tuple[str, ...] = ()

    def has(self, host: str) -> bool:
        """Say whether the issuer is asked for a host; HTTP-01 is for no host with ``*`` (RFC 8555 section 8.3)."""
        if host == ANY_HOST or host.startswith("*."):
            return False
        if self.below:
            return any(host == name or host.endswith(f".{name}") for name in self.below)
        return "." in host and host.rpartition(".")[2] not in SPECIAL
