"""A member for ``haneul bench balancer``: answers every request, and ends as a well-made server does.

When it is told to end (SIGTERM) it takes no new connections, answers what it has been asked, says on each connection
that it is the last answer, and ends when all are closed. It prints its port when it is ready.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final

_END: Final = b"\r\n\r\n"
_BODY: Final = b"x" * 64
_HEAD: Final = f"HTTP/1.1 200 OK\r\nContent-Length: {len(_BODY)}\r\n".encode()
_LAST: Final = b"Connection: close\r\n"
#: Connections that nobody uses any more do not keep it.
_GRACE_SECONDS: Final = 10.0


class _Members(asyncio.Protocol):
    """One connection."""

    ending = asyncio.Event()
    open = 0
    none_open = asyncio.Event()

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_server gives
        self._transport = transport
        _Members.open += 1
        _Members.none_open.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        _Members.open -= 1
        if not _Members.open:
            _Members.none_open.set()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while _END in self._pending and self._transport is not None:
            _, _, self._pending = self._pending.partition(_END)
            if self.ending.is_set():
                self._transport.write(_HEAD + _LAST + b"\r\n" + _BODY)
                self._transport.close()
                return
            self._transport.write(_HEAD + b"\r\n" + _BODY)


async def serve() -> None:
    """Serve until told to end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Members, "127.0.0.1", 0, backlog=1024)
    loop.add_signal_handler(signal.SIGTERM, _Members.ending.set)
    _Members.none_open.set()
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - whoever started it waits for this
    await _Members.ending.wait()
    server.close()
    try:
        async with asyncio.timeout(_GRACE_SECONDS):
            await _Members.none_open.wait()
    except TimeoutError:
        pass


if __name__ == "__main__":
    asyncio.run(serve())
