"""Nothing that was acknowledged is lost: a writer that goes on through every fault, and reads back at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_PAUSE: Final = 0.2
_PATIENCE: Final = 3.0


@dataclass(frozen=True)
class Written:
    """What a writer asked for, what of it was acknowledged, and what of that is there no more."""

    tried: int
    acknowledged: int
    lost: tuple[int, ...]


class Writer:
    """Writes the numbers from 1 on, each once, and remembers which writes were acknowledged."""

    def __init__(self, write: Callable[[int], Awaitable[None]], *, clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._tried = 0
        self._acknowledged: set[int] = set()

    async def go_on(self) -> None:
        """Write until cancelled; a write that fails, or whose answer does not come, is not repeated."""
        while True:
            self._tried += 1
            with contextlib.suppress(HaneulError, TimeoutError, OSError):
                async with asyncio.timeout(_PATIENCE):
                    await self._write(self._tried)
                self._acknowledged.add(self._tried)
            await self._clock.sleep(_PAUSE)

    async def compare(self, read: Callable[[], Awaitable[set[int]]]) -> Written:
        """Return what became of all that was written."""
        there = await read()
        return Written(self._tried, len(self._acknowledged), tuple(sorted(self._acknowledged - there)))
