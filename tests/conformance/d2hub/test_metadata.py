"""What is promised of the database, asked of SQLite's file and of PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, event, inspect

from haneul.d2hub import tables
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.digests import digest_of
from haneul.d2hub.errors import ManifestBlobUnknownError, TagImmutableError, UnsupportedError
from haneul.d2hub.manifests import OCI_INDEX, OCI_MANIFEST, parse_manifest
from haneul.d2hub.model import DeletionOrder, ManifestPush, StoredBlob
from haneul.kernel.errors import ConflictError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def catalog(database: SqlDatabase) -> SqlCatalog:
    return SqlCatalog(database)


@pytest.fixture
def keeping(database: SqlDatabase) -> SqlKeeping:
    return SqlKeeping(database)


def blob(text: str) -> StoredBlob:
    data = text.encode()
    return StoredBlob(str(digest_of(data)), f"key of {text}", len(data))


def change(
    repository: str, *blobs: StoredBlob, tag: str = "", immutable: bool = False, now: datetime = NOW
) -> ManifestPush:
    described = [{"mediaType": "a/b", "digest": one.digest, "size": one.size} for one in blobs]
    document = {"schemaVersion": 2, "config": described[0], "layers": described[1:]}
    content = json.dumps(document).encode()
    manifest = parse_manifest(content, OCI_MANIFEST)
    return ManifestPush(repository, str(digest_of(content)), content, manifest, now, "tester", tag, immutable)


def index(repository: str, *entries: ManifestPush, tag: str = "") -> ManifestPush:
    described = [{"mediaType": OCI_MANIFEST, "digest": one.digest, "size": len(one.content)} for one in entries]
    content = json.dumps({"schemaVersion": 2, "manifests": described}).encode()
    return ManifestPush(
        repository, str(digest_of(content)), content, parse_manifest(content, OCI_INDEX), NOW, "tester", tag
    )


async def push(metadata: SqlMetadata, repository: str, *texts: str, tag: str = "", now: datetime = NOW) -> ManifestPush:
    blobs = [blob(text) for text in texts]
    await asyncio.gather(*(metadata.link_blob(repository, one, now=now) for one in blobs))
    pushed = change(repository, *blobs, tag=tag, now=now)
    await metadata.put_manifest(pushed)
    return pushed


async def collect(keeping: SqlKeeping, *, at: datetime, undo: timedelta = HOUR, grace: timedelta = HOUR) -> set[str]:
    """Collect as the collector does; return the keys of content that went."""
    await keeping.purge_deleted(before=at - undo, now=at, limit=3)
    async for _ in keeping.unlink_unreferenced(untouched_since=at - grace, limit=3):
        pass
    gone: set[str] = set()
    async for found in keeping.drop_unlinked(untouched_since=at - grace, limit=3):
        gone |= {one.key for one in found}
    await keeping.drop_empty(untouched_since=at - grace, limit=3)
    return gone


async def test_the_migrations_make_the_tables(database: SqlDatabase) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))

    assert await database.read(differences) == []


async def test_the_migrations_make_the_same_order_of_texts(database: SqlDatabase) -> None:
    """Which alembic does not compare. Without it, keys are compared by a language's rules, and joins use no index."""

    def made(connection: Connection) -> dict[tuple[str, str], str | None]:
        inspector = inspect(connection)
        return {
            (table, column["name"]): getattr(column["type"], "collation", None)
            for table in tables.metadata.tables
            for column in inspector.get_columns(table)
        }

    wanted = {
        (table.name, column.name): getattr(column.type.dialect_impl(database.engine.dialect), "collation", None)
        for table in tables.metadata.tables.values()
        for column in table.columns
    }
    assert await database.read(made) == wanted


async def test_a_blob_is_its_repositorys(metadata: SqlMetadata) -> None:
    await metadata.link_blob("shop/web", blob("x"), now=NOW)
    found = await metadata.blob("shop/web", blob("x").digest)
    assert found is not None
    assert (found.stored, found.touched) == (blob("x"), NOW)
    assert await metadata.blob("shop/other", blob("x").digest) is None


async def test_content_that_is_there_keeps_its_place(metadata: SqlMetadata) -> None:
    first = blob("x")
    assert await metadata.link_blob("shop/web", first, now=NOW) == first
    again = StoredBlob(first.digest, "another key", first.size)
    assert await metadata.link_blob("shop/other", again, now=NOW) == first


async def test_content_moves_only_from_where_it_was_lost(metadata: SqlMetadata) -> None:
    first = blob("x")
    await metadata.link_blob("shop/web", first, now=NOW)
    again = StoredBlob(first.digest, "another key", first.size)
    assert await metadata.link_blob("shop/other", again, now=NOW, lost_key="a third key") == first
    assert await metadata.link_blob("shop/other", again, now=NOW, lost_key=first.key) == again
    found = await metadata.blob("shop/web", first.digest)
    assert found is not None
    assert found.stored == again


async def test_mounting(metadata: SqlMetadata) -> None:
    digest = blob("x").digest
    assert not await metadata.mount_blob(digest, source="shop/web", target="shop/other", now=NOW)
    await metadata.link_blob("shop/web", blob("x"), now=NOW)
    assert not await metadata.mount_blob(digest, source="shop/third", target="shop/other", now=NOW)
    assert await metadata.mount_blob(digest, source="shop/web", target="shop/other", now=NOW)
    assert await metadata.blob("shop/other", digest) is not None
    await metadata.delete_blob("shop/web", digest, now=NOW)
    assert not await metadata.mount_blob(digest, source="shop/web", target="shop/third", now=NOW)


async def test_a_manifest_needs_its_blobs_in_its_own_repository(metadata: SqlMetadata) -> None:
    await metadata.link_blob("shop/other", blob("x"), now=NOW)
    with pytest.raises(ManifestBlobUnknownError):
        await metadata.put_manifest(change("shop/web", blob("x"), tag="v1"))
    assert await metadata.manifest("shop/web", "v1") is None


async def test_manifests_with_very_many_parts(metadata: SqlMetadata) -> None:
    texts = [f"layer {number}" for number in range(1201)]
    pushed = await push(metadata, "shop/web", *texts, tag="v1")
    found = await metadata.manifest("shop/web", "v1")
    assert found is not None
    assert found.content == pushed.content


async def test_an_immutable_tag(metadata: SqlMetadata) -> None:
    first = await push(metadata, "shop/web", "a", tag="v1")
    await metadata.link_blob("shop/web", blob("b"), now=NOW)
    with pytest.raises(TagImmutableError):
        await metadata.put_manifest(change("shop/web", blob("b"), tag="v1", immutable=True))
    await metadata.put_manifest(change("shop/web", blob("a"), tag="v1", immutable=True))
    found = await metadata.manifest("shop/web", "v1")
    assert found is not None
    assert found.digest == first.digest


async def test_a_tag_that_was_set_since_is_not_deleted(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    await push(metadata, "shop/web", "a", tag="v1")
    [seen] = await catalog.tags("shop/web") or []
    order = DeletionOrder("shop/web", "v1", NOW, "x", expected=seen)
    for texts in ("a", "b"):
        await push(metadata, "shop/web", texts, tag="v1", now=NOW + HOUR)
        assert not await metadata.delete(order)
    [seen] = await catalog.tags("shop/web") or []
    assert await metadata.delete(replace(order, expected=seen))


async def test_tags_that_stay_are_asked_for_where_they_are_deleted(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    made = await push(metadata, "shop/web", "a", tag="v1")
    for tag in ("latest", "next"):
        await metadata.put_manifest(change("shop/web", blob("a"), tag=tag))
    asked: list[str] = []

    def stays(tag: str) -> bool:
        asked.append(tag)
        return tag == "v1"

    for reference in ("v1", made.digest):
        with pytest.raises(TagImmutableError):
            await metadata.delete(DeletionOrder("shop/web", reference, NOW, "x", stays=stays))
    assert [entry.name for entry in await catalog.tags("shop/web") or []] == ["latest", "next", "v1"]
    assert await catalog.deletions("shop/web") == []
    asked.clear()
    assert await metadata.delete(DeletionOrder("shop/web", "next", NOW, "x", stays=stays))
    assert asked == ["next"]


async def test_what_is_needed_is_not_deleted(metadata: SqlMetadata) -> None:
    made = await push(metadata, "shop/web", "a")
    await metadata.put_manifest(index("shop/web", made, tag="multi"))
    with pytest.raises(UnsupportedError):
        await metadata.delete(DeletionOrder("shop/web", made.digest, NOW, "x"))
    with pytest.raises(UnsupportedError):
        await metadata.delete_blob("shop/web", blob("a").digest, now=NOW)
    assert await metadata.manifest("shop/web", made.digest) is not None
    assert await metadata.blob("shop/web", blob("a").digest) is not None


async def test_a_tag_given_away_can_be_brought_back(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    first = await push(metadata, "shop/web", "a", tag="v1")
    await push(metadata, "shop/web", "b", tag="v1", now=NOW + HOUR)
    [gone] = await catalog.deletions("shop/web")
    assert (gone.tag, gone.digest, gone.by) == ("v1", first.digest, "tester")
    with pytest.raises(ConflictError):
        await catalog.undelete("shop/web", "v1", now=NOW)
    await metadata.delete(DeletionOrder("shop/web", "v1", NOW - HOUR, "x"))
    assert await catalog.undelete("shop/web", "v1", now=NOW)
    found = await metadata.manifest("shop/web", "v1")
    assert found is not None
    assert found.digest == first.digest


async def test_an_index_comes_back_with_its_images(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    made = await push(metadata, "shop/web", "a", "b")
    outer = index("shop/web", made, tag="multi")
    await metadata.put_manifest(outer)
    await metadata.delete(DeletionOrder("shop/web", outer.digest, NOW, "x"))
    await metadata.delete(DeletionOrder("shop/web", made.digest, NOW + HOUR, "x"))
    await metadata.delete_blob("shop/web", blob("b").digest, now=NOW + HOUR)
    assert await catalog.undelete("shop/web", outer.digest, now=NOW + 2 * HOUR)
    for reference in ("multi", made.digest):
        assert await metadata.manifest("shop/web", reference) is not None
    assert await metadata.blob("shop/web", blob("b").digest) is not None


async def test_collections_leave_what_is_needed(metadata: SqlMetadata, keeping: SqlKeeping) -> None:
    await push(metadata, "shop/web", "a", "b", tag="v1")
    await metadata.link_blob("shop/web", blob("unused"), now=NOW)
    assert await collect(keeping, at=NOW + 30 * timedelta(minutes=1)) == set()
    assert await collect(keeping, at=NOW + 2 * HOUR) == {blob("unused").key}
    for text in ("a", "b"):
        assert await metadata.blob("shop/web", blob(text).digest) is not None
    assert await metadata.blob("shop/web", blob("unused").digest) is None


async def test_whoever_writes_waits_for_a_few_rows_only(
    metadata: SqlMetadata, keeping: SqlKeeping, database: SqlDatabase
) -> None:
    """Under the write lock rows are found by their keys, never by looking at all; and each lock takes few."""
    texts = [f"b{number}" for number in range(10)]
    for text in texts:
        made = await push(metadata, "shop/web", text, tag=text)
        await metadata.delete(DeletionOrder("shop/web", made.digest, NOW, "x"))
    locks: list[list[tuple[str, Any]]] = []

    def begun(connection: Connection) -> None:
        if connection.get_execution_options().get("haneul_writes"):
            locks.append([])

    def asked(connection: Connection, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if connection.get_execution_options().get("haneul_writes") and not statement.startswith("BEGIN"):
            locks[-1].append((statement, parameters))

    event.listen(database.engine, "begin", begun)
    event.listen(database.engine, "before_cursor_execute", asked)
    assert await collect(keeping, at=NOW + 5 * HOUR) == {blob(text).key for text in texts}
    event.remove(database.engine, "begin", begun)
    event.remove(database.engine, "before_cursor_execute", asked)
    assert await SqlCatalog(database).projects() == []
    assert sum(map(len, locks)) >= 10
    # Three rows; of manifests, the names of their repositories and their records too. Where several write, the
    # repositories are locked first.
    assert max(map(len, locks)) <= (5 if database.one_writes else 6)
    if not database.one_writes:
        return

    def plans(connection: Connection) -> list[str]:
        asked = [entry for lock in locks for entry in lock]
        return [
            row.detail
            for entry in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {entry[0]}", entry[1])
        ]

    assert [plan for plan in await database.read(plans) if plan.startswith("SCAN")] == []


async def test_what_had_no_tag_for_long_is_deleted(
    metadata: SqlMetadata, catalog: SqlCatalog, keeping: SqlKeeping
) -> None:
    async def untagged(at: datetime) -> list[str]:
        """Return the digests that go if those without a tag for an hour do."""
        found = keeping.delete_untagged("shop", released_before=at - HOUR, now=at, limit=2)
        assert [name async for names in found for name in names] in ([], ["shop/web"], ["shop/web"] * 2)
        return [gone.digest for gone in await catalog.deletions("shop/web") if not gone.tag]

    child = await push(metadata, "shop/web", "child")
    outer = index("shop/web", child, tag="multi")
    await metadata.put_manifest(outer)
    alone = await push(metadata, "shop/web", "alone")
    moved = await push(metadata, "shop/web", "moved", tag="v1")
    await push(metadata, "lab/x", "of another project")
    subject = {"mediaType": OCI_MANIFEST, "digest": moved.digest, "size": 1}
    content = json.dumps({"schemaVersion": 2, "manifests": [], "subject": subject}).encode()
    manifest = parse_manifest(content, OCI_INDEX)
    await metadata.put_manifest(ManifestPush("shop/web", str(digest_of(content)), content, manifest, NOW, "tester"))

    later = NOW + 5 * HOUR
    await push(metadata, "shop/web", "new", tag="v1", now=later)
    assert await untagged(NOW + HOUR / 2) == []
    assert await untagged(later) == [alone.digest]
    assert await catalog.undelete("shop/web", alone.digest, now=later)
    assert await untagged(later) == []
    await metadata.delete(DeletionOrder("shop/web", "multi", later, "x"))
    assert await untagged(later + HOUR / 2) == []
    assert set(await untagged(later + 2 * HOUR)) == {alone.digest, moved.digest, outer.digest}
    # What they need, or what describes them, goes when they cannot come back any more.
    await keeping.purge_deleted(before=later + 3 * HOUR, now=later, limit=9)
    assert set(await untagged(later + 4 * HOUR)) == {child.digest, str(digest_of(content))}
    assert await metadata.manifest("shop/web", "v1") is not None


async def test_a_deleted_image_is_collected_after_its_undo(metadata: SqlMetadata, keeping: SqlKeeping) -> None:
    made = await push(metadata, "shop/web", "a", tag="v1")
    later = NOW + 5 * HOUR
    await metadata.delete(DeletionOrder("shop/web", made.digest, later, "x"))
    assert await collect(keeping, at=later + HOUR / 2) == set()
    foreseen = await keeping.collectable(deleted_before=later + HOUR, untouched_since=later + HOUR)
    assert (foreseen.manifests, foreseen.links, foreseen.blobs, foreseen.bytes) == (1, 1, 1, 1)
    assert await collect(keeping, at=later + 2 * HOUR) == {blob("a").key}
    assert await keeping.unknown([blob("a").key, "other"]) == [blob("a").key, "other"]


async def test_shared_content_stays_for_the_other_repository(metadata: SqlMetadata, keeping: SqlKeeping) -> None:
    first = await push(metadata, "shop/web", "shared")
    await push(metadata, "shop/other", "shared", tag="v1")
    await metadata.delete(DeletionOrder("shop/web", first.digest, NOW, "x"))
    assert await collect(keeping, at=NOW + 9 * HOUR) == set()
    assert await metadata.blob("shop/other", blob("shared").digest) is not None
    assert await metadata.blob("shop/web", blob("shared").digest) is None


async def test_layers_that_may_be_elsewhere_stay_if_they_are_here(metadata: SqlMetadata, keeping: SqlKeeping) -> None:
    for text in ("config", "far away"):
        await metadata.link_blob("shop/web", blob(text), now=NOW)
    described = [
        {"mediaType": "a/b", "digest": blob(text).digest, "size": 1, "urls": ["https://example.com/layer"]}
        for text in ("far away", "never pushed")
    ]
    config = {"mediaType": "a/b", "digest": blob("config").digest, "size": 1}
    content = json.dumps({"schemaVersion": 2, "config": config, "layers": described}).encode()
    manifest = parse_manifest(content, OCI_MANIFEST)
    pushed = ManifestPush("shop/web", str(digest_of(content)), content, manifest, NOW + 5 * HOUR, "tester", "v1")
    await metadata.put_manifest(pushed)
    linked = await metadata.blob("shop/web", blob("far away").digest)
    assert linked is not None
    assert linked.touched == NOW + 5 * HOUR
    with pytest.raises(UnsupportedError):
        await metadata.delete_blob("shop/web", blob("far away").digest, now=NOW)
    assert await collect(keeping, at=NOW + 9 * HOUR) == set()
    assert await metadata.blob("shop/web", blob("far away").digest) is not None


async def test_a_touched_blob_stays(metadata: SqlMetadata, keeping: SqlKeeping) -> None:
    await metadata.link_blob("shop/web", blob("a"), now=NOW)
    assert await metadata.touch_blob("shop/web", blob("a").digest, now=NOW + 5 * HOUR)
    assert await collect(keeping, at=NOW + 5 * HOUR) == set()
    assert await collect(keeping, at=NOW + 7 * HOUR) == {blob("a").key}
    assert not await metadata.touch_blob("shop/web", blob("a").digest, now=NOW + 7 * HOUR)


async def test_usage_counts_shared_content_once(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    await push(metadata, "shop/web", "shared", "own", tag="v1")
    await push(metadata, "shop/other", "shared", tag="v1")
    await push(metadata, "lab/x", "shared", tag="v1")
    lab, shop = await catalog.usage()
    assert (shop.project, shop.repositories, shop.tags, shop.manifests) == ("shop", 2, 2, 2)
    assert (shop.blobs, shop.blob_bytes) == (2, len("shared") + len("own"))
    assert (lab.blobs, lab.blob_bytes) == (1, len("shared"))


async def test_repositories_are_listed_in_pages(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    for name in ("shop/b", "shop/a", "lab/x"):
        await push(metadata, name, "a", tag="v1")
    assert [entry.name for entry in await catalog.repositories()] == ["lab/x", "shop/a", "shop/b"]
    assert [entry.name for entry in await catalog.repositories(projects=["shop"], limit=1)] == ["shop/a"]
    [last] = await catalog.repositories(projects=["shop"], after="shop/a")
    assert (last.name, last.tags, last.manifests, last.updated) == ("shop/b", 1, 1, NOW)
    assert list(await catalog.projects()) == ["lab", "shop"]


async def test_names_are_of_repositories_that_have_something(metadata: SqlMetadata, catalog: SqlCatalog) -> None:
    for name in ("shop/b", "shop/a", "lab/x"):
        made = await push(metadata, name, "a", tag="v1")
    assert await catalog.names(limit=2) == ["lab/x", "shop/a"]
    assert await catalog.names(after="shop/a", limit=2) == ["shop/b"]
    await metadata.delete(DeletionOrder("shop/a", made.digest, NOW, "x"))
    assert await catalog.names(limit=2) == ["lab/x", "shop/b"]


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_live_is_ever_collected(metadata: SqlMetadata, keeping: SqlKeeping, seed: int) -> None:
    """Pushes, mounts, deletions and collections, all at once: every live manifest keeps its blobs.

    A push takes less than the grace, so nothing that it relies on is collected before its manifest says so.
    """
    chance = random.Random(seed)  # noqa: S311 - chance, no secret
    repositories = ["shop/a", "shop/b"]
    removed: set[str] = set()
    keys = iter(range(10**9))
    turns = 0

    def now() -> datetime:
        return NOW + turns * HOUR / 20

    async def pusher(number: int) -> None:
        nonlocal turns
        for turn in range(15):
            turns += 1
            repository = chance.choice(repositories)
            texts = [f"layer {chance.randrange(4)}" for _ in range(2)]
            blobs = [StoredBlob(blob(text).digest, f"key {next(keys)}", 7) for text in dict.fromkeys(texts)]
            for one in blobs:
                other = chance.choice(repositories)
                if not await metadata.mount_blob(one.digest, source=other, target=repository, now=now()):
                    await metadata.link_blob(repository, one, now=now())
            await metadata.put_manifest(change(repository, *blobs, tag=f"t{number}-{turn}", now=now()))

    async def deleter() -> None:
        for _ in range(25):
            repository = chance.choice(repositories)
            entries = await SqlCatalog(metadata.database).tags(repository) or []
            if entries:
                await metadata.delete(DeletionOrder(repository, chance.choice(entries).digest, now(), "x"))
            await asyncio.sleep(0)

    async def collector(stop: asyncio.Event) -> None:
        while not stop.is_set():
            removed.update(await collect(keeping, at=now(), undo=HOUR / 10))
            await asyncio.sleep(0)

    # Something that goes whatever chance says, so that collections are known to have worked.
    await metadata.link_blob("shop/c", blob("unused"), now=NOW)
    stop = asyncio.Event()
    collecting = asyncio.ensure_future(collector(stop))
    await asyncio.gather(*(pusher(number) for number in range(3)), deleter())
    stop.set()
    await collecting
    turns += 100
    removed.update(await collect(keeping, at=now(), undo=HOUR / 10))
    live = 0
    for repository in repositories:
        for entry in await SqlCatalog(metadata.database).tags(repository) or []:
            found = await metadata.manifest(repository, entry.name)
            assert found is not None
            for digest in parse_manifest(found.content, found.media_type).blobs:
                linked = await metadata.blob(repository, digest)
                assert linked is not None
                assert linked.stored.key not in removed
                live += 1
    assert blob("unused").key in removed
    assert live, "every image was deleted"


async def test_one_failure_does_not_touch_what_is_written_beside_it(metadata: SqlMetadata) -> None:
    for number in range(20):
        await metadata.link_blob("shop/web", blob(f"b{number}"), now=NOW)
    pushes = [
        metadata.put_manifest(change("shop/web", blob(f"b{number}" if number % 3 else "missing"), tag=f"t{number}"))
        for number in range(20)
    ]
    results = await asyncio.gather(*pushes, return_exceptions=True)
    for number, result in enumerate(results):
        there = await metadata.manifest("shop/web", f"t{number}") is not None
        assert there is (number % 3 != 0)
        assert isinstance(result, ManifestBlobUnknownError) is not there
