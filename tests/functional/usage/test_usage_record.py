"""The record of usage in a real database: its schema, several processes, kills, clocks, and old days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.app.api import MIGRATIONS
from haneul.app.cluster_usage import USAGE_MIGRATIONS
from haneul.identity import tables as identity_tables
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import migrate, open_database
from haneul.kernel.errors import UnavailableError
from haneul.usage import tables
from haneul.usage.accounting import totals
from haneul.usage.model import Shape, Sighting
from haneul.usage.record import KEPT_DAYS, UsageRecord
from haneul.usage.recorder import UsageRecorder

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
DAY = 86400.0
SMALL, LARGE = Shape(1, 2100, 2560), Shape(3, 6100, 6656)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(NOW)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_database(f"sqlite+aiosqlite:///{tmp_path}/haneul.db")
    await migrate(engine, MIGRATIONS)
    await migrate(engine, USAGE_MIGRATIONS)
    yield engine
    await engine.dispose()


def seen(shape: Shape = SMALL, generation: int = 1, created: datetime = NOW) -> list[Sighting]:
    return [Sighting("u1", "shop", "web", created, generation, shape)]


async def hours(record: UsageRecord, clock: VirtualClock) -> tuple[float, float]:
    since, until = NOW - timedelta(days=2000), clock.now() + timedelta(days=2000)
    found = totals(*await record.between(since, until), since=since, until=until)
    return sum(entry.cluster_hours for entry in found), sum(entry.node_hours for entry in found)


async def test_migrations_make_exactly_the_tables_beside_identitys(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {
            "compare_type": True,
            "version_table": "usage_alembic_version",
            "include_name": lambda name, kind, _: kind != "table" or name.startswith("usage_"),
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        await connection.execute(select(identity_tables.people))
    await migrate(engine, USAGE_MIGRATIONS)


async def test_two_processes_count_once(engine: AsyncEngine, clock: VirtualClock) -> None:
    records = [UsageRecord(engine, clock=clock) for _ in range(2)]
    for step in range(6):
        shape = SMALL if step < 3 else LARGE
        await asyncio.gather(*(record.note(seen(shape, 1 if step < 3 else 2)) for record in records))
        clock.advance(3600)
    assert await hours(records[0], clock) == (5.0, 3 + 2 * 3)


async def test_a_process_that_was_killed_is_continued_by_the_next(engine: AsyncEngine, clock: VirtualClock) -> None:
    await UsageRecord(engine, clock=clock).note(seen())
    clock.advance(7200)
    record = UsageRecord(engine, clock=clock)
    await record.note(seen())
    assert await hours(record, clock) == (2.0, 2.0)


class Broken(VirtualClock):
    """Fails while a look is written down."""

    broken = False

    def monotonic(self) -> float:
        if self.broken:
            raise RuntimeError("killed")
        return super().monotonic()


async def test_a_look_is_written_whole_or_not_at_all(engine: AsyncEngine) -> None:
    clock = Broken(NOW)
    record = UsageRecord(engine, clock=clock)
    await record.note(seen())
    clock.advance(3600)
    clock.broken = True
    with pytest.raises(RuntimeError):
        await record.note(seen(LARGE, 2))
    assert await hours(record, clock) == (0.0, 0.0)
    clock.broken = False
    await record.note(seen(LARGE, 2))
    assert await hours(record, clock) == (1.0, 1.0)


async def test_a_clock_that_was_wrong_and_is_set_right_costs_nobody_years(engine: AsyncEngine) -> None:
    await UsageRecord(engine, clock=VirtualClock(NOW)).note(seen())
    wrong = VirtualClock(NOW + timedelta(days=1500))
    await UsageRecord(engine, clock=wrong).note(seen())
    right = VirtualClock(NOW + timedelta(hours=2))
    record = UsageRecord(engine, clock=right)
    await record.note(seen())
    right.advance(3600)
    await record.note(seen())
    assert await hours(record, right) == (3.0, 3.0)


async def test_old_spans_become_days_and_keep_their_sums(engine: AsyncEngine, clock: VirtualClock) -> None:
    record = UsageRecord(engine, clock=clock)
    for day in range(KEPT_DAYS + 12):
        await record.note(seen(SMALL if day % 2 else LARGE, day + 1))
        clock.advance(DAY)
        await record.note(seen(SMALL if day % 2 else LARGE, day + 1))
    days = KEPT_DAYS + 12
    expected = (24.0 * days, 24.0 * (days // 2) * 4)
    assert await hours(record, clock) == pytest.approx(expected, abs=0.01)
    async with engine.connect() as connection:
        rolled = (await connection.execute(select(tables.days.c.day))).scalars().all()
        oldest = (await connection.execute(select(tables.spans.c.started).order_by("started"))).scalars().first()
    assert len(rolled) == len(set(rolled)) == 12
    assert oldest is not None
    assert oldest.replace(tzinfo=UTC) >= clock.now() - timedelta(days=KEPT_DAYS + 1)


async def test_a_cluster_of_which_only_days_are_kept_is_not_counted_from_its_beginning_again(
    engine: AsyncEngine, clock: VirtualClock
) -> None:
    record = UsageRecord(engine, clock=clock)
    await record.note(seen())
    clock.advance(DAY)
    await record.note(seen())
    for _ in range(KEPT_DAYS + 3):
        clock.advance(DAY)
        await record.note([])
    await record.note(seen())
    assert await hours(record, clock) == (24.0, 24.0)


async def test_what_is_asked_for_is_of_the_named_projects_and_time(engine: AsyncEngine, clock: VirtualClock) -> None:
    record = UsageRecord(engine, clock=clock)
    other = Sighting("u2", "other", "web", NOW, 1, LARGE)
    await record.note([*seen(), other])
    clock.advance(3600)
    await record.note([*seen(), other])
    spans, _ = await record.between(NOW, clock.now(), ["shop"])
    assert [span.uid for span in spans] == ["u1"]
    assert await record.between(clock.now() + timedelta(seconds=1), clock.now() + timedelta(days=1)) == ([], [])
    assert await record.between(NOW, clock.now(), []) == ([], [])


class Clusters:
    """Shows one cluster, and fails first."""

    def __init__(self) -> None:
        self.looks = 0
        self.failed = asyncio.Event()
        self.looked = asyncio.Event()

    async def look(self) -> Sequence[Sighting]:
        self.looks += 1
        if self.looks == 1:
            self.failed.set()
            raise UnavailableError("nobody answers")
        self.looked.set()
        return seen()


async def test_the_recorder_goes_on_after_a_failure_and_looks_at_once_when_told(
    engine: AsyncEngine, clock: VirtualClock
) -> None:
    clusters = Clusters()
    recorder = UsageRecorder(UsageRecord(engine, clock=clock), clusters, every=600)
    running = asyncio.create_task(recorder.run())
    async with asyncio.timeout(60):
        await clusters.failed.wait()
        recorder.changed()
        await clusters.looked.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert clusters.looks == 2
