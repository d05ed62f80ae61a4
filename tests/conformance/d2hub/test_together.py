"""Several processes on one PostgreSQL, at every point where two of them may meet."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, Connection, select, text

from haneul.app.d2hub_database import migrated
from haneul.d2hub.adapters.sql_belonging import claim
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import CONNECTIONS, SqlDatabase
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.adapters.sql_mirrors import SqlMirrorRecords
from haneul.d2hub.errors import ManifestBlobUnknownError, TagImmutableError, UnsupportedError
from haneul.d2hub.manifests import parse_manifest
from haneul.d2hub.model import DeletionOrder
from haneul.d2hub.tables import manifests
from haneul.kernel.database import open_blocking_database
from haneul.kernel.errors import ConflictError
from tests.conformance.d2hub.test_metadata import HOUR, NOW, blob, change, collect, index, push
from tests.postgres import Postgres

T = TypeVar("T")
LATER = NOW + 9 * HOUR
DEADLINE = 60.0


class Process:
    """What one process has of a registry."""

    def __init__(self, url: URL) -> None:
        self.database = SqlDatabase(open_blocking_database(url, connections=CONNECTIONS))
        self.metadata, self.catalog = SqlMetadata(self.database), SqlCatalog(self.database)
        self.keeping = SqlKeeping(self.database)


@pytest.fixture
async def processes(shared: URL) -> AsyncIterator[tuple[Process, Process]]:
    pair = Process(shared), Process(shared)
    yield pair
    for process in pair:
        process.database.close()


async def meeting(
    process: Process, method: Callable[..., Any], *arguments: Any, other: Awaitable[T], **named: Any
) -> tuple[Any, T | BaseException]:
    """Do a piece of work, and begin another before its transaction ends; return what became of both.

    The other one has to wait for the first one's end, or be done before it.
    """
    done, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    work = method.__wrapped__  # type: ignore[attr-defined]  # functools.wraps gives it
    owner = method.__self__  # type: ignore[attr-defined]  # a method has it

    def first(connection: Connection) -> Any:
        result = work(owner, connection, *arguments, **named)
        loop.call_soon_threadsafe(done.set)
        assert go_on.wait(DEADLINE)
        return result

    ahead = asyncio.ensure_future(process.database.write(first))
    await asyncio.wait({ahead, waiting := asyncio.ensure_future(done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    second = asyncio.ensure_future(other)
    try:
        await until_blocked(process.database, second)
    finally:
        go_on.set()
    results = await asyncio.gather(ahead, second, return_exceptions=True)
    return results[0], results[1]


async def until_blocked(database: SqlDatabase, other: asyncio.Future[Any]) -> None:
    """Return when somebody waits for a lock, or the other piece of work is done."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(DEADLINE):
        while not other.done():
            if await database.read(lambda connection: connection.execute(query).scalar_one()):
                return
            await asyncio.sleep(0.01)


async def removed(found: AsyncIterator[int]) -> int:
    return sum([count async for count in found])


async def test_a_push_is_ahead_of_the_collection(processes: tuple[Process, Process]) -> None:
    """The push relies on old blobs; whoever comes second sees the first, so no live blob goes."""
    one, other = processes
    await one.metadata.link_blob("shop/web", blob("a"), now=NOW)
    collecting = removed(other.keeping.unlink_unreferenced(untouched_since=LATER - HOUR, limit=9))
    pushed = change("shop/web", blob("a"), tag="v1", now=LATER)
    assert await meeting(one, one.metadata.put_manifest, pushed, other=collecting) == (None, 0)
    assert await collect(other.keeping, at=LATER) == set()
    assert await other.metadata.blob("shop/web", blob("a").digest) is not None


async def test_the_collection_is_ahead_of_a_push(processes: tuple[Process, Process]) -> None:
    one, other = processes
    await one.metadata.link_blob("shop/web", blob("a"), now=NOW)
    went, ended, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def collected(connection: Connection) -> int:
        count = connection.exec_driver_sql("DELETE FROM repository_blobs").rowcount
        loop.call_soon_threadsafe(went.set)
        assert ended.wait(DEADLINE)
        return count

    collecting = asyncio.ensure_future(one.database.write(collected))
    await asyncio.wait_for(went.wait(), DEADLINE)
    pushing = asyncio.ensure_future(other.metadata.put_manifest(change("shop/web", blob("a"), tag="v1", now=LATER)))
    await until_blocked(one.database, pushing)
    ended.set()
    assert await collecting == 1
    with pytest.raises(ManifestBlobUnknownError):
        await pushing


async def test_content_that_is_mounted_meanwhile_stays(processes: tuple[Process, Process]) -> None:
    """Its first link goes while the second is not there for others yet: the content's own row alone keeps it."""
    one, other = processes
    await one.metadata.link_blob("shop/web", blob("a"), now=NOW)

    async def collected() -> tuple[int, int]:
        links = await removed(other.keeping.unlink_unreferenced(untouched_since=LATER - HOUR, limit=9))
        found = other.keeping.drop_unlinked(untouched_since=LATER - HOUR, limit=9)
        return links, sum([len(gone) async for gone in found])

    mounting = {"source": "shop/web", "target": "shop/other", "now": LATER}
    results = await meeting(one, one.metadata.mount_blob, blob("a").digest, other=collected(), **mounting)
    assert results == (True, (1, 0))
    assert await other.metadata.blob("shop/other", blob("a").digest) is not None


@pytest.mark.parametrize("what", ["delete", "untagged"])
async def test_an_image_that_an_index_takes_up_stays(processes: tuple[Process, Process], what: str) -> None:
    one, other = processes
    made = await push(one.metadata, "shop/web", "a")

    async def untagged() -> int:
        found = other.keeping.delete_untagged("shop", released_before=LATER, now=LATER, limit=9)
        return sum([len(names) async for names in found])

    deleting: Any = other.metadata.delete(DeletionOrder("shop/web", made.digest, LATER, "x"))
    outer = index("shop/web", made, tag="multi")
    if what == "untagged":
        deleting.close()
        deleting = untagged()
    _, deleted = await meeting(one, one.metadata.put_manifest, outer, other=deleting)
    assert deleted == 0 if what == "untagged" else isinstance(deleted, UnsupportedError)
    assert await other.metadata.manifest("shop/web", made.digest) is not None


async def test_what_is_brought_back_is_whole(processes: tuple[Process, Process]) -> None:
    one, other = processes
    made = await push(one.metadata, "shop/web", "a")
    outer = index("shop/web", made, tag="multi")
    await one.metadata.put_manifest(outer)
    for digest in (outer.digest, made.digest):
        await one.metadata.delete(DeletionOrder("shop/web", digest, NOW, "x"))
    purging = other.keeping.purge_deleted(before=LATER, now=LATER, limit=9)
    back = await meeting(one, one.catalog.undelete, "shop/web", outer.digest, now=LATER, other=purging)
    assert back == (True, 0)
    await removed(other.keeping.unlink_unreferenced(untouched_since=LATER + HOUR, limit=9))
    for reference in ("multi", made.digest):
        assert await other.metadata.manifest("shop/web", reference) is not None
    assert await other.metadata.blob("shop/web", blob("a").digest) is not None


async def test_what_was_purged_just_now_is_not_brought_back(processes: tuple[Process, Process]) -> None:
    one, other = processes
    made = await push(one.metadata, "shop/web", "a")
    await one.metadata.delete(DeletionOrder("shop/web", made.digest, NOW, "x"))
    query = select(manifests.c.repository, manifests.c.digest)
    rows = await one.database.read(lambda connection: connection.execute(query).all())
    back = other.catalog.undelete("shop/web", made.digest, now=LATER)
    purge = one.keeping._purge  # the transaction of a purge, without those before it
    assert await meeting(one, purge, rows, manifests.c.deleted < LATER, LATER, other=back) == (1, False)


async def test_two_see_at_once_that_an_upstreams_tag_is_gone(processes: tuple[Process, Process]) -> None:
    records = [SqlMirrorRecords(process.database, process.metadata) for process in processes]
    mirrored = change("far/web", blob("a"), tag="v1")
    await records[0].keep(mirrored, seen="")
    gone = {"seen": mirrored.digest, "now": LATER}
    other = records[1].note("far/web", "v1", None, seen=mirrored.digest, now=LATER)
    assert await meeting(processes[0], records[0].note, "far/web", "v1", None, other=other, **gone) == (True, False)
    assert [entry.digest for entry in await records[0].history("far/web", "v1", limit=9)] == [None, mirrored.digest]


async def test_a_repository_that_is_used_again_stays(processes: tuple[Process, Process]) -> None:
    one, other = processes
    for turn in range(20):
        name = f"shop/r{turn}"
        await push(one.metadata, name, "a", tag="v1")
        await one.metadata.delete(DeletionOrder(name, "v1", NOW, "x"))
        await collect(one.keeping, at=LATER)
        await asyncio.gather(
            other.metadata.link_blob(name, blob("b"), now=LATER),
            one.keeping.drop_empty(untouched_since=LATER, limit=3),
        )
        assert await one.metadata.blob(name, blob("b").digest) is not None


async def test_an_immutable_tag_is_given_once(processes: tuple[Process, Process]) -> None:
    one, other = processes
    for name in ("a", "b"):
        await one.metadata.link_blob("shop/web", blob(name), now=NOW)
    first, second = (change("shop/web", blob(name), tag="v1", immutable=True) for name in ("a", "b"))
    _, refused = await meeting(one, one.metadata.put_manifest, first, other=other.metadata.put_manifest(second))
    assert isinstance(refused, TagImmutableError)
    found = await other.metadata.manifest("shop/web", "v1")
    assert found is not None
    assert found.digest == first.digest


async def test_each_image_that_a_tag_named_can_be_brought_back(processes: tuple[Process, Process]) -> None:
    texts = [f"b{number}" for number in range(12)]
    for name in texts:
        await processes[0].metadata.link_blob("shop/web", blob(name), now=NOW)
    pushed = [change("shop/web", blob(name), tag="latest") for name in texts]
    await asyncio.gather(*(processes[number % 2].metadata.put_manifest(one) for number, one in enumerate(pushed)))
    named = await processes[0].metadata.manifest("shop/web", "latest")
    assert named is not None
    gone = [entry.digest for entry in await processes[1].catalog.deletions("shop/web")]
    assert sorted([named.digest, *gone]) == sorted(one.digest for one in pushed)


async def test_pushes_of_the_same_layers_in_any_order(processes: tuple[Process, Process]) -> None:
    texts = [f"b{number}" for number in range(8)]
    for repository in ("shop/a", "shop/b"):
        for name in texts:
            await processes[0].metadata.link_blob(repository, blob(name), now=NOW)
    orders = [texts[turn:] + texts[:turn] for turn in range(8)] + [list(reversed(texts))]

    async def pushed(number: int, order: list[str], at: datetime) -> None:
        metadata = processes[number % 2].metadata
        blobs = [blob(name) for name in order]
        await asyncio.gather(
            *(metadata.link_blob("shop/b", one, now=at) for one in blobs),
            *(metadata.mount_blob(one.digest, source="shop/a", target="shop/b", now=at) for one in reversed(blobs)),
        )
        await metadata.put_manifest(change("shop/b", *blobs, tag=f"t{number}", now=at))

    await asyncio.gather(*(pushed(number, order, LATER) for number, order in enumerate(orders)))
    entries = await processes[0].catalog.tags("shop/b") or []
    assert [entry.name for entry in entries] == [f"t{number}" for number in range(len(orders))]


async def test_tags_are_in_the_order_of_their_bytes(processes: tuple[Process, Process]) -> None:
    names = ["A", "B", "_", "a", "a-b", "a.b", "a0", "aB", "ab", "b"]
    await push(processes[0].metadata, "shop/web", "a")
    for name in reversed(names):
        await processes[0].metadata.put_manifest(change("shop/web", blob("a"), tag=name))
    listed = [entry.name for entry in await processes[1].catalog.tags("shop/web") or []]
    assert listed == sorted(names, key=str.encode)
    rest = [entry.name for entry in await processes[1].catalog.tags("shop/web", after="a", limit=3) or []]
    assert rest == ["a-b", "a.b", "a0"]


async def test_what_is_as_large_as_it_may_be(processes: tuple[Process, Process]) -> None:
    name = f"{'p' * 60}/{'r' * 139}"
    size = (1 << 62) - 1000
    large = blob("large")
    await processes[0].metadata.link_blob(name, large, now=NOW)
    described = {"mediaType": "a/b", "digest": large.digest, "size": size}
    annotations = {"text": "\x01\u2028" * 1_000_000}
    document = {"schemaVersion": 2, "config": described, "layers": [], "annotations": annotations}
    content = json.dumps(document).encode()
    made = change(name, large, tag="t" * 128)
    manifest = parse_manifest(content, made.manifest.media_type)
    await processes[0].metadata.put_manifest(type(made)(name, made.digest, content, manifest, NOW, "n" * 64, "t" * 128))
    [entry] = await processes[1].catalog.tags(name) or []
    assert (entry.name, entry.size) == ("t" * 128, size + len(content))
    found = await processes[1].metadata.manifest(name, "t" * 128)
    assert found is not None
    assert found.content == content


async def test_two_that_start_at_once_make_the_tables_once(postgres: Postgres) -> None:
    url = postgres.url(postgres.make())
    await asyncio.gather(*(migrated(url) for _ in range(4)))
    process = Process(url)
    await push(process.metadata, "shop/web", "a", tag="v1")
    process.database.close()


async def test_a_database_is_of_one_folder(processes: tuple[Process, Process]) -> None:
    one, other = processes
    with pytest.raises(ConflictError, match="has content already"):
        await claim(one.database, "a", empty=False)
    results = await asyncio.gather(
        claim(one.database, "a", empty=True), claim(other.database, "b", empty=True), return_exceptions=True
    )
    assert [type(result) for result in results if result is not None] == [ConflictError]
    winner = "ab"[results.index(None)]
    await claim(other.database, winner, empty=False)
