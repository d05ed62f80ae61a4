"""Working for all clusters that have a record: each by itself, and what was made for deleted ones is withdrawn.

Each cluster's work is a task of its own with its own connections and back-off: trouble in one touches no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from haneul.app.alive import alive, until_readable
from haneul.dkos.adapters.kube_readers import KubeRecords
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.readers import Reader
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeAccess, KubeClient
from haneul.kernel.kube_http import HttpKubeClient

_log = structlog.get_logger(__name__)
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0

Connect = Callable[[KubeAccess], AbstractAsyncContextManager[KubeClient]]


class Work(Protocol):
    """What is done for a cluster. Each may be called again after it was cancelled or failed at any moment."""

    async def follow(self, record: ClusterRecord) -> None:
        """Work for a cluster that runs, until cancelled; what was made stays then."""
        ...

    async def rest(self, record: ClusterRecord) -> None:
        """Bring about what holds while a cluster sleeps, without asking it."""
        ...

    async def withdraw(self, record: ClusterRecord) -> None:
        """Take away all that was made for a deleted cluster."""
        ...


class Board(Protocol):
    """Where records end."""

    async def forget(self, uid: str) -> None:
        """Delete a cluster's record: nothing that was made for it is left."""
        ...


@dataclass
class _Known:
    record: ClusterRecord
    task: asyncio.Task[None]


class RecordWorker:
    """Works for all clusters that have a record."""

    def __init__(self, work: Work, board: Board, *, clock: Clock) -> None:
        self._work = work
        self._board = board
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def know(self, record: ClusterRecord) -> None:
        """Take up a record or its change; what was made for the cluster stays when its work ends."""
        kept = self._known.get(record.uid)
        if kept is not None and kept.record == record:
            return
        await self.forget(record.uid)
        self._known[record.uid] = _Known(record, asyncio.create_task(self._guarded(record)))

    async def forget(self, uid: str) -> None:
        """End what is done for a cluster."""
        kept = self._known.pop(uid, None)
        if kept is not None:
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)

    async def close(self) -> None:
        """End everything."""
        for uid in list(self._known):
            await self.forget(uid)

    async def _guarded(self, record: ClusterRecord) -> None:
        """Do the work of a cluster; an error ends no other cluster's, and is tried again."""
        backoff = _BACKOFF_FIRST
        while True:
            try:
                await self._do(record)
            except asyncio.CancelledError:
                raise
            except HaneulError as error:
                _log.warning("held up", cluster=record.uid, standing=record.standing, detail=error.detail)
            except Exception as error:
                _log.error("the work for a cluster failed", cluster=record.uid, exc_info=error)
            else:
                return
            await self._clock.sleep(backoff)
            backoff = min(backoff * 2, _BACKOFF_LAST)

    async def _do(self, record: ClusterRecord) -> None:
        if record.standing is Standing.FOLLOWED:
            await self._work.follow(record)
        elif record.standing is Standing.ASLEEP:
            await self._work.rest(record)
        else:
            await self._work.withdraw(record)
            _log.info("all is withdrawn", cluster=record.uid)
            # The record goes last: as long as it is there, an interrupted withdrawal is gone on with.
            await self._board.forget(record.uid)


async def run_worker(access: KubeAccess, reader: Reader, work: Callable[[Connect, Clock], Work], *, port: int) -> None:
    """Work for all clusters until cancelled; ``port`` is open meanwhile. ``work`` is told how to reach clusters."""
    clock = SystemClock()

    def connect(tenant: KubeAccess) -> AbstractAsyncContextManager[KubeClient]:
        return HttpKubeClient(tenant, user_agent=reader.name)

    async with HttpKubeClient(access, user_agent=reader.name) as client:
        board = KubeRecords(client, reader)
        await until_readable(board.ready, what=f"the records for {reader.name}", clock=clock)
        worker = RecordWorker(work(connect, clock), board, clock=clock)
        async with alive(port):
            try:
                await board.run(worker.know, worker.forget)
            finally:
                await worker.close()
