"""Sign-ins in turn: who guesses secrets makes others of the same address wait, nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from haneul.kernel.errors import UnavailableError

#: Sign-ins of one client: those that wait with the ones of others, and all that wait.
_MOST_OF_ONE: Final = 4
_MOST_WAITING_OF_ONE: Final = 100


@dataclass
class _Client:
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_OF_ONE))
    waiting: int = 0


class Turns:
    """Lets so many sign-ins of one client go on at once; the rest wait for each other."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}

    @contextlib.asynccontextmanager
    async def of(self, client: str) -> AsyncIterator[None]:
        """Wait for a turn of a client, which is an address, and hold it. Raises UnavailableError if too many wait."""
        mine = self._clients.setdefault(client, _Client())
        if mine.waiting >= _MOST_WAITING_OF_ONE:
            raise too_many()
        mine.waiting += 1
        try:
            async with mine.free:
                yield
        finally:
            mine.waiting -= 1
            if not mine.waiting:
                self._clients.pop(client, None)


def too_many() -> UnavailableError:
    """Return the error for a sign-in for which there is no room."""
    return UnavailableError("too many sign in at once", hint="try again in a few seconds")
