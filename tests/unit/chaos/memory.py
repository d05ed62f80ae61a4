"""A platform in memory that breaks and mends on a virtual clock."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from haneul.chaos.faults import Asked, Fault
from haneul.chaos.ports import Injection, Question
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError


class OrderedClock:
    """A virtual clock for many sleepers: they wake in the order of their times, each when all others rest."""

    _TURNS = 8

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()
        self._driver: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._count), woken))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        await woken

    async def _drive(self) -> None:
        while self._sleepers:
            for _ in range(self._TURNS):
                await asyncio.sleep(0)
            at, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self._elapsed = max(self._elapsed, at)
                woken.set_result(None)


@dataclass
class MemoryPlatform:
    """What a fault strikes is silent until its end and ``mending`` seconds more. ``stays`` never comes back."""

    clock: VirtualClock | OrderedClock
    mending: float = 3.0
    stays: str = ""
    loses: int = 0
    notices: frozenset[Asked] = frozenset()
    silent_until: dict[Asked, float] = field(default_factory=dict)
    lasting: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    records: dict[str, set[int]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    clusters: bool = False
    trouble_until: float = 0.0

    async def prepare(self) -> None:
        self.clusters = True
        self.log.append("prepare")

    def questions(self) -> Mapping[Asked, Question]:
        def question(asked: Asked) -> Callable[[], Awaitable[bool]]:
            async def ask() -> bool:
                if self.clock.monotonic() < self.silent_until.get(asked, 0):
                    raise UnavailableError(f"{asked} is silent")
                return True

            return ask

        return {asked: question(asked) for asked in Asked}

    async def trouble(self) -> str:
        return "something is not ready" if self.clock.monotonic() < self.trouble_until else ""

    async def write(self, cluster: str, number: int) -> None:
        if self.clock.monotonic() < self.silent_until.get(Asked.VICTIM_API, 0):
            raise UnavailableError("no answer")
        self.records.setdefault(cluster, set()).add(number)

    async def written(self, cluster: str) -> set[int]:
        kept = sorted(self.records.get(cluster, set()))
        return set(kept[self.loses :])

    async def leave(self) -> None:
        self.clusters = False
        self.log.append("leave")

    async def leftovers(self) -> list[str]:
        return [*self.left, *sorted(self.lasting)]

    async def clear(self) -> list[str]:
        cleared = sorted(self.lasting)
        self.lasting.clear()
        return cleared

    async def aim(self, fault: Fault) -> Injection:
        return MemoryInjection(self, fault)


@dataclass
class MemoryInjection:
    platform: MemoryPlatform
    fault: Fault

    async def inject(self) -> None:
        self.platform.log.append(f"inject {self.fault.name}")
        self.platform.lasting.add(self.fault.name)
        now = self.platform.clock.monotonic()
        for asked in {asked for asked, seconds in self.fault.allowed.items() if seconds} | self.platform.notices:
            self.platform.silent_until[asked] = now + self.fault.hold + self.platform.mending
        if self.fault.name == self.platform.stays:
            self.platform.silent_until[Asked.VICTIM_API] = float("inf")

    async def heal(self) -> None:
        self.platform.log.append(f"heal {self.fault.name}")
        self.platform.lasting.discard(self.fault.name)

    async def gone(self) -> bool:
        return self.fault.name not in self.platform.lasting
