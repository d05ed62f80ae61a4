"""The web server: uvicorn, which takes up renewed certificates, and ends streams first when it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import uvicorn

from haneul.app.serving_certificate import ServingCertificate


class DrainingServer(uvicorn.Server):
    """Stops without waiting for clients of streams, who would never leave by themselves; all others are waited for."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], Awaitable[None]],
        certificate: ServingCertificate | None = None,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._certificate = certificate
        self._following: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and follow the certificate's files."""
        await super().startup(sockets)
        if self._certificate is not None:
            self._following = asyncio.create_task(self._certificate.follow())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then finish what is being answered."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self._drain()
        await super().shutdown(sockets)
