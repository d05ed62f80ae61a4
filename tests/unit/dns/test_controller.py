"""The controller with a cluster and a server in memory: what it publishes, what it holds on to, what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from haneul.dns.adapters.memory import MemoryDns
from haneul.dns.controller import ClusterController, Pace
from haneul.dns.model import Acknowledgement, Change, ClusterDomain, Key, RecordSet, RecordsRefusedError, ZoneState
from haneul.dns.receipts import CONDITION
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import ENDPOINT_SLICES, NAMESPACES, SERVICES, Manifest
from tests.followed import FollowedCluster, until
from tests.unit.dns.objects import endpoint, headless, service, slice_of

ZONE = "zone."
WEB = Key("web.shop.svc.first.zone.", "A")
PACE = Pace(gather=0.0, resync=3600.0, first_backoff=0.01, last_backoff=0.02)


class Cluster(FollowedCluster):
    """A cluster whose Services are told."""

    async def condition(self, name: str = "web") -> Manifest | None:
        found = await self.get(SERVICES, name, "shop")
        conditions = (found or {}).get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == CONDITION), None)


class Server(MemoryDns):
    """A server that may be away, or refuse some names."""

    away = False
    refuses = ""
    batches = 0

    async def read(self, zone: str) -> ZoneState:
        if self.away:
            raise UnavailableError("the server does not answer")
        return await super().read(zone)

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        if self.refuses and any(self.refuses in change.key.name for change in changes):
            raise RecordsRefusedError(f"{self.refuses} is no name here")
        word = await super().apply(zone, owner, changes)
        self.batches += 1
        return word

    async def at(self, key: Key) -> tuple[str, ...]:
        there = (await super().read(ZONE)).sets.get(key)
        return there.records.values if there else ()


@pytest.fixture
async def cluster() -> Cluster:
    made = Cluster()
    await made.with_namespaces()
    return made


@pytest.fixture
def server() -> Server:
    return Server(ZONE, "3.10.in-addr.arpa")


@contextlib.asynccontextmanager
async def serving(cluster: Cluster, server: Server, pace: Pace = PACE) -> AsyncIterator[ClusterController]:
    domain = ClusterDomain.of("first", "zone")
    controller = ClusterController(cluster, server, "first", domain, clock=SystemClock(), pace=pace)
    task = asyncio.ensure_future(controller.run())
    try:
        yield controller
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def published(server: Server, key: Key, *values: str) -> None:
    async def seen() -> bool:
        return await server.at(key) == values

    await until(seen, f"{key} to be {values}")


async def told(cluster: Cluster, reason: str, name: str = "web") -> Manifest:
    async def seen() -> bool:
        return ((await cluster.condition(name)) or {}).get("reason") == reason

    await until(seen, f"{name} to be told {reason}")
    found = await cluster.condition(name)
    assert found
    return found


async def test_services_come_change_and_go(cluster: Cluster, server: Server) -> None:
    async with serving(cluster, server) as controller:
        await cluster.apply(SERVICES, service("web", "10.3.0.1"))
        await published(server, WEB, "10.3.0.1")
        await cluster.apply(SERVICES, service("web", "10.3.0.2"))
        await published(server, WEB, "10.3.0.2")
        marks = {there.owner for there in (await server.read(ZONE)).sets.values()}
        assert marks == {controller.owner}
        await cluster.delete(SERVICES, "web", "shop")
        await published(server, WEB)
        assert list((await server.read(ZONE)).sets) == [Key("dns-version.first.zone.", "TXT")]


async def test_a_service_gets_a_receipt(cluster: Cluster, server: Server) -> None:
    async with serving(cluster, server):
        await cluster.apply(SERVICES, service("web", "10.9.0.1"))
        receipt = await told(cluster, "Acknowledged")
        assert receipt["status"] == "True"
        for word in ("memory acknowledged 2 record sets", "zone. serial", " s; 1 more are in no zone"):
            assert word in receipt["message"]


async def test_what_there_was_before_the_start_is_published_and_what_is_gone_goes(
    cluster: Cluster, server: Server
) -> None:
    await cluster.apply(SERVICES, service("web", "10.3.0.1"))
    await cluster.apply(SERVICES, service("old", "10.3.0.2"))
    async with serving(cluster, server):
        await published(server, Key("old.shop.svc.first.zone.", "A"), "10.3.0.2")
    await cluster.delete(SERVICES, "old", "shop")
    async with serving(cluster, server):
        await published(server, Key("old.shop.svc.first.zone.", "A"))
        assert await server.at(WEB) == ("10.3.0.1",)


async def test_a_start_with_nothing_to_do_writes_nothing(cluster: Cluster, server: Server) -> None:
    await cluster.apply(SERVICES, service("web", "10.3.0.1"))
    async with serving(cluster, server):
        before = await told(cluster, "Acknowledged")
    count = server.batches
    async with serving(cluster, server):
        await cluster.apply(SERVICES, service("next", "10.3.0.2"))
        await told(cluster, "Acknowledged", "next")
    # One for each of its two zones.
    assert server.batches == count + 2
    assert await cluster.condition() == before


async def test_an_api_that_is_away_at_the_start_takes_nothing_away(cluster: Cluster, server: Server) -> None:
    await cluster.apply(SERVICES, service("web", "10.3.0.1"))
    async with serving(cluster, server):
        await published(server, WEB, "10.3.0.1")
    count = server.batches
    cluster.away = True
    await cluster.delete(SERVICES, "web", "shop")
    async with serving(cluster, server):
        await cluster.looked_at_again()
        assert await server.at(WEB) == ("10.3.0.1",)
        assert server.batches == count
        cluster.away = False
        await published(server, WEB)


async def test_another_cluster_behind_the_same_api_changes_nothing(cluster: Cluster, server: Server) -> None:
    await cluster.apply(SERVICES, service("web", "10.3.0.1"))
    quick = Pace(gather=0.0, resync=0.02, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, server, quick) as controller:
        await published(server, WEB, "10.3.0.1")
        owner = controller.owner
        await cluster.delete(NAMESPACES, "kube-system")
        await cluster.apply(NAMESPACES, {"metadata": {"name": "kube-system"}})
        await cluster.delete(SERVICES, "web", "shop")
        await cluster.apply(SERVICES, service("new", "10.3.0.2"))
        await cluster.looked_at_again()
        assert await server.at(Key("new.shop.svc.first.zone.", "A")) == ()
        assert await server.at(WEB) == ("10.3.0.1",)
        assert controller.owner == owner


async def test_a_server_that_is_away_is_told_of_and_made_up_for(cluster: Cluster, server: Server) -> None:
    async with serving(cluster, server):
        await cluster.apply(SERVICES, service("web", "10.3.0.1"))
        await told(cluster, "Acknowledged")
        server.away = True
        await cluster.apply(SERVICES, service("web", "10.3.0.2"))
        receipt = await told(cluster, "NotAcknowledged")
        assert (receipt["status"], "does not answer" in receipt["message"]) == ("False", True)
        assert await server.at(WEB) == ("10.3.0.1",)
        server.away = False
        await published(server, WEB, "10.3.0.2")
        await told(cluster, "Acknowledged")


async def test_a_foreign_record_is_left_alone_and_reported_until_it_goes(cluster: Cluster, server: Server) -> None:
    server.put(ZONE, RecordSet(WEB.name, WEB.type, 60, ("192.0.2.1",)))
    quick = Pace(gather=0.0, resync=0.05, first_backoff=0.01, last_backoff=0.02)
    async with serving(cluster, server, quick):
        await cluster.apply(SERVICES, service("web", "10.3.0.1"))
        receipt = await told(cluster, "Conflict")
        assert (receipt["status"], WEB.name in receipt["message"]) == ("False", True)
        assert await server.at(WEB) == ("192.0.2.1",)
        await server.apply(ZONE, "", [Change(RecordSet(WEB.name, WEB.type, 60, ("192.0.2.1",)), None)])
        await published(server, WEB, "10.3.0.1")
        await told(cluster, "Acknowledged")


async def test_a_record_that_the_server_refuses_holds_up_no_other(cluster: Cluster, server: Server) -> None:
    server.refuses = "odd"
    for number in range(5):
        await cluster.apply(SERVICES, service(f"web-{number}", f"10.3.0.{number}"))
    await cluster.apply(SERVICES, service("odd", "10.3.0.9"))
    async with serving(cluster, server):
        assert "odd is no name here" in (await told(cluster, "Refused", "odd"))["message"]
        for number in range(5):
            await told(cluster, "Acknowledged", f"web-{number}")


async def test_what_somebody_took_away_by_hand_comes_back(cluster: Cluster, server: Server) -> None:
    quick = Pace(gather=0.0, resync=0.05, first_backoff=0.01, last_backoff=0.02)
    await cluster.apply(SERVICES, service("web", "10.3.0.1"))
    async with serving(cluster, server, quick) as controller:
        await published(server, WEB, "10.3.0.1")
        there = (await server.read(ZONE)).sets[WEB].records
        await server.apply(ZONE, controller.owner, [Change(there, None)])
        await published(server, WEB, "10.3.0.1")


async def test_headless_services_follow_their_endpoints(cluster: Cluster, server: Server) -> None:
    db = Key("db.shop.svc.first.zone.", "A")
    async with serving(cluster, server):
        await cluster.apply(SERVICES, headless())
        await told(cluster, "NothingToPublish", "db")
        await cluster.apply(ENDPOINT_SLICES, slice_of("db", endpoint("10.4.0.1"), endpoint("10.4.0.2", ready=False)))
        await published(server, db, "10.4.0.1")
        await cluster.apply(ENDPOINT_SLICES, slice_of("db", endpoint("10.4.0.1"), endpoint("10.4.0.2")))
        await published(server, db, "10.4.0.1", "10.4.0.2")
        await cluster.delete(ENDPOINT_SLICES, "db-1", "shop")
        await published(server, db)
