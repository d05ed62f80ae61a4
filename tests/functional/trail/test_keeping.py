"""From transactions to the store and back: budget, collections, a store that is away, old records."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError, UnavailableError
from haneul.kernel.waiting import wait_for
from haneul.trail.adapters.sql_catalogue import SqlCatalogue
from haneul.trail.budget import Limits
from haneul.trail.chunks import parse_key
from haneul.trail.model import Record
from haneul.trail.ports import Question, TrailStoreAwayError
from haneul.trail.searching import catch_up, search
from tests.unit.trail.samples import STARTED, transaction
from tests.unit.trail.trails import CLUSTER, Trail

ALL = Question(CLUSTER, 0, 1 << 50)


def numbered(number: int, **more: object) -> bytes:
    told = {"unique": f"{number:032x}", "request_id": f"request-{number:04}", "started": STARTED + number, **more}
    return transaction(f"/item/{number}", **told)  # type: ignore[arg-type]


async def found(trail: Trail, **asked: object) -> list[Record]:
    return await search(trail.objects, trail.catalogue, replace(ALL, **asked))  # type: ignore[arg-type]


async def test_what_was_kept_is_found_by_each_of_its_marks(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    other = [("Host", "other.example.com")]
    await trail.record(
        *(numbered(number) for number in range(50)),
        numbered(50, status=503),
        numbered(51, client="2001:db8::7"),
        numbered(52, headers=other),
    )

    async def numbers(**asked: object) -> list[int]:
        return [int(record.path.rpartition("/")[2]) for record in await found(trail, **asked)]

    assert await numbers() == list(range(52, -1, -1))
    assert await numbers(limit=3) == [52, 51, 50]
    assert await numbers(status="503") == await numbers(status="5xx") == [50]
    assert await numbers(client="2001:db8::7") == [51]
    assert await numbers(host="other.example.com") == [52]
    assert await numbers(path="/item/7") == [7]
    assert await numbers(path="/item/4*") == [49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 4]
    assert await numbers(request_id="request-0009") == [9]
    assert await numbers(path="/item/4*", status="404") == []
    begin = round((STARTED + 10) * 1000)
    assert await numbers(since=begin, until=begin + 2000) == [12, 11, 10]


async def test_another_machine_finds_it_without_the_catalogue_of_the_first(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    await trail.record(*(numbered(number) for number in range(20)))
    await trail.record(*(numbered(number) for number in range(20, 30)))
    elsewhere = SqlCatalogue(tmp_path / "elsewhere" / "catalogue.db")
    assert await catch_up(trail.objects, elsewhere, CLUSTER) == 2
    assert len(await search(trail.objects, elsewhere, ALL)) == 30
    assert await catch_up(trail.objects, elsewhere, CLUSTER) == 0


async def test_a_broken_chunk_hides_its_own_records_only(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    for number in range(4):
        await trail.record(numbered(number))
    names = {name.first: name for key in await trail.objects.keys(f"{CLUSTER}/") if (name := parse_key(key))}
    first, second, *_ = [names[moment] for moment in sorted(names)]
    await trail.objects.put(first.index, b"broken")
    await trail.objects.put(second.content, b"broken" * 1000)
    elsewhere = SqlCatalogue(tmp_path / "elsewhere" / "catalogue.db")
    assert [record.path for record in await search(trail.objects, elsewhere, ALL)] == ["/item/3", "/item/2"]


async def test_a_broken_catalogue_loses_nothing(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    await trail.record(numbered(1))
    for file in tmp_path.glob("catalogue.db*"):
        file.unlink()
    (tmp_path / "catalogue.db").write_text("this is no database" * 100)
    await trail.record(numbered(2))
    with pytest.raises(UnavailableError) as caught:
        await found(trail)
    assert "remove it" in caught.value.hint
    (tmp_path / "catalogue.db").unlink()
    anew = SqlCatalogue(tmp_path / "catalogue.db")
    assert [record.path for record in await search(trail.objects, anew, ALL)] == ["/item/2", "/item/1"]
    assert len(await trail.objects.keys(f"{CLUSTER}/")) == 4


async def test_the_days_budget_holds_across_restarts(tmp_path: Path) -> None:
    size = 30_000
    trail = Trail(tmp_path, limits=Limits(1 << 30, size, reserved=0))
    for begun in range(5):
        trail.begin()
        await trail.recorder.learn()
        await trail.record(*(numbered(100 * begun + number) for number in range(20)))
        trail.pass_by(60)
    names = [name for key in await trail.objects.keys(f"{CLUSTER}/") if (name := parse_key(key))]
    assert size - 2000 < sum(name.size for name in names) <= size
    assert trail.recorder.figures.over_budget == 20
    trail.pass_by(86400)
    await trail.record(numbered(900))
    assert (await found(trail))[0].path == "/item/900"


async def test_nothing_is_kept_before_the_store_said_what_was_used(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    trail.objects.away = True
    with pytest.raises(TrailStoreAwayError):
        await trail.recorder.learn()
    await trail.record(numbered(1))
    assert trail.recorder.figures.over_budget == 1
    assert len(list(trail.recorder.lines(0))) == 1


async def test_a_store_that_is_away_is_waited_for_and_what_waits_is_bounded(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    trail.objects.away = True
    for number in range(8):
        with pytest.raises(TrailStoreAwayError):
            await trail.record(numbered(number))
    trail.objects.away = False
    await trail.keeper.flush()
    assert [record.path for record in await found(trail)] == [f"/item/{number}" for number in (7, 6, 5, 4)]
    assert trail.keeper.dropped == 4


async def test_a_collection_has_also_what_was_not_kept_and_nothing_twice(tmp_path: Path) -> None:
    trail = Trail(tmp_path, policy="errors")
    await trail.recorder.learn()
    await trail.record(*(numbered(number, status=500 if number % 2 else 200) for number in range(10)))
    assert len(await found(trail)) == 5
    done = await trail.recorder.collect(round((STARTED + 4) * 1000))
    assert (done.records, done.left_out) == (6, 0)
    assert [record.path for record in await found(trail)] == [f"/item/{n}" for n in (9, 8, 7, 6, 5, 4, 3, 1)]
    assert not trail.recorder.state()["ring"]["frozen"]


async def test_what_has_no_room_stays_frozen_and_the_newest_has_room_first(tmp_path: Path) -> None:
    trail = Trail(tmp_path, policy="nothing", limits=Limits(1 << 30, 5000, reserved=5000))
    await trail.recorder.learn()
    await trail.record(*(numbered(number) for number in range(10)))
    done = await trail.recorder.collect(0)
    assert 0 < done.records < 10
    assert done.left_out == 10 - done.records
    assert [record.path for record in await found(trail)] == [f"/item/{n}" for n in range(9, 9 - done.records, -1)]
    assert trail.recorder.state()["ring"]["frozen_records"] == 10


async def test_a_collection_that_fails_stays_frozen_and_costs_nothing(tmp_path: Path) -> None:
    trail = Trail(tmp_path, policy="nothing", limits=Limits(1 << 30, 1 << 20))
    await trail.recorder.learn()
    await trail.record(*(numbered(number) for number in range(10)))
    trail.objects.away = True
    with pytest.raises(TrailStoreAwayError):
        await trail.recorder.collect(0)
    assert trail.recorder.state()["ring"]["frozen_records"] == 10
    assert trail.recorder.state()["today"]["collected"] == 0
    with pytest.raises(ConflictError):
        trail.recorder.freeze()
    trail.objects.away = False
    assert (await trail.recorder.collect(0)).records == 10


async def test_old_records_go_from_store_and_catalogue(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    await trail.record(numbered(1))
    trail.pass_by(timedelta(days=3).total_seconds())
    await trail.record(numbered(2))
    assert await trail.keeper.remove_before(trail.clock.now(), 2) == 1
    assert [record.path for record in await found(trail)] == ["/item/2"]
    assert len(await trail.objects.keys(f"{CLUSTER}/")) == 2
    assert len(trail.catalogue.chunks()) == 1


async def test_what_cannot_be_read_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    await trail.recorder.learn()
    await trail.record(b"{}", numbered(1), b"no JSON")
    assert trail.recorder.figures.unreadable == 2
    assert len(await found(trail)) == 1


async def test_it_works_by_itself_until_it_is_ended(tmp_path: Path) -> None:
    trail = Trail(tmp_path, clock=SystemClock())
    working = asyncio.ensure_future(trail.recorder.run())
    try:
        trail.source.hand(numbered(1))

        async def kept() -> bool:
            return bool(await found(trail))

        await wait_for(kept, what="a record in the store", timeout=120.0, clock=SystemClock(), interval=0.01)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert trail.source.tended
    trail.source.hand(numbered(2))
    await trail.recorder.close()
    assert len(await found(trail)) == 2
