"""Waiting with a deadline: every wait says on what it waits, and ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from haneul.kernel.clock import Clock
from haneul.kernel.errors import DeadlineExceededError

T = TypeVar("T")


async def wait_for(
    probe: Callable[[], Awaitable[T | None]],
    *,
    what: str,
    timeout: float,  # noqa: ASYNC109 - the deadline is reported in words, which asyncio.timeout cannot do
    clock: Clock,
    interval: float = 0.1,
    max_interval: float = 1.0,
    hint: str = "",
) -> T:
    """Call ``probe`` until it returns something true, with gentle back-off, for at most ``timeout`` seconds.

    A probe reports "not yet" by returning None or False; exceptions pass through. Raises
    :class:`DeadlineExceededError` naming ``what``.
    """
    deadline = clock.monotonic() + timeout
    while True:
        if result := await probe():
            return result
        if clock.monotonic() >= deadline:
            raise DeadlineExceededError(f"waited {timeout:.0f} s for {what}", hint=hint)
        await clock.sleep(interval)
        interval = min(interval * 1.3, max_interval)
