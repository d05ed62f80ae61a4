"""Who is told of what happens in a project, and which addresses are nobody's business. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from haneul.d2hub.happenings import TOLD, Happening
from haneul.kernel.errors import InvalidInputError

_LONGEST_URL: Final = 1000
#: "This network", which reaches the machine itself (RFC 1122, 3.2.1.3); the prefix of NAT64 (RFC 6052, 2.1).
_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Receiver:
    """Where events go. The secret that signs them lies in a file; ``authority`` is whose certificates are trusted."""

    url: str
    secret_file: Path
    happenings: frozenset[Happening] = frozenset(TOLD)
    authority: Path | None = None


def parse_url(text: str) -> str:
    """Return a receiver's address. Raises InvalidInputError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or len(text) > _LONGEST_URL or any(not "!" <= letter <= "~" for letter in text):
        raise InvalidInputError(
            f"{text[:80]!r} is no address of a receiver", hint="write http:// or https:// and a host"
        )
    if parts.username is not None or parts.fragment:
        raise InvalidInputError(f"the address at {parts.hostname} names a user or a fragment", hint="leave it out")
    return text


def shown(url: str) -> str:
    """Return an address as it may be shown: what is behind the path may be a secret."""
    return url.partition("?")[0]


def is_local(address: str) -> bool:
    """Say whether an address is this machine's own, or its network's only: nothing that a receiver has.

    Loopback, link-local (where clouds keep their metadata), unspecified and multicast, also inside of IPv6 forms.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour
        if inside is None and found in _NAT64:
            inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inside is not None:
            return is_local(str(inside))
    return (
        found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast or found in _THIS_NETWORK
    )
