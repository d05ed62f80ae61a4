"""Server-sent events (WHATWG HTML, section 9.2): text that a browser and a terminal read alike.

A comment is sent whenever nothing else was for a while, so that neither proxies nor clients take silence for death.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import StreamingResponse

HEARTBEAT_SECONDS: Final = 15.0
MEDIA_TYPE: Final = "text/event-stream"


@dataclass(frozen=True)
class ServerEvent:
    """One event: its type, its data as JSON, and the id with which a client resumes after it."""

    type: str
    data: Any
    id: str = ""

    def encode(self) -> str:
        """Return the event as it goes over the wire."""
        text = f"event: {self.type}\ndata: {json.dumps(self.data, separators=(',', ':'))}\n"
        return f"{text}id: {self.id}\n\n" if self.id else f"{text}\n"


async def with_heartbeats(events: AsyncIterator[ServerEvent], seconds: float = HEARTBEAT_SECONDS) -> AsyncIterator[str]:
    """Yield ``events`` encoded, with a comment after every ``seconds`` of silence; ends when they end."""
    # Reconnect soon: the platform's API restarts in a second or two.
    yield "retry: 1000\n\n"
    following: asyncio.Task[ServerEvent] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=seconds)
            if not done:
                yield ": still here\n\n"
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event.encode()
    finally:
        if following is not None:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await following
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def event_stream(
    events: AsyncIterator[ServerEvent], *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> StreamingResponse:
    """Return the response that sends ``events`` as they come."""
    return StreamingResponse(
        with_heartbeats(events, heartbeat_seconds),
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
