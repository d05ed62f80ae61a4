"""All clusters' backups: follows the records, runs an archiver for each cluster, keeps deleted clusters' for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from haneul.dkos.backup.archiver import Archiver, Schedule, catalogue_of
from haneul.dkos.backup.catalogue import Catalogue
from haneul.dkos.backup.names import moment_of
from haneul.dkos.backup.objects import SealedObjects
from haneul.dkos.backup.ports import BackupStore, EtcdSource
from haneul.dkos.backup.record import Access, Record, Standing
from haneul.dkos.backup.replaying import Replayer
from haneul.dkos.model import BackupState
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)
_LOOK_SECONDS: Final = 60.0
_PUBLISH_BACKOFF: Final = 2.0


class Board(Protocol):
    """Where catalogues are shown, and records end."""

    async def publish(self, catalogue: Catalogue) -> None:
        """Show a catalogue, but none of a deleted cluster that somebody took away: its project is gone."""
        ...

    async def of(self, uid: str) -> Catalogue | None:
        """Return the catalogue that is shown of a cluster."""
        ...

    async def forget(self, uid: str) -> None:
        """Delete a cluster's record and catalogue: nothing of its backup is left."""
        ...


@dataclass
class _Followed:
    record: Record
    task: asyncio.Task[None]


class BackupWorker:
    """Backs up all clusters that have a record."""

    def __init__(
        self,
        store: BackupStore,
        board: Board,
        *,
        connect: Callable[[Access], EtcdSource],
        replayer: Replayer,
        schedule: Schedule,
        clock: Clock,
    ) -> None:
        self._store = store
        self._board = board
        self._connect = connect
        self._replayer = replayer
        self._schedule = schedule
        self._clock = clock
        self._followed: dict[str, _Followed] = {}
        self._unpublished: dict[str, Catalogue] = {}
        self._something = asyncio.Event()

    async def run_publisher(self) -> None:
        """Show what archivers tell, the newest only, until cancelled; the archivers never wait for it."""
        while True:
            await self._something.wait()
            self._something.clear()
            for uid in list(self._unpublished):
                catalogue = self._unpublished.pop(uid)
                try:
                    await self._board.publish(catalogue)
                except HaneulError as error:
                    _log.warning("catalogue not published", cluster=uid, error=str(error))
                    self._unpublished.setdefault(uid, catalogue)
                    self._something.set()
                    await self._clock.sleep(_PUBLISH_BACKOFF)

    async def know(self, record: Record) -> None:
        """Take up a record or its change."""
        kept = self._followed.get(record.uid)
        if kept is not None and kept.record == record and not kept.task.done():
            return
        await self.forget(record.uid)
        if record.standing is Standing.DELETED:
            # What its archiver told last is older than that.
            self._unpublished.pop(record.uid, None)
        work = {Standing.FOLLOWED: self._follow, Standing.ASLEEP: self._pause, Standing.DELETED: self._keep}
        task = asyncio.create_task(self._guarded(record, work[record.standing]))
        self._followed[record.uid] = _Followed(record, task)

    async def forget(self, uid: str) -> None:
        """End what is done for a cluster."""
        kept = self._followed.pop(uid, None)
        if kept is not None:
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)

    async def close(self) -> None:
        """End everything."""
        for uid in list(self._followed):
            await self.forget(uid)

    async def _guarded(self, record: Record, work: Callable[[Record], Awaitable[None]]) -> None:
        """Do the work of a cluster; an error that nobody foresaw ends no other cluster's, and is tried again."""
        while True:
            try:
                await work(record)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                _log.error("the backup of a cluster failed", cluster=record.uid, exc_info=error)
                await self._clock.sleep(_LOOK_SECONDS)
            else:
                return

    async def _follow(self, record: Record) -> None:
        if record.access is None:
            return
        archiver = Archiver(
            self._connect(record.access),
            self._objects(record),
            facts=record.facts,
            replayer=self._replayer,
            schedule=self._schedule,
            clock=self._clock,
            publish=self._publish,
        )
        await archiver.run()

    async def _pause(self, record: Record) -> None:
        """Say that a sleeping cluster's backup waits; what was known of it stays known."""
        shown = await self._board.of(record.uid) or await self._looked_up(record)
        self._publish(
            shown.model_copy(update={"state": BackupState.PAUSED, "message": "the cluster sleeps", "lag_seconds": 0.0})
        )

    async def _keep(self, record: Record) -> None:
        """Keep a deleted cluster's backup until its time has come, then delete it and the record.

        Its time has come too when somebody took its catalogue away.
        """
        deleted = record.deleted or self._clock.now()
        expires = deleted + self._schedule.retention.deleted
        while self._clock.now() < expires:
            try:
                shown = await self._board.of(record.uid)
                if shown is None:
                    break
                if shown.deleted is None:
                    words = {"state": BackupState.PAUSED, "message": "the cluster was deleted", "lag_seconds": 0.0}
                    ended = shown.model_copy(update={**words, "deleted": deleted, "expires": expires})
                    await self._board.publish(ended)
            except HaneulError as error:
                _log.warning("a deleted cluster's backup not looked at", cluster=record.uid, error=str(error))
            await self._clock.sleep(min(_LOOK_SECONDS, max(0.0, (expires - self._clock.now()).total_seconds())))
        while True:
            try:
                await self._objects(record).delete_all()
                # The record goes last: as long as it is there, an interrupted end is gone on with.
                await self._board.forget(record.uid)
            except HaneulError as error:
                _log.warning("a deleted cluster's backup not deleted", cluster=record.uid, error=str(error))
                await self._clock.sleep(_LOOK_SECONDS)
            else:
                return

    async def _looked_up(self, record: Record) -> Catalogue:
        contents = await self._objects(record).contents()
        catalogue = catalogue_of(record.facts, contents, {}, {})
        ends = [segment.end for segment in contents.segments]
        reached = max((segment.last for segment in contents.segments), default=0)
        update = {"as_of": self._clock.now(), "revision": reached}
        return catalogue.model_copy(update={**update, **({"complete_until": moment_of(max(ends))} if ends else {})})

    def _objects(self, record: Record) -> SealedObjects:
        return SealedObjects(self._store, record.uid, record.key)

    def _publish(self, catalogue: Catalogue) -> None:
        self._unpublished[catalogue.uid] = catalogue
        self._something.set()
