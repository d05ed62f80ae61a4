"""What is promised of images that clusters run, asked of SQLite's file and of PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from haneul.d2hub.adapters.sql_audit import SqlAudit
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.adapters.sql_inventory import SqlInventory
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.errors import ImageInUseError
from haneul.d2hub.happenings import Happening
from haneul.d2hub.inventory import Report, Reported, Running, Use
from haneul.d2hub.model import Collected, DeletionOrder
from haneul.d2hub.record_ports import Span
from tests.conformance.d2hub.test_metadata import HOUR, NOW, collect, index, push

PROD, LAB = "shop/prod", "lab/test"


@pytest.fixture
def inventory(database: SqlDatabase) -> SqlInventory:
    return SqlInventory(database)


@pytest.fixture
def catalog(database: SqlDatabase) -> SqlCatalog:
    return SqlCatalog(database)


@pytest.fixture
def keeping(database: SqlDatabase) -> SqlKeeping:
    return SqlKeeping(database)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def web(named: str, workload: str = "Deployment/web") -> Running:
    return Running("web", workload, named)


async def report(inventory: SqlInventory, cluster: str, *running: Running, now: datetime = NOW) -> None:
    await inventory.replace(Report(cluster, "robot:shop/reporter", frozenset(running)), now=now)


async def test_a_report_takes_the_place_of_the_one_before(inventory: SqlInventory) -> None:
    await report(inventory, PROD, web(digest(1)), web(digest(2)))
    await report(inventory, LAB, web(digest(1)))
    await report(inventory, PROD, web(digest(2)), web(digest(3)), now=NOW + HOUR)
    assert await inventory.in_use([digest(n) for n in range(5)], limit=10) == [
        Use(LAB, web(digest(1)), NOW),
        Use(PROD, web(digest(2)), NOW + HOUR),
        Use(PROD, web(digest(3)), NOW + HOUR),
    ]
    bank = "bank/prod"
    await report(inventory, bank, web(digest(1)))
    assert [use.cluster for use in await inventory.in_use([digest(1)], limit=10)] == [bank, LAB]
    assert [use.cluster for use in await inventory.in_use([digest(1)], first="lab", limit=1)] == [LAB]
    assert await inventory.forget(bank, now=NOW, by="admin", address="")
    assert await inventory.running([digest(n) for n in range(2000)]) == {digest(1), digest(2), digest(3)}
    assert await inventory.reports() == [
        Reported(LAB, "robot:shop/reporter", NOW, 1),
        Reported(PROD, "robot:shop/reporter", NOW + HOUR, 2),
    ]


async def test_an_empty_report_is_one(inventory: SqlInventory) -> None:
    await report(inventory, PROD, web(digest(1)))
    await report(inventory, PROD)
    assert await inventory.running([digest(1)]) == frozenset()
    assert [one.entries for one in await inventory.reports()] == [0]


async def test_large_reports(inventory: SqlInventory) -> None:
    many = [web(digest(number), f"Deployment/web-{number}") for number in range(1000)]
    await report(inventory, PROD, *many)
    await report(inventory, PROD, *many[900:])
    assert await inventory.running([digest(number) for number in range(1000)]) == {one.digest for one in many[900:]}
    assert len(await inventory.in_use([one.digest for one in many[900:]], limit=7)) == 7


async def test_reports_of_one_cluster_at_once_leave_one_of_them(inventory: SqlInventory) -> None:
    await asyncio.gather(*(report(inventory, PROD, web(digest(n)), web(digest(n + 100))) for n in range(8)))
    running = sorted(await inventory.running([digest(n) for n in range(200)]))
    first = int(running[0].removeprefix("sha256:"), 16)
    assert running == [digest(first), digest(first + 100)]


async def test_who_forgets_a_cluster_is_written_down(inventory: SqlInventory, database: SqlDatabase) -> None:
    await report(inventory, PROD, web(digest(1)))
    assert await inventory.forget(PROD, now=NOW, by="root", address="192.0.2.1")
    assert not await inventory.forget(PROD, now=NOW, by="root", address="192.0.2.1")
    assert await inventory.reports() == []
    assert await inventory.running([digest(1)]) == frozenset()
    found, _ = await SqlAudit(database).entries("shop", Span(), limit=10)
    assert [(one.happening, one.repository, one.account, one.address) for one in found] == [
        (Happening.FORGET, PROD, "root", "192.0.2.1")
    ]


async def test_what_runs_is_not_deleted_unless_it_is_forced(
    inventory: SqlInventory, metadata: SqlMetadata, catalog: SqlCatalog
) -> None:
    pushed = await push(metadata, "shop/web", "layer", tag="v1")
    await report(inventory, PROD, *(web(pushed.digest, f"Deployment/web-{n}") for n in range(5)))
    for reference in ("v1", pushed.digest):
        order = DeletionOrder("shop/web", reference, NOW, "alice")
        with pytest.raises(ImageInUseError) as refused:
            await metadata.delete(order)
        for named in (PROD, "namespace web", "Deployment/web-0", "Deployment/web-2", "others"):
            assert named in refused.value.detail
        assert "web-3" not in refused.value.detail
    assert await metadata.manifest("shop/web", "v1")
    assert await catalog.deletions("shop/web") == []
    assert await metadata.delete(replace(order, forced=True))
    assert await metadata.manifest("shop/web", "v1") is None


async def test_what_runs_no_more_is_deleted(inventory: SqlInventory, metadata: SqlMetadata) -> None:
    pushed = await push(metadata, "shop/web", "layer", tag="v1")
    await report(inventory, PROD, web(pushed.digest))
    await report(inventory, PROD)
    assert await metadata.delete(DeletionOrder("shop/web", "v1", NOW, "alice"))


async def test_what_runs_does_not_go_for_want_of_a_tag(
    inventory: SqlInventory, metadata: SqlMetadata, keeping: SqlKeeping
) -> None:
    running = await push(metadata, "shop/web", "running")
    idle = await push(metadata, "shop/web", "idle")
    await report(inventory, PROD, web(running.digest))
    at = NOW + timedelta(days=400)
    async for _ in keeping.delete_untagged("shop", released_before=at, now=at, limit=10):
        pass
    assert await metadata.manifest("shop/web", running.digest)
    assert await metadata.manifest("shop/web", idle.digest) is None


async def test_what_runs_is_not_collected_however_it_was_deleted(
    inventory: SqlInventory, metadata: SqlMetadata, keeping: SqlKeeping, catalog: SqlCatalog
) -> None:
    pushed = await push(metadata, "shop/web", "layer", "config", tag="v1")
    await metadata.delete(DeletionOrder("shop/web", pushed.digest, NOW, "alice"))
    await report(inventory, PROD, web(pushed.digest))
    at = NOW + timedelta(days=400)
    assert await keeping.collectable(deleted_before=at, untouched_since=at) == Collected()
    assert await collect(keeping, at=at) == set()
    # Whoever ran it may bring it back, with all that it refers to.
    assert await catalog.undelete("shop/web", pushed.digest, now=at)
    assert await metadata.manifest("shop/web", "v1")
    await metadata.delete(DeletionOrder("shop/web", pushed.digest, at, "root", forced=True))
    await report(inventory, PROD)
    assert await collect(keeping, at=at + timedelta(days=400)) == {"key of layer", "key of config"}


async def test_the_parts_of_an_index_that_runs_stay(
    inventory: SqlInventory, metadata: SqlMetadata, keeping: SqlKeeping
) -> None:
    child = await push(metadata, "shop/web", "layer")
    outer = index("shop/web", child, tag="v1")
    await metadata.put_manifest(outer)
    await report(inventory, PROD, web(outer.digest))
    for pushed in (outer, child):
        await metadata.delete(DeletionOrder("shop/web", pushed.digest, NOW, "root", forced=True))
    assert await collect(keeping, at=NOW + timedelta(days=400)) == set()
    await inventory.forget(PROD, now=NOW, by="root", address="")
    assert await collect(keeping, at=NOW + timedelta(days=400)) == {"key of layer"}


async def test_times_are_those_of_reports(inventory: SqlInventory) -> None:
    later = datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
    await report(inventory, PROD, web(digest(1)), now=later)
    assert [one.reported for one in await inventory.in_use([digest(1)], limit=1)] == [later]
