"""Whether somebody takes connections at a port."""

from __future__ import annotations

import asyncio
import contextlib


async def listens(address: str, port: int, *, seconds: float) -> bool:
    """Connect, and say whether that came about within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
