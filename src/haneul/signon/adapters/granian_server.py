"""Granian as the gate's server: one process, one event loop, on an address or a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from haneul.signon.exchange import Reply, Request

_HEADER_MILLISECONDS: Final = 10_000
_BODY_SECONDS: Final = 10.0
_LONGEST_BODY: Final = 4096
_UNIX: Final = "unix:"
_UNIX_MODE: Final = 0o666


class GranianServer:
    """Serves a function from requests to replies."""

    def __init__(self, answer: Callable[[Request], Awaitable[Reply]], listen: str) -> None:
        self._answer = answer
        if listen.startswith(_UNIX):
            where: dict[str, Any] = {"uds": Path(listen.removeprefix(_UNIX))}
        else:
            address, _, port = listen.rpartition(":")
            where = {"address": address.strip("[]"), "port": int(port)}
        self._server = Server(
            self,
            **where,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=1024,
            log_enabled=False,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADER_MILLISECONDS),
        )
        # The web server is another user. Who may enter the socket's folder may ask, and is told nothing but of itself.
        self._server.uds_permissions = _UNIX_MODE

    async def serve(self) -> None:
        """Serve until :meth:`stop`."""
        await self._server.serve()

    def stop(self) -> None:
        """Take no more connections; requests under way are answered."""
        self._server.stop()  # type: ignore[no-untyped-call]  # granian gives this one no types

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        headers = {name: scope.headers.get_all(name) for name in scope.headers.keys()}  # noqa: SIM118 - it is no dict
        body = await _body(protocol) if scope.method == "POST" else b""
        reply = await self._answer(Request(scope.method, scope.path, scope.query_string, headers, body))
        given = list(reply.headers)
        if scope.method == "HEAD" or not reply.body:
            protocol.response_empty(reply.status, given)
        else:
            protocol.response_str(reply.status, given, reply.body)


async def _body(protocol: Any) -> bytes:
    """Return a body, or the beginning of one that is too long to be a form of ours."""
    content = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in protocol:
                content += part
                if len(content) > _LONGEST_BODY:
                    break
    except TimeoutError:
        return b""
    return content
