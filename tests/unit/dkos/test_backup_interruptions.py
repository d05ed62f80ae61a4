"""What changed while the backup's worker was away has no moment: whoever asks for one in between is told so."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from haneul.dkos.backup.archiver import Archiver, Schedule, catalogue_of
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.interruptions import check_moment
from haneul.dkos.backup.names import Interruption, Mark, milliseconds
from haneul.dkos.backup.ports import Batch
from haneul.dkos.backup.requests import Asked, from_backup
from haneul.dkos.backup.segments import Change, Revision
from haneul.dkos.backup.timeline import windows
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.errors import BackupIncompleteError
from haneul.kernel.waiting import wait_for
from tests.unit.dkos.test_archiver import BEGIN, FACTS, Desk
from tests.unit.dkos.test_backup_timeline import FIRST, at, contents, segment, snapshot

CHANGE = Change("a2V5", "dmFsdWU=")
AWAY = timedelta(minutes=10)


async def resumed(desk: Desk, clock: VirtualClock, *, away: timedelta, changes: int) -> Archiver:
    """Back up revision 2, be away while some come, and go on until all is there; return who went on."""
    first = desk.archiver
    await first._begin()
    await first._store([Revision(2, milliseconds(clock.now()), (CHANGE,), {})])
    await first._take_snapshot()
    await first._mark(clock.now(), 2)
    clock.advance(away.total_seconds())
    desk.etcd.revision = 2 + changes
    another = desk.another()
    await another._begin()
    for number in range(2, 3 + changes):
        desk.etcd.changes.put_nowait(Batch(((number, (CHANGE,)),)))
    following = asyncio.create_task(another._follow())

    async def complete() -> bool:
        return another._complete_until is not None and another.stored == desk.etcd.revision

    try:
        await wait_for(complete, what="all that was missed", timeout=60, clock=SystemClock())
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    return another


async def catalogue(desk: Desk, archiver: Archiver) -> Catalogue:
    found = await desk.objects.contents()
    marks = {name: mark for name in found.generations if (mark := await desk.objects.mark(name))}
    assert len(marks) == 1
    update = {"complete_until": archiver._complete_until, "revision": archiver.stored}
    return catalogue_of(FACTS, found, {}, marks).model_copy(update=update)


async def test_a_moment_inside_an_interruption_is_refused_with_the_nearest_ones(tmp_path: Path) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    shown = await catalogue(desk, await resumed(desk, clock, away=AWAY, changes=3))
    assert [(one.first, one.last) for one in shown.windows] == [(1, 2), (3, 5)]
    with pytest.raises(BackupIncompleteError, match="does not have 2026-11-20 12:05:00") as caught:
        from_backup(shown, Asked(moment=BEGIN + timedelta(minutes=5)), number=1)
    words = caught.value.hint
    assert words.startswith("the nearest moments that it has: 2026-11-20 12:00:00 and 2026-11-20 12:10:0")
    # What it names is there.
    before, after = words.removeprefix("the nearest moments that it has: ").partition(" UTC")[0].split(" and ")
    for text in (before, after):
        moment = datetime.fromisoformat(f"{text}+00:00")
        assert from_backup(shown, Asked(moment=moment), number=1).moment == moment
    # Which state a revision is, is certain.
    for revision in range(1, 6):
        assert from_backup(shown, Asked(revision=revision), number=1).revision == revision


@pytest.mark.parametrize(("away", "changes"), [(AWAY, 0), (timedelta(seconds=5), 3)])
async def test_where_nothing_changed_or_nobody_was_away_for_long_no_moment_is_missing(
    tmp_path: Path, away: timedelta, changes: int
) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    shown = await catalogue(desk, await resumed(desk, clock, away=away, changes=changes))
    assert [(one.first, one.last) for one in shown.windows] == [(1, 2 + changes)]
    assert from_backup(shown, Asked(moment=BEGIN + away / 2), number=1).moment == BEGIN + away / 2


async def test_a_worker_that_ends_again_before_it_stored_anything_was_away_once(tmp_path: Path) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    await desk.archiver._begin()
    await desk.archiver._store([Revision(2, milliseconds(BEGIN), (CHANGE,), {})])
    desk.etcd.revision = 3
    for _ in range(3):
        clock.advance(60)
        await desk.another()._begin()
    (generation,) = (await desk.objects.contents()).generations
    mark = await desk.objects.mark(generation)
    assert mark is not None
    assert mark.interruptions == (Interruption(milliseconds(BEGIN), milliseconds(clock.now()), 2),)


def test_windows_are_parted_by_interruptions_of_what_they_have() -> None:
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2), segment(21, 30, 60, 61), segment(31, 40, 90, 91))
    times = (
        Interruption(at(-900), at(-800), 5),
        Interruption(at(5), at(60), 20),
        Interruption(at(70), at(90), 30),
        # Nothing of what came after it is there yet.
        Interruption(at(95), at(99), 40),
    )
    found = windows(whole, {FIRST: Mark(at(95), 40, times)})
    assert [(one.first, one.last, milliseconds(one.begin), milliseconds(one.end)) for one in found] == [
        (10, 20, at(0), at(5)),
        (21, 30, at(60), at(70)),
        (31, 40, at(90), at(95)),
    ]


def test_a_restore_does_not_give_an_older_state_for_a_moment_that_nobody_saw() -> None:
    mark = Mark(at(100), 30, (Interruption(at(5), at(60), 20),))
    for seconds in (0, 5, 60, 99):
        check_moment(BEGIN + timedelta(seconds=seconds), mark)
    check_moment(BEGIN + timedelta(seconds=30), None)
    check_moment(None, mark)
    with pytest.raises(BackupIncompleteError, match="was interrupted") as caught:
        check_moment(BEGIN + timedelta(seconds=30), mark)
    assert caught.value.hint == "the nearest moments that it has: 2026-11-20 12:00:05 and 2026-11-20 12:01:00 UTC"
