"""The web server: uvicorn, which first ends streams when it is asked to stop."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import uvicorn


class DrainingServer(uvicorn.Server):
    """Stops without waiting for clients of streams, who would never leave by themselves; all others are waited for."""

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then finish what is being answered."""
        await self._drain()
        await super().shutdown(sockets)
