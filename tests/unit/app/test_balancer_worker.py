"""The load balancers of all clusters: members are the cluster's machines alone, and what a deleted one had goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from haneul.app.balancer_worker import BalancerWork, given_out
from haneul.app.record_worker import RecordWorker
from haneul.balancer.adapters.memory import MemoryBalancer
from haneul.balancer.controller import Pace
from haneul.balancer.model import Listener, Member, Pool, Protocol
from haneul.dkos.adapters.kube_address_use import KubeAddressUse
from haneul.dkos.cluster_record import ClusterRecord, Standing
from haneul.dkos.quota import Amounts
from haneul.dkos.readers import BALANCER
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import NAMESPACES, NODES, SERVICES, KubeAccess, KubeClient
from haneul.kernel.kube_memory import MemoryKubeClient
from tests.followed import FollowedCluster, until
from tests.unit.balancer.objects import POOL, node, port, service

PACE = Pace(gather=0.0, resync=3600.0, tend=0.01, first_backoff=0.01, last_backoff=0.02)
OURS, OTHERS, FORGED = "10.192.0.7", "10.192.0.8", "10.192.0.9"


def record(name: str, *nodes: str, standing: Standing = Standing.FOLLOWED) -> ClusterRecord:
    access = KubeAccess(f"https://{name}", b"ca", b"crt", b"key") if standing is Standing.FOLLOWED else None
    return ClusterRecord(f"uid-of-{name}", "shop", name, f"{name}.shop.k8s.example", standing, access, nodes=nodes)


class Ground:
    """Clusters by the URLs of their APIs, a balancer, and the worker between them."""

    def __init__(self) -> None:
        self.balancer = MemoryBalancer()
        self.clusters: dict[str, FollowedCluster] = {}
        self.ended: list[str] = []
        self.connections = 0
        clock = SystemClock()
        self.work = BalancerWork(self.balancer, lambda _: (POOL,), self.connect, clock, pace=PACE)
        self.worker = RecordWorker(self.work, self, clock=clock)

    async def forget(self, uid: str) -> None:
        self.ended.append(uid)

    async def tell(self, uid: str, trouble: str) -> None:
        """Nobody is over any budget here."""

    @contextlib.asynccontextmanager
    async def connect(self, access: KubeAccess, _: str) -> AsyncIterator[KubeClient]:
        self.connections += 1
        yield self.clusters[access.server]

    async def cluster(self, name: str, *nodes: str) -> FollowedCluster:
        client = self.clusters[f"https://{name}"] = FollowedCluster()
        await client.with_namespaces()
        for number, address in enumerate(nodes):
            made = node(f"n{number}", address)
            status = made.pop("status")
            await client.create(NODES, made)
            await client.patch(NODES, f"n{number}", {"status": status}, subresource="status")
        made = service("web", ports=[port(node_port=30080)])
        del made["status"]
        await client.create(SERVICES, made)
        return client

    async def members(self, name: str) -> list[str] | None:
        """Return where connections of a cluster go; None if it has no frontend."""
        for there in (await self.balancer.read()).values():
            if there.owner.startswith(f"{record(name).owner}/"):
                return [member.address for member in there.frontend.members]
        return None

    async def until(self, name: str, *members: str) -> None:
        async def seen() -> bool:
            return await self.members(name) == list(members)

        await until(seen, f"the members of {name} to be {members}")


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    found = Ground()
    try:
        yield found
    finally:
        await found.worker.close()


async def test_members_are_machines_that_the_platform_knows_whatever_the_cluster_says(ground: Ground) -> None:
    await ground.cluster("first", OURS, OTHERS, FORGED)
    await ground.cluster("second", OTHERS)
    await ground.worker.know(record("first", OURS))
    await ground.worker.know(record("second", OTHERS))
    await ground.until("first", OURS)
    await ground.until("second", OTHERS)
    # One more of ours: its address counts from when the platform says so.
    await ground.worker.know(record("first", OURS, FORGED))
    await ground.until("first", OURS, FORGED)


async def test_a_machine_that_is_gone_is_no_member_also_while_its_cluster_does_not_answer(ground: Ground) -> None:
    client = await ground.cluster("first", OURS, OTHERS)
    await ground.worker.know(record("first", OURS, OTHERS))
    await ground.until("first", OURS, OTHERS)
    client.away = True
    await ground.worker.know(record("first", OURS))
    await ground.until("first", OURS)


async def test_a_sleeping_cluster_keeps_its_address_and_is_not_asked(ground: Ground) -> None:
    await ground.cluster("first", OURS)
    await ground.worker.know(record("first", OURS))
    await ground.until("first", OURS)
    before = set(await ground.balancer.read())
    seen = ground.connections
    await ground.worker.know(replace(record("first"), standing=Standing.ASLEEP))
    await ground.until("first")
    assert (set(await ground.balancer.read()), ground.connections) == (before, seen)
    await ground.worker.know(record("first", OURS))
    await ground.until("first", OURS)
    assert set(await ground.balancer.read()) == before


async def test_a_deleted_cluster_takes_its_frontends_along_and_no_other_s(ground: Ground) -> None:
    await ground.cluster("first", OURS)
    await ground.cluster("second", OTHERS)
    await ground.worker.know(record("first", OURS))
    await ground.until("first", OURS)
    await ground.worker.know(record("second", OTHERS))
    await ground.until("second", OTHERS)
    await ground.worker.know(record("first", standing=Standing.DELETED))
    await until(lambda: ground.ended == ["uid-of-first"], "the record to be ended")
    assert await ground.members("first") is None
    assert await ground.members("second") == [OTHERS]


async def test_whoever_is_started_anew_finds_what_was_served_and_changes_nothing(ground: Ground) -> None:
    client = await ground.cluster("first", OURS)
    await ground.worker.know(record("first", OURS))
    await ground.until("first", OURS)
    await ground.worker.close()
    assert await ground.members("first") == [OURS]
    before = await ground.balancer.read()
    await ground.worker.know(record("first", OURS))
    looked = client.looks
    await until(lambda: client.looks > looked, "the cluster to be looked at")
    assert await ground.balancer.read() == before
    assert before[Listener("192.0.2.10", Protocol.TCP, 80)].frontend.members == (Member(OURS, 30080),)


def test_the_lowest_address_of_each_network_is_given_to_nobody() -> None:
    pool = Pool("web", (("192.0.2.64", "192.0.2.79"), ("198.51.100.7", "198.51.100.7"), ("2001:db8::", "2001:db8::f")))
    assert given_out([pool]) == (
        Pool("web", (("192.0.2.65", "192.0.2.79"), ("198.51.100.7", "198.51.100.7"), ("2001:db8::", "2001:db8::f"))),
    )


def test_a_range_is_routed_as_networks_which_have_a_lowest_address_each() -> None:
    (pool,) = given_out([Pool("web", (("192.0.2.1", "192.0.2.6"),))])
    assert pool.ranges == (
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.3", "192.0.2.3"),
        ("192.0.2.5", "192.0.2.5"),
        ("192.0.2.6", "192.0.2.6"),
    )


async def told(client: FollowedCluster) -> str:
    """Return the reason that the cluster's Service is told."""
    found = await client.get(SERVICES, "web", "shop")
    conditions = ((found or {}).get("status") or {}).get("conditions") or []
    return str(conditions[0]["reason"]) if conditions else ""


async def test_what_waits_for_room_goes_on_when_another_cluster_gives_some_back_or_there_is_more(
    ground: Ground,
) -> None:
    kube = MemoryKubeClient(clock=SystemClock())
    await kube.apply(NAMESPACES, {"metadata": {"name": BALANCER.name}})
    use = KubeAddressUse(kube)
    telling = asyncio.create_task(ground.work.tell_use(use))
    clients = {name: await ground.cluster(name, OURS) for name in ("first", "second", "third")}

    def limited(name: str, most: int) -> ClusterRecord:
        return replace(record(name, OURS), most_addresses=most, most_listeners=10)

    async def waits(name: str) -> bool:
        return await told(clients[name]) == "QuotaExceeded"

    async def is_told(count: int) -> bool:
        return await use.of("shop") == Amounts(addresses=count, listeners=count)

    try:
        await ground.worker.know(limited("first", 1))
        await ground.until("first", OURS)
        for name in ("second", "third"):
            await ground.worker.know(limited(name, 1))
            await until(lambda name=name: waits(name), f"{name} to be told of the quota")  # type: ignore[misc]
        await until(lambda: is_told(1), "one address to be told of")
        # The first one's goes: one of the others has it, and no more than one.
        await clients["first"].delete(SERVICES, "web", "shop")

        async def another_has_it() -> bool:
            return {there.owner.split("/")[1] for there in (await ground.balancer.read()).values()} in (
                {"second"},
                {"third"},
            )

        await until(another_has_it, "another cluster to have the address")
        await ground.worker.know(limited("second", 2))
        await ground.worker.know(limited("third", 2))
        await ground.until("second", OURS)
        await ground.until("third", OURS)
        await until(lambda: is_told(2), "two addresses to be told of")
        # Less takes nothing back.
        await ground.worker.know(limited("second", 0))
        await ground.until("second", OURS)
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
