"""Backing up one cluster, all the time: snapshots at intervals, and every change between them within seconds.

Level-triggered like everything here: whatever was written before counts, and a process that was killed at any instant
is simply continued by the next one. What has to hold for going on is checked, never assumed: that it is the same etcd,
and that the last change in the backup is the one that this etcd has at that revision. Otherwise a new generation
begins, with a snapshot of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from haneul.dkos.backup.catalogue import Catalogue, Proof, gap_views, snapshot_views, window_views
from haneul.dkos.backup.interruptions import caught_up, interrupted
from haneul.dkos.backup.names import (
    Contents,
    Mark,
    Segment,
    Snapshot,
    facts_key,
    generation_name,
    mark_key,
    milliseconds,
)
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.ports import EtcdSource, Identity, WatchCompactedError
from haneul.dkos.backup.replaying import Member, Replayer, file_content
from haneul.dkos.backup.segments import Change, Revision, pack, unpack
from haneul.dkos.backup.timeline import Retention, Wish, chain, outlived, up_to
from haneul.dkos.backup.writers import writers_after
from haneul.dkos.model import NEVER, BackupState
from haneul.kernel.clock import Clock
from haneul.kernel.errors import BackupDamagedError, BackupIncompleteError, HaneulError, UnavailableError
from haneul.kernel.tasks import in_own_task

_log = structlog.get_logger(__name__)

_RECEIVE_SECONDS: Final = 5.0
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 10.0
#: How long after a snapshot or a drill that failed for want of something else it is tried again first.
_SNAPSHOT_WAIT: Final = timedelta(seconds=10)
#: How much may wait for the store, in bytes of keys and values, before no more is read from etcd.
_MOST_WAITING: Final = 32 << 20
_KNOWN_LEASES: Final = 4096
_MARK_MILLISECONDS: Final = 4000
_TELL_EVERY: Final = timedelta(seconds=15)


@dataclass(frozen=True)
class Schedule:
    """How often what is done. What waits for a flush is at most that old: the promise is five seconds."""

    flush_seconds: float = 1.5
    snapshot_every: timedelta = timedelta(hours=1)
    #: How long after the first snapshot it is tried, with an etcd of its own: while the nodes of a new cluster start,
    #: which are waited for, it would only slow them down.
    first_drill_after: timedelta = timedelta(seconds=30)
    retention: Retention = field(default_factory=Retention)

    @property
    def after_first(self) -> timedelta:
        """Return how long after the first snapshot of a generation there is something to do about snapshots."""
        return min(self.first_drill_after, self.snapshot_every)


class OtherHistoryError(Exception):
    """This etcd is not the one that was backed up, or not any more."""


@dataclass(frozen=True)
class _Position:
    """Where a generation goes on: after its last revision, which came at ``end`` and has these changes."""

    generation: str
    last: int
    end: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Undrilled:
    """A snapshot that is stored and not proven yet, the digest of its state, and the snapshot before it."""

    snapshot: Snapshot
    digest: str
    before: Snapshot | None


class Archiver:
    """Backs up one cluster until it is cancelled."""

    def __init__(
        self,
        source: EtcdSource,
        objects: SealedObjects,
        *,
        facts: dict[str, Any],
        replayer: Replayer,
        schedule: Schedule,
        clock: Clock,
        publish: Callable[[Catalogue], None],
    ) -> None:
        """``facts`` say what the cluster is: project, name, spec, and its keys; ``publish`` never waits."""
        self._source = source
        self._objects = objects
        self._facts = facts
        self._replayer = replayer
        self._schedule = schedule
        self._clock = clock
        self._publish = publish
        self._contents = Contents()
        self._proofs: dict[tuple[str, int], Proof] = {}
        self._marks: dict[str, Mark] = {}
        #: Whether what came during the last interruption is still being received.
        self._catching_up = False
        self._generation = ""
        self._position_found: _Position | None = None
        self._waiting: list[Revision] = []
        self._waiting_size = 0
        self._room = asyncio.Event()
        self._received = 0
        self._stored = 0
        self._news = asyncio.Condition()
        self._leases: dict[str, int] = {}
        self._fresh = False
        self._complete_until: datetime | None = None
        self._worst_lag = 0.0
        self._next_snapshot: datetime | None = None
        self._undrilled: _Undrilled | None = None
        self._snapshot_wait = _SNAPSHOT_WAIT
        self._problem = ""
        self._told: tuple[object, ...] = ()
        self._tell_again = NEVER

    @property
    def stored(self) -> int:
        """Return the last revision that is in the store."""
        return self._stored

    async def run(self) -> None:
        """Back up until cancelled; whatever fails is tried again, ever more slowly up to ten seconds."""
        backoff = _BACKOFF_FIRST
        try:
            while True:
                before = self._complete_until
                try:
                    await self._begin()
                    await in_own_task(self._follow())
                except (OtherHistoryError, WatchCompactedError) as error:
                    _log.warning("a new generation begins", cluster=self._objects.cluster, reason=str(error))
                    self._fresh = True
                except HaneulError as error:
                    _log.warning("not backed up", cluster=self._objects.cluster, error=str(error))
                    self._tell(BackupState.BEHIND, error.detail)
                if self._complete_until != before:
                    backoff = _BACKOFF_FIRST
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_LAST)
        finally:
            await self._source.close()

    async def _begin(self) -> None:
        """Find out where to go on; what is not certain begins anew."""
        identity = await self._source.identity()
        await keep_facts(self._objects, self._facts, self._clock.now())
        self._contents = await self._objects.contents()
        await self._read_proofs()
        await self._read_marks()
        self._waiting, self._waiting_size = [], 0
        position = None if self._fresh else await self._position(identity)
        if position is None:
            self._generation = generation_name(self._clock.now(), identity.cluster)
            self._received = self._stored = identity.revision
            self._next_snapshot = None
            self._position_found = None
            self._catching_up = False
        else:
            self._generation = position.generation
            # That it is the same is known when the last one is seen again.
            self._received, self._stored = position.last - 1, position.last
            own = [one.taken for one in self._contents.snapshots if one.generation == position.generation]
            age = timedelta(milliseconds=milliseconds(self._clock.now()) - max(own, default=0))
            tried = any(generation == position.generation for generation, _ in self._contents.proofs)
            # A first one that was not tried yet waited for that, when whoever was to do it ended.
            waits = self._schedule.after_first if len(own) == 1 and not tried else self._schedule.snapshot_every
            self._next_snapshot = self._clock.now() + max(timedelta(), waits - age)
            self._position_found = position
            await self._note_interruption(position, identity)
        self._fresh = False

    async def _position(self, identity: Identity) -> _Position | None:
        """Return where the newest generation goes on, if it is this etcd's and can."""
        names = self._contents.generations
        name = names[-1] if names else ""
        segments = [segment for segment in self._contents.segments if segment.generation == name]
        snapshots = [snapshot for snapshot in self._contents.snapshots if snapshot.generation == name]
        if not segments or not name.endswith(f"-{identity.cluster:016x}"):
            return None
        last = max(segments, key=lambda segment: segment.last)
        # One that ended before its first snapshot gets it now. A snapshot comes before the changes that it has: one
        # that nothing reaches yet, as the worker was killed between the two, is reached by what is received next.
        start = Snapshot(self._objects.cluster, name, min(segments).first - 1, 0)
        base = max((one for one in snapshots if one.revision <= last.last), key=lambda one: one.revision, default=start)
        known = max((one.revision for one in snapshots), default=0)
        if chain(base, segments).reaches != last.last or identity.revision < max(last.last, known):
            return None
        try:
            revisions = list(unpack(await self._objects.read_bytes(last.key), last.key))
        except HaneulError as error:
            # It stays, to be reported when somebody needs it; what is to come does not depend on it.
            _log.error("the end of the backup cannot be read", cluster=self._objects.cluster, error=str(error))
            return None
        return _Position(name, last.last, last.end, revisions[-1].changes)

    async def _note_interruption(self, position: _Position, identity: Identity) -> None:
        """Write down, before anything of it is stored, that changes came while nobody saw when."""
        now, mark = milliseconds(self._clock.now()), self._marks.get(position.generation)
        mark = interrupted(mark, last=position.last, end=position.end, reached=identity.revision, now=now)
        self._catching_up = mark is not None
        if mark is not None:
            await self._objects.put_mark(position.generation, mark)
            self._marks[position.generation] = mark

    async def _follow(self) -> None:
        """Receive and store until something ends it."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._store_all(group.create_task(self._receive()), group)
        except BaseExceptionGroup as errors:
            # What was received is good, whatever ended it, and may be all that there is: etcd may never answer again.
            with contextlib.suppress(HaneulError, OSError):
                await self._flush()
            # One of them ended the others; of several at once, that the history is another one says most.
            raise _weightiest(errors) from errors

    async def _receive(self) -> None:
        """Read changes as they come."""
        check = self._position_found
        begin = self._received + 1 if check is None else check.last
        async with contextlib.aclosing(self._source.watch(begin)) as changes:
            async for batch in changes:
                for number, found in batch.revisions:
                    if check is not None:
                        if number != check.last or set(found) != set(check.changes):
                            raise OtherHistoryError(f"revision {number} is not what it was")
                        check = None
                        async with self._news:
                            self._received = number
                            self._news.notify_all()
                        continue
                    if number != self._received + 1:
                        raise OtherHistoryError(f"revision {number} comes after {self._received}")
                    await self._take(number, found)

    async def _take(self, number: int, changes: tuple[Change, ...]) -> None:
        leases = {change.lease: await self._life(change.lease) for change in changes if change.lease != "0"}
        size = sum(len(change.key) + len(change.value) for change in changes)
        while self._waiting_size > _MOST_WAITING:
            self._room.clear()
            await self._room.wait()
        async with self._news:
            self._waiting.append(Revision(number, milliseconds(self._clock.now()), changes, leases))
            self._waiting_size += size
            self._received = number
            self._news.notify_all()

    async def _life(self, lease: str) -> int:
        if lease not in self._leases:
            if len(self._leases) >= _KNOWN_LEASES:
                self._leases.clear()
            self._leases[lease] = await self._source.lease_life(lease)
        return self._leases[lease]

    async def _store_all(self, pump: asyncio.Task[None], group: asyncio.TaskGroup) -> None:
        snapshot: asyncio.Task[None] | None = None
        while True:
            asked = self._clock.now()
            identity = await self._source.identity()
            if f"-{identity.cluster:016x}" != self._generation[-17:] or identity.revision < self._stored:
                raise OtherHistoryError("another etcd answers, or it lost what it had")
            await self._wait_for(identity.revision)
            # Only now is it certain that this is the history which the generation has.
            is_due = self._next_snapshot is None or self._clock.now() >= self._next_snapshot
            if is_due and (snapshot is None or snapshot.done()):
                self._next_snapshot = self._clock.now() + self._schedule.snapshot_every
                snapshot = group.create_task(self._take_snapshot())
            await self._flush()
            self._complete_until = asked
            await self._mark(asked, identity.revision)
            self._worst_lag = max(self._worst_lag, (self._clock.now() - asked).total_seconds())
            self._tell(self._state, self._problem)
            if pump.done():
                raise UnavailableError("etcd ended the watch")
            await self._clock.sleep(self._schedule.flush_seconds)
            self._worst_lag = max(self._worst_lag, (self._clock.now() - asked).total_seconds())

    @property
    def _state(self) -> BackupState:
        if not any(one.generation == self._generation for one in self._contents.snapshots):
            return BackupState.STARTING
        return BackupState.UNPROVEN if self._problem else BackupState.CURRENT

    async def _wait_for(self, revision: int) -> None:
        """Wait until everything up to a revision was received."""
        try:
            async with asyncio.timeout(_RECEIVE_SECONDS), self._news:
                await self._news.wait_for(lambda: self._received >= revision)
        except TimeoutError as error:
            # What came meanwhile is good; it is kept before the watch is begun anew.
            await self._flush()
            raise UnavailableError(f"etcd does not tell of revision {revision}") from error

    async def _flush(self) -> None:
        """Store what waits, as one segment."""
        if not self._waiting:
            return
        taken, size = self._waiting, self._waiting_size
        self._waiting, self._waiting_size = [], 0
        self._room.set()
        try:
            await self._store(taken)
        except BaseException:
            # It failed, or was ended in the middle: the next flush, which may be the last one, has it all.
            self._waiting, self._waiting_size = [*taken, *self._waiting], size + self._waiting_size
            raise

    async def _store(self, taken: list[Revision]) -> None:
        first, last = taken[0], taken[-1]
        segment = Segment(self._objects.cluster, self._generation, first.number, last.number, first.time, last.time)
        content = await asyncio.to_thread(pack, taken)
        segment = replace(segment, size=await self._objects.put_bytes(segment.key, content))
        self._contents = replace(self._contents, segments=(*self._contents.segments, segment))
        async with self._news:
            self._stored = last.number
            self._news.notify_all()

    async def _mark(self, asked: datetime, revision: int) -> None:
        """Write down every few seconds until when the generation is complete: silence alone would not say it."""
        before = self._marks.get(self._generation)
        if before is None or milliseconds(asked) - before.complete >= _MARK_MILLISECONDS:
            known = before.interruptions if before is not None else ()
            if self._catching_up:
                own = [one.revision for one in self._contents.snapshots if one.generation == self._generation]
                known = caught_up(known, milliseconds(asked), min(own, default=0))
            mark = Mark(milliseconds(asked), revision, known)
            await self._objects.put_mark(self._generation, mark)
            self._marks[self._generation] = mark
            self._catching_up = False

    async def _take_snapshot(self) -> None:
        """Take a snapshot, and prove that it, and everything since the one before, can be restored.

        The first one of a generation is proven a while later. What failed for another reason than the backup itself is
        tried again, ever more slowly, with the snapshot that is there: each one is a whole copy of the cluster's state.
        """
        try:
            # First, whatever the drills find: else one that always fails fills the disk, and a full disk fails it.
            await self._clean()
            if self._undrilled is None or self._is_old(self._undrilled):
                self._undrilled = await self._store_snapshot()
                if self._undrilled.before is None:
                    self._next_snapshot = self._clock.now() + self._schedule.after_first
                    return
            await self._drills(self._undrilled)
        except (BackupDamagedError, BackupIncompleteError) as error:
            self._undrilled = None
            is_first = not self._problem
            self._problem = error.detail
            if is_first:
                # Whatever it was, what comes next shall not depend on it.
                raise OtherHistoryError(f"a drill failed: {error.detail}") from error
        except (HaneulError, OSError) as error:
            _log.warning("no snapshot, or not proven", cluster=self._objects.cluster, error=str(error))
            self._next_snapshot = self._clock.now() + self._snapshot_wait
            self._snapshot_wait = min(2 * self._snapshot_wait, self._schedule.snapshot_every)
        else:
            self._undrilled, self._snapshot_wait = None, _SNAPSHOT_WAIT

    def _is_old(self, undrilled: _Undrilled) -> bool:
        """Say whether the next one is due, proven or not, or this one is of another generation."""
        age = timedelta(milliseconds=milliseconds(self._clock.now()) - undrilled.snapshot.taken)
        return undrilled.snapshot.generation != self._generation or age >= self._schedule.snapshot_every

    async def _store_snapshot(self) -> _Undrilled:
        generation = self._generation
        before = max(
            (one for one in self._contents.snapshots if one.generation == generation),
            key=lambda one: one.revision,
            default=None,
        )
        taken = milliseconds(self._clock.now())
        async with self._replayer.folder() as folder:
            path = folder / "snapshot"
            with path.open("xb") as handle:
                async for part in self._source.snapshot():
                    await asyncio.to_thread(handle.write, part)
            found = await self._replayer.inspect(path)
            snapshot = Snapshot(self._objects.cluster, generation, found.revision, taken)
            async with contextlib.aclosing(file_content(path)) as content:
                size = await self._objects.put(snapshot.key, content)
        self._contents = replace(
            self._contents, snapshots=tuple(sorted({*self._contents.snapshots, replace(snapshot, size=size)}))
        )
        return _Undrilled(snapshot, found.digest, before)

    async def _drills(self, undrilled: _Undrilled) -> None:
        snapshot, before = undrilled.snapshot, undrilled.before
        async with self._news:
            await self._news.wait_for(lambda: self._stored >= snapshot.revision)
        await self._drill(snapshot, Wish(revision=snapshot.revision), undrilled.digest, compared=False)
        if before is not None and before.revision < snapshot.revision:
            await self._drill(before, Wish(revision=snapshot.revision), undrilled.digest, compared=True)
            await self._merge(before, snapshot)

    async def _drill(self, snapshot: Snapshot, wish: Wish, digest: str, *, compared: bool) -> None:
        """Restore, start an etcd on the result, read everything back; write down how long it took, or what is wrong."""
        began = self._clock.monotonic()
        problem, keys = "", 0
        try:
            async with self._replayer.folder() as folder:
                stretch = up_to(snapshot, self._contents, wish.revision)
                made = await self._replayer.restore(
                    self._objects, stretch, wish, output=folder / "data", member=Member(), serve=True
                )
            keys = made.keys
            if made.digest != digest or made.served != digest:
                problem = f"what was restored from snapshot {snapshot.revision} is not what the cluster had"
        except (BackupDamagedError, BackupIncompleteError) as error:
            problem = error.detail
        seconds = round(self._clock.monotonic() - began, 2)
        proof = Proof(
            at=self._clock.now(),
            seconds=seconds,
            keys=keys,
            revision=wish.revision,
            compared=compared,
            problem=problem,
        )
        await self._objects.put_document(snapshot.proof_key, proof.model_dump(mode="json", by_alias=True))
        self._proofs[(snapshot.generation, snapshot.revision)] = proof
        self._contents = replace(
            self._contents, proofs=self._contents.proofs | {(snapshot.generation, snapshot.revision)}
        )
        if problem:
            raise BackupDamagedError(problem)
        self._problem = ""

    async def _merge(self, before: Snapshot, snapshot: Snapshot) -> None:
        """Put the segments between two snapshots together: many small objects become one."""
        parts = [one for one in chain(before, self._contents.segments).segments if one.last <= snapshot.revision]
        if len(parts) < 2:
            return
        whole = Segment(
            before.cluster, before.generation, parts[0].first, parts[-1].last, parts[0].begin, parts[-1].end
        )

        async def content() -> AsyncIterator[bytes]:
            for part in parts:
                async for piece in self._objects.read(part.key):
                    yield piece

        whole = replace(whole, size=await self._objects.put(whole.key, content()))
        self._contents = replace(self._contents, segments=tuple(sorted((*self._contents.segments, whole))))
        await self._delete([part.key for part in parts])

    async def _clean(self) -> None:
        before = set(self._contents.generations)
        await self._delete(outlived(self._contents, self._schedule.retention, self._clock.now()))
        for generation in before - set(self._contents.generations):
            await self._objects.delete(mark_key(self._objects.cluster, generation))
            self._marks.pop(generation, None)

    async def _delete(self, keys: list[str] | tuple[str, ...]) -> None:
        gone = set(keys)
        for key in keys:
            await self._objects.delete(key)
        self._contents = Contents(
            tuple(one for one in self._contents.snapshots if one.key not in gone),
            tuple(one for one in self._contents.segments if one.key not in gone),
            frozenset(
                (one.generation, one.revision)
                for one in self._contents.snapshots
                if (one.generation, one.revision) in self._contents.proofs and one.proof_key not in gone
            ),
        )

    async def _read_proofs(self) -> None:
        for snapshot in self._contents.snapshots:
            place = (snapshot.generation, snapshot.revision)
            if place in self._contents.proofs and place not in self._proofs:
                with contextlib.suppress(HaneulError, ValueError):
                    self._proofs[place] = Proof.model_validate(await self._objects.read_document(snapshot.proof_key))

    async def _read_marks(self) -> None:
        self._marks = {}
        for generation in self._contents.generations:
            with contextlib.suppress(HaneulError):
                if mark := await self._objects.mark(generation):
                    self._marks[generation] = mark

    def _tell(self, state: BackupState, message: str) -> None:
        """Publish what there is, when it is something else or some seconds have passed."""
        now, until = self._clock.now(), self._complete_until
        if until is not None:
            self._worst_lag = max(self._worst_lag, (now - until).total_seconds())
        about = (state, message, self._generation, self._contents.snapshots, tuple(self._proofs.values()))
        if about == self._told and now < self._tell_again:
            return
        self._told, self._tell_again = about, now + _TELL_EVERY
        catalogue = catalogue_of(self._facts, self._contents, self._proofs, self._marks).model_copy(
            update={
                "state": state,
                "message": message,
                "as_of": now,
                "lag_seconds": round(self._worst_lag, 2),
                "revision": self._stored,
                "complete_until": NEVER if until is None else until,
            }
        )
        self._worst_lag = 0.0
        self._publish(catalogue)


async def keep_facts(objects: SealedObjects, facts: dict[str, Any], now: datetime) -> None:
    """Keep what is known of the cluster, and the keys and versions that it had before: old states are of those."""
    known: dict[str, Any] = {}
    with contextlib.suppress(BackupIncompleteError):
        known = await objects.facts()
    wanted = {
        **facts,
        "keys": {**known.get("keys", {}), **facts["keys"]},
    }
    if version := facts["spec"].get("version"):
        wanted["writers"] = writers_after(known, version, now)
    if wanted != known:
        await objects.put_document(facts_key(objects.cluster), wanted)


def catalogue_of(
    facts: dict[str, Any],
    contents: Contents,
    proofs: dict[tuple[str, int], Proof],
    marks: dict[str, Mark],
) -> Catalogue:
    """Return what there is of a backup, but for how far it is just now."""
    return Catalogue(
        uid=facts["uid"],
        project=facts["project"],
        name=facts["name"],
        size=contents.size,
        snapshots=snapshot_views(contents, proofs),
        windows=window_views(contents, marks),
        gaps=gap_views(contents),
        spec=facts["spec"],
    )


def _weightiest(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found: list[BaseException] = []
    for error in errors.exceptions:
        found.append(_weightiest(error) if isinstance(error, BaseExceptionGroup) else error)
    order = (asyncio.CancelledError, OtherHistoryError, WatchCompactedError)
    return min(found, key=lambda error: next((n for n, kind in enumerate(order) if isinstance(error, kind)), 9))
