"""Sends deliveries over HTTP: to no address of this machine or its network's own, and never where a redirect says.

A receiver's name is looked up once, all that it says is checked, and the connection goes to what was checked: a name
that says something else a moment later (rebinding) leads nowhere. TLS is checked against the name.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx2

from haneul.d2hub.receivers import Receiver, is_local
from haneul.kernel.errors import ForbiddenError, InvalidInputError, UnavailableError

_MEDIA_TYPE: Final = "application/cloudevents+json; charset=utf-8"
_CONNECT_SECONDS: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}
#: Looking up names blocks a thread, as long as the system's resolver takes.
_THREADS: Final = 8
#: Addresses of one name that are tried.
_MOST_ADDRESSES: Final = 4


class HttpSender:
    """Sends requests. ``local`` names hosts that may be on this machine or its network's own addresses."""

    def __init__(self, *, timeout_seconds: float, local: Collection[str] = ()) -> None:
        self._seconds = timeout_seconds
        self._local = frozenset(host.lower() for host in local)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="receivers")
        self._contexts: dict[tuple[Path | None, int], ssl.SSLContext] = {}

    def close(self) -> None:
        """Let threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, receiver: Receiver, headers: Mapping[str, str], body: bytes) -> int:
        """Post a body; of the answer only the status is read."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._sent(receiver, headers, body)
        except TimeoutError as error:
            raise UnavailableError(f"no answer within {self._seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError) as error:
            raise UnavailableError(f"no answer: {type(error).__name__}") from error

    async def _sent(self, receiver: Receiver, headers: Mapping[str, str], body: bytes) -> int:
        parts = urlsplit(receiver.url)
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]
        addresses = await self._addresses(host, port)
        named = f"[{host}]" if ":" in host else host
        sent = {**headers, "content-type": _MEDIA_TYPE, "host": named if parts.port is None else f"{named}:{port}"}
        async with self._client(receiver, parts.scheme) as client:
            problem: Exception = UnavailableError(f"{host} has no address")
            for address in addresses:
                numeric = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
                url = urlunsplit((parts.scheme, numeric, parts.path or "/", parts.query, ""))
                request = client.build_request(
                    "POST", url, content=body, headers=sent, extensions={"sni_hostname": host}
                )
                try:
                    answer = await client.send(request, stream=True)
                except httpx2.ConnectError as error:
                    problem = error
                    continue
                await answer.aclose()
                return answer.status_code
            raise problem

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Look a name up. Raises UnavailableError, ForbiddenError if any of its addresses is nobody's business."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, _looked_up, host, port)
        except (OSError, UnicodeError) as error:
            raise UnavailableError(f"{host} has no address") from error
        if host.lower() not in self._local and any(is_local(address) for address in found):
            raise ForbiddenError(
                f"{host} is an address of this machine or its own network", hint="whoever runs the hub may allow it"
            )
        return found[:_MOST_ADDRESSES]

    @contextlib.asynccontextmanager
    async def _client(self, receiver: Receiver, scheme: str) -> AsyncIterator[httpx2.AsyncClient]:
        """Open a client for one request: a connection kept for later would be kept for an address, not for a name."""
        verify = self._context(receiver) if scheme == "https" else False
        timeout = httpx2.Timeout(self._seconds, connect=min(_CONNECT_SECONDS, self._seconds))
        async with httpx2.AsyncClient(
            verify=verify, timeout=timeout, trust_env=False, follow_redirects=False
        ) as client:
            yield client

    def _context(self, receiver: Receiver) -> ssl.SSLContext:
        path = receiver.authority
        try:
            key = (path, path.stat().st_mtime_ns if path else 0)
            if key not in self._contexts:
                self._contexts = {old: made for old, made in self._contexts.items() if old[0] != path}
                self._contexts[key] = ssl.create_default_context(cafile=path)
        except OSError as error:
            raise InvalidInputError(f"the authority {path and path.name} cannot be read") from error
        return self._contexts[key]


def _looked_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
