"""How parts of the platform that serve nobody begin, and show that they work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web

from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.kernel.waiting import wait_for

#: Prometheus' text exposition format.
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


async def until_readable(ready: Callable[[], Awaitable[object]], *, what: str, clock: Clock) -> None:
    """Wait until ``ready`` passes: rights may come a moment after who has them. Raises DeadlineExceededError."""

    async def readable() -> bool:
        with contextlib.suppress(HaneulError):
            await ready()
            return True
        return False

    await wait_for(readable, what=what, timeout=60, clock=clock)


@contextlib.asynccontextmanager
async def alive(port: int) -> AsyncIterator[None]:
    """Keep a port open, which probes connect to."""
    server = await asyncio.start_server(
        lambda _, writer: writer.close(),
        "0.0.0.0",  # noqa: S104 - the pod's own namespace
        port,
    )
    async with server:
        yield


@contextlib.asynccontextmanager
async def telling(port: int, text: Callable[[], str]) -> AsyncIterator[int]:
    """Keep a port open, which probes connect to, and answer ``GET /metrics`` at it; yield which port that is."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=text().encode(), headers={"Content-Type": METRICS_TYPE})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the pod's own namespace
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
