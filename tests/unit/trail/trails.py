"""A trail without nginx: records are handed to it, and its store is in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from haneul.kernel.clock import Clock, VirtualClock
from haneul.trail.adapters.object_store import objects_in_memory
from haneul.trail.adapters.sql_catalogue import SqlCatalogue
from haneul.trail.budget import Budget, Limits
from haneul.trail.keeping import Keeper
from haneul.trail.masking import Masks
from haneul.trail.policy import Policy, parse_policy
from haneul.trail.ports import Objects, Taken, TrailStoreAwayError, Written
from haneul.trail.recorder import Recorder
from haneul.trail.ring import Ring
from tests.unit.trail.samples import INGRESSES

CLUSTER = "shop"
NOW = datetime(2026, 11, 27, 21, 30, tzinfo=UTC)


class HandedSource:
    """What a test hands over."""

    def __init__(self) -> None:
        self.waiting: list[Written] = []
        self.tended = 0

    def hand(self, *contents: bytes, ended: float = 0.0) -> None:
        self.waiting += [Written(content, ended) for content in contents]

    def take(self, most: int) -> Taken:
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return Taken(tuple(taken), more=bool(self.waiting))

    def tend(self) -> None:
        self.tended += 1


class FailingObjects:
    """A store that may be away."""

    def __init__(self, store: Objects) -> None:
        self._store = store
        self.away = False

    async def put(self, key: str, content: bytes) -> None:
        self._here()
        await self._store.put(key, content)

    async def get(self, key: str) -> bytes | None:
        self._here()
        return await self._store.get(key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes | None:
        self._here()
        return await self._store.get_range(key, offset, length)

    async def keys(self, prefix: str) -> list[str]:
        self._here()
        return await self._store.keys(prefix)

    async def remove(self, key: str) -> None:
        self._here()
        await self._store.remove(key)

    def _here(self) -> None:
        if self.away:
            raise TrailStoreAwayError("it is away")


class Trail:
    """One cluster's."""

    def __init__(
        self, folder: Path, *, policy: str = "all", limits: Limits | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or VirtualClock(NOW)
        self.source = HandedSource()
        self.objects = FailingObjects(objects_in_memory())
        self.catalogue = SqlCatalogue(folder / "catalogue.db")
        self.policy = policy
        self.limits = limits or Limits(1 << 30, 1 << 30)
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a process that was killed does."""
        self.keeper = Keeper(CLUSTER, self.objects, self.catalogue, self.clock)
        policy_of: Callable[[str], Policy] = lambda _: parse_policy(self.policy)  # noqa: E731
        self.recorder = Recorder(
            self.source,
            Ring(1 << 20),
            self.keeper,
            Budget(self.limits, self.clock.now()),
            Masks(),
            policy_of=policy_of,
            ingresses=INGRESSES,
            clock=self.clock,
            flush_seconds=0.05,
        )

    def pass_by(self, seconds: float) -> None:
        """Let time pass, of a clock that a test moves."""
        assert isinstance(self.clock, VirtualClock)
        self.clock.advance(seconds)

    async def record(self, *contents: bytes) -> None:
        """Let it take in transactions, and write what is kept."""
        self.source.hand(*contents)
        while self.recorder.turn():
            pass
        await self.keeper.flush()
