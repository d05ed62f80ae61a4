"""Time is passed in, never taken from the air, so that tests can move it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is written down, monotonic time for what is measured."""

    def now(self) -> datetime:
        """Return the current moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never jumps."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the current moment in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep in real time."""
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that only moves when somebody sleeps or advances it; for simulations and tests."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        """Return the simulated moment."""
        return self._now

    def monotonic(self) -> float:
        """Return the simulated seconds since the start."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move time forward by ``seconds``."""
        self._elapsed += seconds
        self._now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """Advance at once and give other tasks a turn."""
        self.advance(seconds)
        await asyncio.sleep(0)
