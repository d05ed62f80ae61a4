"""The names of all clusters: each is followed by itself, and what a deleted one had goes with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from haneul.app.name_worker import NameWork
from haneul.app.record_worker import RecordWorker
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dns.adapters.memory import MemoryDns
from haneul.dns.controller import Pace
from haneul.dns.metrics import Metrics
from haneul.dns.model import Acknowledgement, Change, Key
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import NAMESPACES, SERVICES, KubeAccess, KubeClient
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.waiting import wait_for
from tests.unit.dns.objects import service

ZONE = "k8s.example."
PACE = Pace(gather=0.0, first_backoff=0.001, last_backoff=0.01)


def record(name: str, standing: Standing = Standing.FOLLOWED) -> ClusterRecord:
    access = KubeAccess(f"https://{name}", b"ca", b"crt", b"key") if standing is Standing.FOLLOWED else None
    return ClusterRecord(f"uid-of-{name}", "shop", name, f"{name}.shop.k8s.example", standing, access)


class Dns(MemoryDns):
    """A server that may refuse to do anything for some owners."""

    refused = ""
    #: A batch that has begun, and waits for the other.
    begun: asyncio.Event | None = None
    go_on: asyncio.Event | None = None

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        if self.begun and self.go_on and not self.begun.is_set():
            self.begun.set()
            await self.go_on.wait()
        if self.refused and owner.startswith(self.refused):
            raise UnavailableError("not now")
        return await super().apply(zone, owner, changes)


class Ground:
    """Clusters by the URLs of their APIs, a DNS server, and the worker between them."""

    def __init__(self) -> None:
        self.dns = Dns(ZONE, "10.in-addr.arpa.")
        self.clusters: dict[str, MemoryKubeClient] = {}
        self.ended: list[str] = []
        self.connections = 0
        clock = SystemClock()
        self.metrics = Metrics(clock.monotonic)
        work = NameWork(self.dns, self.metrics, self.connect, clock, pace=PACE)
        self.worker = RecordWorker(work, self, clock=clock, metrics=self.metrics)

    async def forget(self, uid: str) -> None:
        self.ended.append(uid)

    async def tell(self, uid: str, trouble: str) -> None:
        """Nobody is over any budget here."""

    @contextlib.asynccontextmanager
    async def connect(self, access: KubeAccess, _: str) -> AsyncIterator[KubeClient]:
        self.connections += 1
        if access.server not in self.clusters:
            raise RuntimeError("nobody foresaw this")
        yield self.clusters[access.server]

    async def cluster(self, name: str) -> MemoryKubeClient:
        client = self.clusters[f"https://{name}"] = MemoryKubeClient()
        for namespace in ("kube-system", "shop"):
            await client.apply(NAMESPACES, {"metadata": {"name": namespace}})
        await client.apply(SERVICES, service("web", "10.3.0.1"))
        return client

    async def owners(self) -> set[str]:
        states = [await self.dns.read(zone) for zone in self.dns.zones]
        return {there.owner for state in states for there in state.sets.values() if there.owner}

    async def address(self, name: str) -> tuple[str, ...]:
        there = (await self.dns.read(ZONE)).sets.get(Key(f"web.shop.svc.{name}.shop.{ZONE}", "A"))
        return there.records.values if there else ()


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    found = Ground()
    try:
        yield found
    finally:
        await found.worker.close()


async def until(probe: Callable[[], Any], what: str) -> None:
    async def seen() -> bool:
        return bool(await probe())

    await wait_for(seen, what=what, timeout=30, clock=SystemClock(), interval=0.005, max_interval=0.02)


async def published(ground: Ground, name: str, *values: str) -> None:
    async def seen() -> bool:
        return await ground.address(name) == values

    await until(seen, f"the names of {name} to be {values}")


async def test_a_deleted_cluster_takes_its_names_along_and_no_other_s(ground: Ground) -> None:
    for name in ("first", "second"):
        await ground.cluster(name)
        await ground.worker.know(record(name))
        await published(ground, name, "10.3.0.1")
    await ground.worker.know(record("first", Standing.DELETED))

    async def ended() -> bool:
        return ground.ended == ["uid-of-first"]

    await until(ended, "the record to be ended")
    assert all(owner.startswith(f"{record('second').owner}/") for owner in await ground.owners())
    assert await ground.address("second") == ("10.3.0.1",)


async def test_names_stay_while_a_cluster_sleeps_and_are_followed_again(ground: Ground) -> None:
    client = await ground.cluster("first")
    await ground.worker.know(record("first"))
    await published(ground, "first", "10.3.0.1")
    await ground.worker.know(replace(record("first"), standing=Standing.ASLEEP))
    seen = ground.connections
    await client.delete(SERVICES, "web", "shop")
    await client.apply(SERVICES, service("web", "10.3.0.9"))
    # Nothing listens any more: what is published is what was, and nobody asked the API, which would wake it.
    assert (await ground.address("first"), ground.connections) == (("10.3.0.1",), seen)
    await ground.worker.know(record("first"))
    await published(ground, "first", "10.3.0.9")


async def test_the_same_record_again_disturbs_nothing_and_a_forgotten_one_ends(ground: Ground) -> None:
    await ground.cluster("first")
    for _ in range(3):
        await ground.worker.know(record("first"))
        await published(ground, "first", "10.3.0.1")
    assert ground.connections == 1
    await ground.worker.forget("uid-of-first")
    assert await ground.address("first") == ("10.3.0.1",)
    assert ground.ended == []


async def test_trouble_with_one_cluster_is_no_other_s(ground: Ground) -> None:
    await ground.worker.know(record("broken"))
    await ground.cluster("refused")
    ground.dns.refused = record("refused").owner
    await ground.worker.know(record("refused"))
    await ground.cluster("first")
    await ground.worker.know(record("first"))
    await published(ground, "first", "10.3.0.1")
    assert await ground.address("refused") == ()
    # And each goes on as soon as it can.
    ground.dns.refused = ""
    await ground.cluster("broken")
    await published(ground, "refused", "10.3.0.1")
    await published(ground, "broken", "10.3.0.1")


async def test_a_withdrawal_that_is_held_up_is_gone_on_with(ground: Ground) -> None:
    await ground.cluster("first")
    await ground.worker.know(record("first"))
    await published(ground, "first", "10.3.0.1")
    ground.dns.refused = record("first").owner
    await ground.worker.know(record("first", Standing.DELETED))
    await asyncio.sleep(0)
    assert ground.ended == []
    ground.dns.refused = ""

    async def ended() -> bool:
        return ground.ended == ["uid-of-first"]

    await until(ended, "the record to be ended")
    assert await ground.owners() == set()


async def test_what_is_being_written_when_a_cluster_is_deleted_is_withdrawn_too(ground: Ground) -> None:
    client = await ground.cluster("first")
    await ground.worker.know(record("first"))
    await published(ground, "first", "10.3.0.1")
    ground.dns.begun, ground.dns.go_on = asyncio.Event(), asyncio.Event()
    await client.apply(SERVICES, service("late", "10.3.0.7"))
    await asyncio.wait_for(ground.dns.begun.wait(), 30)
    # Whoever tells of records waits for nobody.
    await asyncio.wait_for(ground.worker.know(record("first", Standing.DELETED)), 30)
    await ground.cluster("second")
    await asyncio.wait_for(ground.worker.know(record("second")), 30)
    assert ground.ended == []
    ground.dns.go_on.set()

    async def ended() -> bool:
        return ground.ended == ["uid-of-first"]

    await until(ended, "the record to be ended")
    assert not any(owner.startswith(record("first").owner) for owner in await ground.owners())


async def test_figures_are_told_of_clusters_that_are_known(ground: Ground) -> None:
    await ground.cluster("first")
    await ground.worker.know(record("first"))
    await published(ground, "first", "10.3.0.1")
    labels = f'cluster="{record("first").owner}"'

    async def told() -> bool:
        return f"haneul_dns_pending_names{{{labels}}} 0" in ground.metrics.text()

    await until(told, "nothing to be pending")
    assert f"haneul_dns_record_sets_written_total{{{labels}}} 0" not in ground.metrics.text()
    await ground.worker.forget("uid-of-first")
    assert labels not in ground.metrics.text()
