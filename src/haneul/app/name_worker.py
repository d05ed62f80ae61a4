"""The names of all clusters: follows their records, runs a controller for each, withdraws what deleted ones had.

Each cluster's controller is a task of its own with its own connections and back-off: trouble in one touches no other.
What all share is the DNS server, which does one batch after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from haneul.app.alive import telling, until_readable
from haneul.dkos.adapters.kube_names import KubeNames
from haneul.dkos.name_record import NameRecord, Standing
from haneul.dns.controller import ClusterController, Pace
from haneul.dns.metrics import MEDIA_TYPE, Metrics
from haneul.dns.model import ClusterDomain, absolute
from haneul.dns.ports import DnsProvider
from haneul.dns.withdrawal import withdraw
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import KubeAccess, KubeClient
from haneul.kernel.kube_http import HttpKubeClient

_log = structlog.get_logger(__name__)
_BACKOFF_FIRST, _BACKOFF_LAST = 0.5, 30.0

Connect = Callable[[KubeAccess], AbstractAsyncContextManager[KubeClient]]


class Board(Protocol):
    """Where records end."""

    async def forget(self, uid: str) -> None:
        """Delete a cluster's record: nothing of it is published any more."""
        ...


@dataclass
class _Known:
    record: NameRecord
    task: asyncio.Task[None] | None


class NameWorker:
    """Publishes the names of all clusters that have a record."""

    def __init__(
        self, provider: DnsProvider, board: Board, *, connect: Connect, clock: Clock, pace: Pace | None = None
    ) -> None:
        self._provider = provider
        self._board = board
        self._connect = connect
        self._clock = clock
        self._pace = pace
        self._known: dict[str, _Known] = {}
        self.metrics = Metrics(clock.monotonic)

    async def know(self, record: NameRecord) -> None:
        """Take up a record or its change; what a controller published stays when it ends."""
        kept = self._known.get(record.uid)
        if kept is not None and kept.record == record:
            return
        await self.forget(record.uid)
        work = {Standing.FOLLOWED: self._follow, Standing.DELETED: self._withdraw}.get(record.standing)
        task = None if work is None else asyncio.create_task(self._guarded(record, work))
        self._known[record.uid] = _Known(record, task)

    async def forget(self, uid: str) -> None:
        """End what is done for a cluster."""
        kept = self._known.pop(uid, None)
        if kept is None:
            return
        if kept.task is not None:
            kept.task.cancel()
            await asyncio.gather(kept.task, return_exceptions=True)
        self.metrics.forget(owner_of(kept.record))

    async def close(self) -> None:
        """End everything."""
        for uid in list(self._known):
            await self.forget(uid)

    async def _guarded(self, record: NameRecord, work: Callable[[NameRecord], Awaitable[None]]) -> None:
        """Do the work of a cluster; an error ends no other cluster's, and is tried again."""
        backoff = _BACKOFF_FIRST
        while True:
            try:
                await work(record)
            except asyncio.CancelledError:
                raise
            except HaneulError as error:
                self.metrics.of(owner_of(record)).failed(error.code)
                _log.warning("names held up", cluster=record.uid, work=record.standing, detail=error.detail)
            except Exception as error:
                _log.error("the names of a cluster failed", cluster=record.uid, exc_info=error)
            else:
                return
            await self._clock.sleep(backoff)
            backoff = min(backoff * 2, _BACKOFF_LAST)

    async def _follow(self, record: NameRecord) -> None:
        if record.access is None:
            return
        domain = ClusterDomain(absolute(record.domain), networks=record.networks)
        async with self._connect(record.access) as client:
            controller = ClusterController(
                client,
                self._provider,
                owner_of(record),
                domain,
                clock=self._clock,
                pace=self._pace,
                figures=self.metrics.of(owner_of(record)),
            )
            _log.info("names are followed", cluster=record.uid, domain=domain.name)
            await controller.run()

    async def _withdraw(self, record: NameRecord) -> None:
        """Take a deleted cluster's names away, whichever of its own ids they were published under, then its record."""
        # A batch whose answer was lost may be done after the first look.
        while count := await withdraw(self._provider, lambda owner: owner.startswith(f"{owner_of(record)}/")):
            _log.info("names are withdrawn", cluster=record.uid, sets=count)
        # The record goes last: as long as it is there, an interrupted withdrawal is gone on with.
        await self._board.forget(record.uid)


def owner_of(record: NameRecord) -> str:
    """Return the beginning of a cluster's mark, which its own id follows; figures are told by it too."""
    return f"{record.project}/{record.name}/{record.uid}"


async def run_worker(access: KubeAccess, provider: DnsProvider, *, port: int) -> None:
    """Publish all clusters' names until cancelled; ``port`` is open while it works, and tells figures."""
    clock = SystemClock()
    async with HttpKubeClient(access, user_agent="haneul-dns") as client:
        board = KubeNames(client)
        await until_readable(board.ready, what="the records of clusters' names", clock=clock)
        worker = NameWorker(
            provider,
            board,
            connect=lambda tenant: HttpKubeClient(tenant, user_agent="haneul-dns"),
            clock=clock,
        )
        async with telling(port, worker.metrics.text, MEDIA_TYPE):
            try:
                await board.run(worker.know, worker.forget)
            finally:
                await worker.close()
                await provider.close()
