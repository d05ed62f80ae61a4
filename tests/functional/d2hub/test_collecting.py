"""Collections of files that nobody knows, with a clock that jumps: the collector on a real store and database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haneul.app.d2hub_database import migrated
from haneul.d2hub.adapters.file_accounts import FileAccounts
from haneul.d2hub.adapters.file_blobs import FileBlobs
from haneul.d2hub.adapters.sql_catalog import SqlCatalog
from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.adapters.sql_keeping import SqlKeeping
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.collecting import STRAY_SECONDS, Collector
from haneul.d2hub.digests import digest_of
from haneul.d2hub.errors import BlobUnknownError, BlobUploadUnknownError, ManifestUnknownError
from haneul.d2hub.manifests import OCI_INDEX
from haneul.d2hub.model import FileContent, StoredBlob
from haneul.d2hub.registry import Limits, Registry
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import open_blocking_database

REPOSITORY = "shop/web"
DAY = timedelta(days=1)


class Parts:
    """A registry, its parts, and a clock that both are told the time by."""

    def __init__(self, folder: Path, database: SqlDatabase) -> None:
        self.clock = VirtualClock(datetime.now(UTC))
        self.store = FileBlobs(folder)
        self.folder = folder
        metadata = SqlMetadata(database)
        accounts = FileAccounts(folder / "accounts.yaml", clock=self.clock)
        self.registry = Registry(
            self.store, metadata, SqlCatalog(database), accounts, clock=self.clock, limits=Limits(grace=DAY)
        )
        self.collector = Collector(self.registry, SqlKeeping(database), self.store, clock=self.clock)

    async def pushed(self, data: bytes) -> str:
        digest = digest_of(data)
        await self.registry.push_blob(REPOSITORY, digest, parts(data))
        return str(digest)

    def files(self) -> int:
        return sum(path.is_file() for path in (self.folder / "blobs").rglob("*"))

    def age(self) -> None:
        """Make every file as old as the grace."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                os.utime(path, (1, 1))


async def parts(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Parts]:
    await migrated(f"sqlite+aiosqlite:///{tmp_path}/hub.db")
    database = SqlDatabase(open_blocking_database(f"sqlite:///{tmp_path}/hub.db"))
    hub = Parts(tmp_path, database)
    yield hub
    hub.store.close()
    database.close()


async def test_strays_go_after_they_were_watched(hub: Parts) -> None:
    kept = await hub.pushed(b"kept")
    # As if the process had been killed between the file's name and the database.
    upload = await hub.store.begin(REPOSITORY)
    await hub.store.append(REPOSITORY, upload, parts(b"stray"))
    await hub.store.finish(REPOSITORY, upload, str(digest_of(b"stray")))
    abandoned = await hub.store.begin(REPOSITORY)
    hub.age()
    assert (await hub.collector.collect()).strays == 0
    hub.clock.advance(STRAY_SECONDS - 1)
    assert (await hub.collector.collect()).strays == 0
    hub.clock.advance(2)
    done = await hub.collector.collect()
    assert (done.strays, done.uploads, done.blobs) == (1, 1, 0)
    assert hub.files() == 1
    assert (await hub.registry.blob(REPOSITORY, kept)).size == 4
    with pytest.raises(BlobUploadUnknownError):
        await hub.store.size(REPOSITORY, abandoned)


async def test_what_becomes_known_while_it_is_watched_stays(hub: Parts) -> None:
    upload = await hub.store.begin(REPOSITORY)
    stored = await hub.store.finish(REPOSITORY, upload, str(digest_of(b"")))
    hub.age()
    await hub.collector.collect()
    await hub.registry.metadata.link_blob(REPOSITORY, stored, now=hub.clock.now())
    hub.clock.advance(STRAY_SECONDS + 1)
    assert (await hub.collector.collect()).strays == 0
    assert hub.files() == 1


async def test_an_upload_that_is_being_written_stays(hub: Parts) -> None:
    other = FileBlobs(hub.folder)
    upload = await hub.store.begin(REPOSITORY)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"part "
        begun.set()
        await go_on.wait()
        yield b"and rest"

    writing = asyncio.ensure_future(other.append(REPOSITORY, upload, slowly()))
    await begun.wait()
    for _ in range(2):
        hub.age()
        assert (await hub.collector.collect()).uploads == 0
        hub.clock.advance(STRAY_SECONDS + 1)
    go_on.set()
    assert await writing == 13
    other.close()
    assert (await hub.store.finish(REPOSITORY, upload, str(digest_of(b"part and rest")))).size == 13


async def test_a_clock_that_jumps_ahead_makes_nothing_old(hub: Parts) -> None:
    digest = await hub.pushed(b"just pushed")
    real = hub.clock.now
    hub.clock.now = lambda: real() + 30 * DAY  # type: ignore[method-assign]
    done = await hub.collector.collect()
    assert (done.links, done.blobs) == (0, 0)
    assert (await hub.registry.blob(REPOSITORY, digest)).size == 11
    hub.clock.advance(2 * DAY.total_seconds())
    done = await hub.collector.collect()
    assert (done.links, done.blobs) == (1, 1)
    with pytest.raises(BlobUnknownError):
        await hub.registry.blob(REPOSITORY, digest)


async def test_who_asks_for_a_blob_to_rely_on_it_keeps_it(hub: Parts) -> None:
    digest = await hub.pushed(b"asked for")
    hub.clock.advance(0.8 * DAY.total_seconds())
    await hub.registry.blob(REPOSITORY, digest, relied_on=True)
    hub.clock.advance(0.8 * DAY.total_seconds())
    assert (await hub.collector.collect()).blobs == 0
    await hub.registry.blob(REPOSITORY, digest)
    hub.clock.advance(0.8 * DAY.total_seconds())
    assert (await hub.collector.collect()).blobs == 1
    assert hub.files() == 0
    with pytest.raises(BlobUnknownError):
        await hub.registry.blob(REPOSITORY, digest, relied_on=True)


async def test_a_push_at_once_that_breaks_leaves_nothing(hub: Parts) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await hub.registry.push_blob(REPOSITORY, digest_of(b""), broken())
    assert [path for path in (hub.folder / "uploads").rglob("*") if path.is_file()] == []


async def test_what_has_no_tag_goes_if_the_rules_say_when(hub: Parts) -> None:
    (hub.folder / "accounts.yaml").write_text("projects: {shop: {untaggedDays: 7}, quick: {untaggedDays: 1}}")
    content = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    digest = str(digest_of(content))
    for project in ("shop", "kept", "quick"):
        await hub.registry.put_manifest(f"{project}/web", digest, content, OCI_INDEX, "tester")

    async def there() -> list[str]:
        await hub.collector.collect()
        found = []
        for project in ("shop", "kept", "quick"):
            with contextlib.suppress(ManifestUnknownError):
                await hub.registry.manifest(f"{project}/web", digest)
                found.append(project)
        return found

    assert await there() == ["shop", "kept", "quick"]
    hub.clock.advance(2 * DAY.total_seconds())
    assert await there() == ["shop", "kept"]
    hub.clock.advance(6 * DAY.total_seconds())
    assert await there() == ["kept"]
    await hub.registry.undelete("shop/web", digest)
    assert await there() == ["shop", "kept"]


async def test_content_is_on_the_disk_before_it_is_written_down(hub: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    rename, fsync, link = Path.rename, os.fsync, hub.registry.metadata.link_blob

    def renamed(path: Path, target: Path) -> Path:
        done.append(("rename", str(target)))
        return rename(path, target)

    def synced(descriptor: int) -> None:
        done.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    async def linked(repository: str, stored: StoredBlob, *, now: datetime) -> StoredBlob:
        done.append(("write down", str(hub.folder / "blobs" / stored.key)))
        return await link(repository, stored, now=now)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(hub.registry.metadata, "link_blob", linked)
    await hub.pushed(b"content")
    file = done[0][1]
    assert done == [("rename", file), ("sync", file), ("sync", str(Path(file).parent)), ("write down", file)]


async def test_pushing_again_heals_what_was_lost(hub: Parts) -> None:
    data = b"x" * 100_000
    digest = await hub.pushed(data)
    await hub.registry.push_blob("shop/other", digest_of(data), parts(data))
    assert (await hub.registry.blob("shop/other", digest)).size == len(data)
    [lost] = [path for path in (hub.folder / "blobs").rglob("*") if path.is_file()]
    lost.unlink()
    assert not await hub.registry.mount("shop/third", digest, [REPOSITORY])
    with pytest.raises(BlobUnknownError):
        await hub.registry.blob(REPOSITORY, digest)
    await hub.pushed(data)
    assert hub.files() == 1
    for repository in (REPOSITORY, "shop/other"):
        content = await hub.registry.blob(repository, digest)
        assert isinstance(content, FileContent)
        assert content.path.read_bytes() == data
    assert await hub.registry.mount("shop/third", digest, [REPOSITORY])


async def test_the_same_content_pushed_twice_is_kept_once(hub: Parts) -> None:
    for _ in range(3):
        await hub.pushed(b"the same")
    await hub.registry.push_blob("shop/other", digest_of(b"the same"), parts(b"the same"))
    assert hub.files() == 1
