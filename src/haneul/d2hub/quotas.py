"""Quotas of projects, without a row that all pushes of a project would wait for.

How much a project keeps is added up by the database when it is asked for, along indexes, and remembered for a short
time. In between this process adds what it let in: what is under way, and what was done since the figure was begun. A
push is refused only after a figure that was just made, so no push is refused for what is gone by then.

With one process no push passes the quota: what was let in counts from the moment it was let in. Several processes on
one database know each other's pushes only from figures: together they may pass it by what they let in within
:data:`FIGURE_SECONDS`. Uploads count when they are finished, not while they arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from haneul.d2hub.metrics import family
from haneul.d2hub.names import project_of
from haneul.d2hub.rules import Rules
from haneul.kernel.clock import Clock
from haneul.kernel.errors import QuotaExceededError

FIGURE_SECONDS: Final = 30.0
#: A figure so young is not made again: a project that is full is asked for by every push.
_FRESH_SECONDS: Final = 1.0


class Meter(Protocol):
    """Knows what projects keep."""

    async def used(self, project: str) -> int:
        """Return the bytes of a project's blobs and manifests, each once, with what can still be brought back."""
        ...

    async def keeps(self, project: str, digest: str) -> bool:
        """Say whether a repository of the project has a blob or manifest: it counts already."""
        ...


@dataclass(frozen=True)
class _Figure:
    """What a project kept, when that was asked for, and how much this process had let in by then."""

    used: int
    at: float
    done: int


class Quotas:
    """Lets pushes in, or refuses them."""

    def __init__(self, meter: Meter, rules: Rules, *, clock: Clock) -> None:
        self._meter, self._rules, self._clock = meter, rules, clock
        self._figures: dict[str, _Figure] = {}
        self._under_way: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._measuring: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refused = 0

    @contextlib.asynccontextmanager
    async def room(self, repository: str, digest: str, size: int) -> AsyncIterator[None]:
        """Hold room for content while it is written down. Raises QuotaExceededError."""
        project = project_of(repository)
        limit = self._rules.rules(project).quota_bytes
        if limit is None or await self._meter.keeps(project, digest):
            yield
            return
        if await self._estimate(project, FIGURE_SECONDS) + size > limit:
            used = await self._estimate(project, _FRESH_SECONDS)
            if used + size > limit:
                self._refused += 1
                raise _refusal(project, used, limit, size)
        # Nothing was awaited since the sum was made, so nobody else had the same room.
        self._under_way[project] += size
        try:
            yield
            self._done[project] += size
        finally:
            self._under_way[project] -= size

    def limits(self, repository: str) -> bool:
        """Say whether the repository's project has a quota."""
        return self._rules.rules(project_of(repository)).quota_bytes is not None

    async def used(self, project: str) -> int:
        """Return how much counts against a project's quota."""
        return await self._estimate(project, _FRESH_SECONDS)

    def lines(self) -> Iterable[str]:
        """Return metrics."""
        return family("d2hub_quota_refused_total", "counter", "Pushes refused by a quota.", {"": self._refused})

    async def _estimate(self, project: str, seconds: float) -> int:
        """Return what a project keeps, by a figure not older than that; it may be too much, never too little."""
        figure = self._young(project, seconds)
        if figure is None:
            async with self._measuring[project]:
                figure = self._young(project, seconds)
                if figure is None:
                    at, done = self._clock.monotonic(), self._done[project]
                    figure = _Figure(await self._meter.used(project), at, done)
                    self._figures[project] = figure
        return figure.used + self._done[project] - figure.done + self._under_way[project]

    def _young(self, project: str, seconds: float) -> _Figure | None:
        figure = self._figures.get(project)
        return figure if figure is not None and self._clock.monotonic() - figure.at < seconds else None


def _refusal(project: str, used: int, limit: int, size: int) -> QuotaExceededError:
    return QuotaExceededError(
        f"the project {project} uses {used} of {limit} bytes, and this would add {size}",
        hint="delete images, which count until they cannot be brought back, or ask whoever runs the hub for more",
    )
