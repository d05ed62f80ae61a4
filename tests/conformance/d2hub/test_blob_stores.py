"""What every store of blobs promises."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from haneul.d2hub.adapters.file_blobs import FileBlobs
from haneul.d2hub.adapters.memory_blobs import MemoryBlobs
from haneul.d2hub.adapters.object_blobs import ObjectBlobs
from haneul.d2hub.errors import (
    BlobUploadUnknownError,
    DigestInvalidError,
    RangeNotSatisfiableError,
    StorageFullError,
)
from haneul.d2hub.model import BytesContent, FileContent, RemoteContent
from haneul.d2hub.ports import BlobStore, GrowingStore
from haneul.kage.store import Kage
from haneul.kernel.clock import SystemClock
from haneul.kernel.waiting import wait_for
from tests.kage import bucket_of, running_kage

SCOPE = "shop/web"


@pytest.fixture(scope="module")
def kage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kage]:
    with running_kage(tmp_path_factory.mktemp("kage")) as kage:
        yield kage


@pytest.fixture(params=["files", "memory", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GrowingStore]:
    match request.param:
        case "files":
            files = FileBlobs(tmp_path)
            yield files
            files.close()
        case "memory":
            yield MemoryBlobs()
        case _:
            name = f"b{hashlib.sha256(request.node.name.encode()).hexdigest()[:20]}"
            kept = ObjectBlobs(tmp_path, bucket_of(request.getfixturevalue("kage"), name), redirects=True)
            yield kept
            kept.close()


async def parts(*data: bytes) -> AsyncIterator[bytes]:
    for part in data:
        await asyncio.sleep(0)
        yield part


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


async def read(store: BlobStore, key: str) -> bytes | None:
    content = await store.content(key)
    if content is None:
        return None
    match content:
        case FileContent():
            data = content.path.read_bytes()
        case BytesContent():
            data = content.data
        case RemoteContent():
            data = await content.whole()
    assert len(data) == content.size
    return data


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_an_upload_becomes_content(store: BlobStore, algorithm: str) -> None:
    data = [b"a" * 10, b"b" * 3_000_000, b"", b"c" * 70_000]
    upload = await store.begin(SCOPE)
    assert await store.size(SCOPE, upload) == 0
    assert await store.append(SCOPE, upload, parts(*data[:2])) == 3_000_010
    assert await store.append(SCOPE, upload, parts(*data[2:]), at=3_000_010) == 3_070_010
    whole = b"".join(data)
    stored = await store.finish(SCOPE, upload, digest(whole, algorithm))
    assert (stored.digest, stored.size) == (digest(whole, algorithm), len(whole))
    assert await read(store, stored.key) == whole
    with pytest.raises(BlobUploadUnknownError):
        await store.size(SCOPE, upload)


async def test_nothing_is_content_too(store: BlobStore) -> None:
    stored = await store.finish(SCOPE, await store.begin(SCOPE), digest(b""))
    assert await read(store, stored.key) == b""


async def test_a_wrong_digest_ends_the_upload(store: BlobStore) -> None:
    upload = await store.begin(SCOPE)
    await store.append(SCOPE, upload, parts(b"data"))
    with pytest.raises(DigestInvalidError):
        await store.finish(SCOPE, upload, digest(b"other"))
    with pytest.raises(BlobUploadUnknownError):
        await store.append(SCOPE, upload, parts(b"more"))
    keys, uploads = await store.strays(older_than=-10)
    assert (list(keys), list(uploads)) == ([], [])


async def test_a_part_out_of_order_changes_nothing(store: BlobStore) -> None:
    upload = await store.begin(SCOPE)
    await store.append(SCOPE, upload, parts(b"0123"))
    for at in (0, 3, 5):
        with pytest.raises(RangeNotSatisfiableError):
            await store.append(SCOPE, upload, parts(b"x"), at=at)
    assert await store.size(SCOPE, upload) == 4
    await store.finish(SCOPE, upload, digest(b"0123"))


async def test_what_arrived_before_a_break_stays(store: BlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError

    upload = await store.begin(SCOPE)
    with pytest.raises(ConnectionResetError):
        await store.append(SCOPE, upload, broken())
    assert await store.size(SCOPE, upload) == 100_000
    await store.append(SCOPE, upload, parts(b"y"), at=100_000)
    await store.finish(SCOPE, upload, digest(b"x" * 100_000 + b"y"))


async def test_an_upload_is_its_scopes_own(store: BlobStore) -> None:
    upload = await store.begin(SCOPE)
    for call in (
        store.size("shop/other", upload),
        store.append("shop/other", upload, parts(b"x")),
        store.finish("shop/other", upload, digest(b"")),
        store.cancel("shop/other", upload),
    ):
        with pytest.raises(BlobUploadUnknownError):
            await call
    await store.cancel(SCOPE, upload)
    with pytest.raises(BlobUploadUnknownError):
        await store.cancel(SCOPE, upload)


@pytest.mark.parametrize("upload", ["", ".", "..", "../x", "/etc/passwd", "0" * 32, "a\0b"])
async def test_an_id_that_is_none(store: BlobStore, upload: str) -> None:
    with pytest.raises(BlobUploadUnknownError):
        await store.append(SCOPE, upload, parts(b"x"))


async def test_the_same_content_twice_has_two_keys(store: BlobStore) -> None:
    stored = []
    for _ in range(2):
        upload = await store.begin(SCOPE)
        await store.append(SCOPE, upload, parts(b"same"))
        stored.append(await store.finish(SCOPE, upload, digest(b"same")))
    assert stored[0].key != stored[1].key
    await store.remove([stored[0].key, "not/there/at-all"])
    assert await read(store, stored[0].key) is None
    assert await read(store, stored[1].key) == b"same"


async def test_strays_are_what_is_old(store: BlobStore) -> None:
    kept = await store.finish(SCOPE, await store.begin(SCOPE), digest(b""))
    open_upload = await store.begin(SCOPE)
    assert await store.strays(older_than=1000) == ([], [])

    async def listed() -> bool:
        return bool((await store.strays(older_than=-10))[0])

    # What a store lists may be a moment behind what it has.
    await wait_for(listed, what="the content to be listed", timeout=60, clock=SystemClock())
    keys, uploads = await store.strays(older_than=-10)
    assert list(keys) == [kept.key]
    assert [upload for _, upload in uploads] == [open_upload]
    assert await store.abandon(uploads) == 1
    with pytest.raises(BlobUploadUnknownError):
        await store.size(SCOPE, open_upload)


async def test_parts_from_two_sides_do_not_mix(store: BlobStore) -> None:
    upload = await store.begin(SCOPE)
    results = await asyncio.gather(
        store.append(SCOPE, upload, parts(b"a" * 10, b"a" * 10), at=0),
        store.append(SCOPE, upload, parts(b"b" * 10, b"b" * 10), at=20),
        return_exceptions=True,
    )
    assert list(results) == [20, 40]
    await store.finish(SCOPE, upload, digest(b"a" * 20 + b"b" * 20))


async def test_an_upload_is_read_while_it_grows_and_after_its_end(store: GrowingStore) -> None:
    with pytest.raises(BlobUploadUnknownError):
        store.follow(SCOPE, "0" * 32)
    upload = await store.begin(SCOPE)
    with pytest.raises(BlobUploadUnknownError):
        store.follow("shop/other", upload)
    reader, other = store.follow(SCOPE, upload), store.follow(SCOPE, upload)
    assert await reader.read(0, 10) == b""
    data = b"0123456789" * 200_000
    await store.append(SCOPE, upload, parts(data))
    assert await reader.read(0, 10) == b"0123456789"
    assert await reader.read(1_999_995, 100) == b"56789"
    assert await reader.read(2_000_000, 100) == b""
    reader.close()
    stored = await store.finish(SCOPE, upload, digest(data))
    await store.remove([stored.key])
    assert await other.read(0, len(data)) == data
    other.close()


async def test_a_full_disk_takes_nothing_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileBlobs(tmp_path)
    upload = await store.begin(SCOPE)
    await store.append(SCOPE, upload, parts(b"first "))
    written, room = os.write, 3_000_000

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = written(descriptor, data[: min(room, 700_000)])
        room -= count
        return count

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(StorageFullError):
            await store.append(SCOPE, upload, parts(*[b"x" * 500_000] * 10), at=6)
    assert await store.size(SCOPE, upload) == 6
    await store.append(SCOPE, upload, parts(b"second"), at=6)
    stored = await store.finish(SCOPE, upload, digest(b"first second"))
    assert await read(store, stored.key) == b"first second"


async def test_a_restart_in_the_middle_of_an_upload(tmp_path: Path) -> None:
    before = FileBlobs(tmp_path)
    upload = await before.begin(SCOPE)
    await before.append(SCOPE, upload, parts(b"first "))
    before.close()
    after = FileBlobs(tmp_path)
    assert await after.size(SCOPE, upload) == 6
    await after.append(SCOPE, upload, parts(b"second"), at=6)
    stored = await after.finish(SCOPE, upload, digest(b"first second"))
    assert await read(after, stored.key) == b"first second"
