"""What an archiver does when something around it fails: nothing that it has is dropped, nothing is done without end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from haneul.dkos.adapters.backup_memory import MemoryBackups
from haneul.dkos.backup.archiver import Archiver, Schedule
from haneul.dkos.backup.names import milliseconds, moment_of
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.ports import Batch, Identity
from haneul.dkos.backup.replaying import Made, Replayer
from haneul.dkos.backup.segments import Change, Revision
from haneul.dkos.backup.timeline import Retention
from haneul.kernel.clock import Clock, SystemClock, VirtualClock
from haneul.kernel.errors import BackupDamagedError, DeadlineExceededError, HaneulError, UnavailableError
from haneul.kernel.waiting import wait_for

FACTS: dict[str, Any] = {"uid": "uid", "project": "shop", "name": "web", "spec": {}, "keys": {}}
BEGIN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class PaperEtcd:
    """An etcd that tells what it is told to tell."""

    def __init__(self) -> None:
        self.revision = 1
        self.answers = True
        self.told = asyncio.Event()
        self.snapshots = 0
        self.changes: asyncio.Queue[Batch] = asyncio.Queue()

    async def identity(self) -> Identity:
        if not self.answers:
            await self.told.wait()
            raise UnavailableError("etcd does not answer")
        return Identity(7, self.revision)

    async def snapshot(self) -> AsyncIterator[bytes]:
        self.snapshots += 1
        yield str(self.revision).encode()

    async def watch(self, revision: int) -> AsyncGenerator[Batch]:
        while True:
            yield await self.changes.get()
            if self.changes.empty():
                self.told.set()

    async def lease_life(self, lease: str) -> int:
        return 0

    async def close(self) -> None:
        """Nothing is open."""


class PaperReplayer(Replayer):
    """Restores nothing, and fails as it is told to."""

    fails: HaneulError | OSError | None = None

    async def inspect(self, snapshot: Path) -> Made:
        return Made(int(snapshot.read_text()), 1, "digest")

    async def restore(self, *_: Any, **__: Any) -> Made:
        if self.fails is not None:
            raise self.fails
        return Made(1, 1, "digest", served="digest")


class Desk:
    """An archiver with all that is around it, of paper."""

    def __init__(self, folder: Path, clock: Clock, schedule: Schedule) -> None:
        self.etcd = PaperEtcd()
        self.objects = SealedObjects(MemoryBackups(), "uid", bytes(32))
        self.replayer = PaperReplayer(folder / "etcd-replay", folder / "scratch")
        self.schedule, self.clock = schedule, clock
        self.archiver = self.another()

    def another(self) -> Archiver:
        """Return an archiver of another process."""
        return Archiver(
            self.etcd,
            self.objects,
            facts=FACTS,
            replayer=self.replayer,
            schedule=self.schedule,
            clock=self.clock,
            publish=lambda _: None,
        )


@pytest.mark.parametrize(
    "error", [OSError("no space left on device"), DeadlineExceededError("the drill took too long")]
)
async def test_what_fails_around_a_drill_is_tried_again_more_slowly_with_the_same_snapshot(
    tmp_path: Path, error: OSError | HaneulError
) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    desk.replayer.fails = error
    await desk.archiver._begin()
    waits = []
    for _ in range(5):
        await desk.archiver._take_snapshot()
        due = desk.archiver._next_snapshot
        assert due is not None
        waits.append((due - clock.now()).total_seconds())
        clock.advance(waits[-1])
    # At first it only waits for its drill.
    assert waits == [30, 10, 20, 40, 80]
    assert desk.etcd.snapshots == 1
    # The next one comes when it would have come, proven or not.
    clock.advance(3600)
    desk.etcd.revision = 1
    await desk.archiver._take_snapshot()
    assert desk.etcd.snapshots == 2
    desk.replayer.fails = None
    await desk.archiver._take_snapshot()
    assert desk.etcd.snapshots == 2
    assert len((await desk.objects.contents()).proofs) == 1


async def test_the_first_drill_waits_until_a_new_cluster_has_rested(tmp_path: Path) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    following = asyncio.create_task(desk.archiver.run())

    async def proven() -> bool:
        return bool((await desk.objects.contents()).proofs)

    # Looked for at each turn, for nothing holds the other clock meanwhile.
    await wait_for(proven, what="the first proof", timeout=60, clock=SystemClock(), interval=0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    # On a slow machine the clock, which nothing holds, has come to the next ones by now.
    snapshot = min((await desk.objects.contents()).snapshots, key=lambda one: one.taken)
    proof = await desk.objects.read_document(snapshot.proof_key)
    assert datetime.fromisoformat(proof["at"]) - moment_of(snapshot.taken) >= Schedule().first_drill_after
    assert moment_of(snapshot.taken) - BEGIN < Schedule().first_drill_after, "the snapshot itself does not wait"


@pytest.mark.parametrize("another", [False, True])
async def test_a_first_drill_that_was_broken_off_does_not_wait_for_the_next_snapshot(
    tmp_path: Path, another: bool
) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    archiver = desk.archiver
    await archiver._begin()
    # The change that a process which goes on compares, so that it is the same generation.
    await archiver._store([Revision(2, milliseconds(BEGIN), (Change("a2V5", "dmFsdWU="),), {})])
    await archiver._take_snapshot()
    assert len((await desk.objects.contents()).snapshots) == 1
    clock.advance(10)
    desk.etcd.revision = 2
    if another:
        archiver = desk.another()
    await archiver._begin()
    assert archiver._next_snapshot == BEGIN + Schedule().first_drill_after
    clock.advance(20)
    await archiver._take_snapshot()
    assert (await desk.objects.contents()).proofs
    # From then on it is as always.
    await archiver._begin()
    assert archiver._next_snapshot == clock.now() + Schedule().snapshot_every - timedelta(seconds=0 if another else 30)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_worker_killed_between_a_snapshot_and_the_changes_before_it_is_continued(
    tmp_path: Path, lost: bool
) -> None:
    clock = VirtualClock(BEGIN)
    desk = Desk(tmp_path, clock, Schedule())
    await desk.archiver._begin()
    await desk.archiver._store([Revision(2, milliseconds(BEGIN), (Change("a2V5", "dmFsdWU="),), {})])
    desk.etcd.revision = 5
    await desk.archiver._take_snapshot()
    assert [one.revision for one in (await desk.objects.contents()).snapshots] == [5]
    # An etcd that has less than a snapshot of it is not the one that was backed up.
    desk.etcd.revision = 4 if lost else 6
    following = desk.another()
    clock.advance(1)
    await following._begin()
    assert (following._generation != desk.archiver._generation) is lost
    assert following.stored == (4 if lost else 2)


async def test_what_is_old_goes_also_while_drills_fail(tmp_path: Path) -> None:
    clock = VirtualClock(BEGIN)
    kept = Retention(every_state=timedelta(hours=2), daily=timedelta(0))
    desk = Desk(tmp_path, clock, Schedule(retention=kept))
    desk.replayer.fails = BackupDamagedError("another state")
    desk.archiver._problem = "it fails for long already"
    await desk.archiver._begin()
    for _ in range(9):
        await desk.archiver._take_snapshot()
        clock.advance(3600)
    assert len((await desk.objects.contents()).snapshots) <= 4


async def test_what_was_received_is_kept_when_etcd_stops_answering(tmp_path: Path) -> None:
    desk = Desk(tmp_path, VirtualClock(BEGIN), Schedule())
    await desk.archiver._begin()
    following = asyncio.create_task(desk.archiver._follow())

    async def proven() -> bool:
        return bool((await desk.objects.contents()).proofs)

    await wait_for(proven, what="the first proof", timeout=60, clock=SystemClock())
    async with asyncio.timeout(60):
        # It tells of two revisions, and is gone when somebody asks where it is.
        desk.etcd.answers = False
        for number in (2, 3):
            change = Change("a2V5", "dmFsdWU=")
            desk.etcd.changes.put_nowait(Batch(((number, (change,)),)))
        with contextlib.suppress(UnavailableError):
            await following
    assert [(one.first, one.last) for one in (await desk.objects.contents()).segments] == [(2, 3)]
