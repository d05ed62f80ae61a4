"""What every store of backups does: the behaviour suite of the port BackupStore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from haneul.dkos.adapters.backup_files import FileBackups
from haneul.dkos.adapters.backup_memory import MemoryBackups
from haneul.dkos.backup.names import Entry
from haneul.dkos.backup.ports import BackupStore
from haneul.kernel.errors import NotFoundError


@pytest.fixture(params=["memory", "files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BackupStore:
    return MemoryBackups() if request.param == "memory" else FileBackups(tmp_path / "backups")


async def parts(*content: bytes) -> AsyncIterator[bytes]:
    for part in content:
        yield part


async def whole(store: BackupStore, key: str) -> bytes:
    return b"".join([part async for part in store.read(key)])


async def test_what_was_put_is_read(store: BackupStore) -> None:
    large = bytes(range(256)) * 8192
    assert await store.put("uid-1/000-a/snapshot-1", parts(b"head ", large, b" tail")) == len(large) + 10
    assert await whole(store, "uid-1/000-a/snapshot-1") == b"head " + large + b" tail"


async def test_an_empty_object_is_there(store: BackupStore) -> None:
    assert await store.put("uid-1/facts", parts()) == 0
    assert await whole(store, "uid-1/facts") == b""


async def test_what_is_not_there_is_not_found(store: BackupStore) -> None:
    await store.put("uid-1/facts", parts(b"x"))
    for key in ("uid-1/other", "uid-2/facts", "uid-1", "uid-1/facts/deeper"):
        with pytest.raises(NotFoundError):
            await whole(store, key)


async def test_an_object_is_replaced(store: BackupStore) -> None:
    await store.put("uid-1/facts", parts(b"long before"))
    await store.put("uid-1/facts", parts(b"after"))
    assert await whole(store, "uid-1/facts") == b"after"
    assert await store.list() == [Entry("uid-1/facts", 5)]


async def test_objects_are_listed_by_the_beginning_of_their_names(store: BackupStore) -> None:
    for key in ("uid-2/b/x", "uid-1/b/y", "uid-1/a/z", "uid-10/a/z"):
        await store.put(key, parts(key.encode()))
    assert [entry.key for entry in await store.list("uid-1/")] == ["uid-1/a/z", "uid-1/b/y"]
    assert [entry.key for entry in await store.list("uid-1/a/")] == ["uid-1/a/z"]
    assert [entry.key for entry in await store.list("uid-1")] == ["uid-1/a/z", "uid-1/b/y", "uid-10/a/z"]
    assert [entry.key for entry in await store.list()] == ["uid-1/a/z", "uid-1/b/y", "uid-10/a/z", "uid-2/b/x"]
    assert await store.list("uid-3/") == []


async def test_what_is_being_written_is_not_seen(store: BackupStore) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first "
        begun.set()
        await go_on.wait()
        yield b"second"

    await store.put("uid-1/facts", parts(b"old"))
    writing = asyncio.create_task(store.put("uid-1/facts", slow()))
    other = asyncio.create_task(store.put("uid-1/more", parts(b"beside it")))
    await begun.wait()
    await other
    assert await store.list() == [Entry("uid-1/facts", 3), Entry("uid-1/more", 9)]
    assert await whole(store, "uid-1/facts") == b"old"
    go_on.set()
    await writing
    assert await whole(store, "uid-1/facts") == b"first second"


async def test_content_that_fails_changes_nothing(store: BackupStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first "
        raise ValueError("the source ended")

    await store.put("uid-1/facts", parts(b"old"))
    for key in ("uid-1/facts", "uid-1/new"):
        with pytest.raises(ValueError, match="the source ended"):
            await store.put(key, broken())
    assert await store.list() == [Entry("uid-1/facts", 3)]
    assert await whole(store, "uid-1/facts") == b"old"


async def test_who_is_cancelled_while_writing_leaves_nothing(store: BackupStore) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 4096
            begun.set()
            await asyncio.sleep(0)

    writing = asyncio.create_task(store.put("uid-1/facts", endless()))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await store.list() == []


async def test_an_object_is_deleted_as_often_as_one_likes(store: BackupStore) -> None:
    await store.put("uid-1/a/x", parts(b"x"))
    await store.put("uid-1/a/y", parts(b"y"))
    await store.delete("uid-1/a/x")
    await store.delete("uid-1/a/x")
    assert [entry.key for entry in await store.list()] == ["uid-1/a/y"]
    await store.delete("uid-1/a/y")
    await store.put("uid-1/a/x", parts(b"again"))
    assert [entry.key for entry in await store.list()] == ["uid-1/a/x"]
