"""Working for all clusters that have a record: each by itself, and what was made for deleted ones is withdrawn.

Each cluster's work is a task of its own with its own connections and back-off: trouble in one touches no other. A
cluster that has more objects than one may have is left as it is, and its record says so; it is looked at again later.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from haneul.app.alive import alive, telling, until_readable
from haneul.dkos.adapters.kube_readers import KubeRecords
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.readers import Reader
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeAccess, KubeClient
from haneul.kernel.kube_budget import Budget, Ledger, over_budget
from haneul.kernel.kube_http import HttpKubeClient

_log = structlog.get_logger(__name__)
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0

#: How a cluster's API is reached, by its access and its project, which has a share of what is kept.
Connect = Callable[[KubeAccess, str], AbstractAsyncContextManager[KubeClient]]


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


W = TypeVar("W", bound=Work)


class Board(Protocol):
    """Where records end."""

    async def forget(self, uid: str) -> None:
        """Delete a cluster's record: nothing that was made for it is left."""
        ...

    async def tell(self, uid: str, trouble: str) -> None:
        """Have a cluster's people told why nothing more is done for it; without words, that all is well again."""
        ...


class Failures(Protocol):
    """Where errors of one cluster's work are counted."""

    def failed(self, code: str) -> None:
        """Count an error, after which everything is tried again."""
        ...


class Metrics(Protocol):
    """Figures of the work, by the clusters' marks, for Prometheus."""

    def of(self, cluster: str) -> Failures:
        """Return the figures of a cluster, which begin at nothing."""
        ...

    def forget(self, cluster: str) -> None:
        """Let a cluster go."""
        ...

    def text(self) -> str:
        """Return everything in the text exposition format."""
        ...


@dataclass(frozen=True)
class Patience:
    """Seconds after which a cluster that was over its budget is looked at again, at ``first`` and at the ``last``.

    ``within`` is after how long one that is followed is taken to be within it.
    """

    first: float = 30.0
    last: float = 600.0
    within: float = 20.0


@dataclass
class _Known:
    record: ClusterRecord
    task: asyncio.Task[None]


class RecordWorker:
    """Works for all clusters that have a record."""

    def __init__(
        self,
        work: Work,
        board: Board,
        *,
        clock: Clock,
        metrics: Metrics | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience or Patience()
        self._work = work
        self._metrics = metrics
        self._board = board
        self._clock = clock
        self._known: dict[str, _Known] = {}
        #: What was told to end, and may still be about it, by cluster.
        self._ending: dict[str, set[asyncio.Task[None]]] = defaultdict(set)

    async def know(self, record: ClusterRecord) -> None:
        """Take up a record or its change; what was made for the cluster stays when its work ends."""
        kept = self._known.get(record.uid)
        if kept is not None and kept.record == record:
            return
        if kept is not None:
            self._end(kept)
        self._known[record.uid] = _Known(record, asyncio.create_task(self._after_others(record)))

    async def forget(self, uid: str) -> None:
        """End what is done for a cluster."""
        kept = self._known.pop(uid, None)
        if kept is not None:
            self._end(kept)
            await asyncio.gather(*self._ending.pop(uid, ()), return_exceptions=True)
            if self._metrics:
                self._metrics.forget(kept.record.owner)

    async def close(self) -> None:
        """End everything, all at once."""
        for kept in self._known.values():
            self._end(kept)
        await asyncio.gather(*(self.forget(uid) for uid in list(self._known)))

    def _end(self, kept: _Known) -> None:
        """Tell a cluster's work to end; it may have to do something to its end first, which nobody else waits for."""
        kept.task.cancel()
        ending = self._ending[kept.record.uid]
        ending.add(kept.task)
        kept.task.add_done_callback(ending.discard)

    async def _after_others(self, record: ClusterRecord) -> None:
        """Work for a cluster once all that was done for it before has ended."""
        while ending := {task for task in self._ending[record.uid] if not task.done()} - {asyncio.current_task()}:
            await asyncio.wait(ending)
        await self._guarded(record)

    async def _guarded(self, record: ClusterRecord) -> None:
        """Do the work of a cluster; an error ends no other cluster's, and is tried again."""
        backoff, over_backoff = _BACKOFF_FIRST, self._patience.first
        while True:
            clearing = asyncio.create_task(self._clear(record))
            try:
                await self._do(record)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._note_failure(record, error)
                over = over_budget(error)
            else:
                return
            finally:
                clearing.cancel()
                await asyncio.gather(clearing, return_exceptions=True)
            if over is None:
                await self._clock.sleep(backoff)
                backoff = min(backoff * 2, _BACKOFF_LAST)
            else:
                await self._tell(record, f"{over.detail}; {over.hint}")
                await self._clock.sleep(over_backoff)
                over_backoff = min(over_backoff * 2, self._patience.last)

    def _note_failure(self, record: ClusterRecord, error: Exception) -> None:
        known = over_budget(error) or (error if isinstance(error, HaneulError) else None)
        if known is None:
            _log.error("the work for a cluster failed", cluster=record.uid, exc_info=error)
            return
        if self._metrics:
            self._metrics.of(record.owner).failed(known.code)
        _log.warning("held up", cluster=record.uid, standing=record.standing, detail=known.detail)

    async def _clear(self, record: ClusterRecord) -> None:
        """Once a cluster was followed for a while, say that all is well, whoever said something else before."""
        if record.standing is Standing.FOLLOWED:
            await self._clock.sleep(self._patience.within)
            await self._tell(record, "")

    async def _tell(self, record: ClusterRecord, trouble: str) -> None:
        try:
            await self._board.tell(record.uid, trouble)
        except HaneulError as error:
            _log.warning("a record says nothing new", cluster=record.uid, detail=error.detail)

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


async def run_worker(
    access: KubeAccess,
    reader: Reader,
    work: Callable[[Connect, Clock], W],
    *,
    port: int,
    metrics: Metrics | None = None,
    budget: Budget | None = None,
    beside: Callable[[W, KubeClient], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Work for all clusters until cancelled; ``port`` is open meanwhile, and tells the metrics if there are any.

    ``work`` is told how to reach clusters; what is done ``beside`` that, with the management cluster, has no end.
    """
    clock, ledger = SystemClock(), Ledger(budget)

    def connect(tenant: KubeAccess, project: str) -> AbstractAsyncContextManager[KubeClient]:
        return HttpKubeClient(tenant, user_agent=reader.name, account=ledger.open(project, reader.annotations))

    async with HttpKubeClient(access, user_agent=reader.name) as client:
        board = KubeRecords(client, reader)
        await until_readable(board.ready, what=f"the records for {reader.name}", clock=clock)
        working = work(connect, clock)
        worker = RecordWorker(working, board, clock=clock, metrics=metrics)
        async with alive(port) if metrics is None else telling(port, metrics.text):
            tasks = [] if beside is None else [asyncio.create_task(beside(working, client))]
            try:
                await board.run(worker.know, worker.forget)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await worker.close()
