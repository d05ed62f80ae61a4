"""Where an upstream may send on to: not to this machine or its network's own addresses, which others cannot reach.

The upstream's own host is where whoever made the mirror wants it, and so are hosts that the mirror's rules name. Names
of others are checked as they are looked up for the connection, so a name that says something else a moment later
(rebinding) leads nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from haneul.d2hub.errors import UpstreamWrongError
from haneul.d2hub.receivers import is_local


class UpstreamAddresses(AbstractResolver):
    """Looks names up for one upstream. ``local`` names hosts that may have any address."""

    def __init__(self, upstream: URL, local: Collection[str]) -> None:
        self._upstream = upstream
        self._trusted = {upstream.host, *(host.lower() for host in local)}

    def check(self, url: URL) -> None:
        """Raise UpstreamWrongError for an address in numbers that is not asked; nobody looks those up."""
        host = url.host or ""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return
        self._check(host, [host])

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look a name up. Raises OSError if there is none, UpstreamWrongError if it is not asked."""
        found = await ThreadedResolver().resolve(host, port, family)
        self._check(host, [entry["host"] for entry in found])
        return found

    async def close(self) -> None:
        """Hold nothing."""

    def _check(self, host: str, addresses: Collection[str]) -> None:
        if host.lower() not in self._trusted and any(is_local(address) for address in addresses):
            raise UpstreamWrongError(
                f"{self._upstream} sends on to {host}, which is an address of this machine or its own network",
                hint="if that is right, name the host in the mirror's localHosts",
            )
