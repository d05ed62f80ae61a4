"""Blobs in an object store with an S3 API; uploads, until they are whole, in files of this machine.

```
BUCKET/blobs/sha256/4b/4b8f…e1.9c31d2a07f66   content: its hash, and a mark that no other copy has
BUCKET/d2hub-owner                            whose bucket it is: two hubs would collect each other's content
FOLDER/uploads/6f0c9d17e2a35b48/0192f7…       an upload
```

S3 takes parts of 5 MiB or more and hashes nothing that a registry could use, clients send what they like. So an
upload grows in a file; at its end its digest is checked, and only then it goes into the store, as one object, under a
key that was never used. An upload survives the hub, but not the disk of the machine; content that was acknowledged
needs neither.

Every request to the store has a timeout and is repeated a few times, later and later, while the store fails. What is
in doubt after that does no harm: nobody knows the key, so a collection removes it, and a client may finish the upload
again. Of a large object a killed hub may leave parts that no list shows; S3 has a rule for buckets that removes those
(``AbortIncompleteMultipartUpload``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from haneul.d2hub.adapters.content_keys import new_content_key
from haneul.d2hub.adapters.file_uploads import FileUploads
from haneul.d2hub.adapters.growing_file import FileReader
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.d2hub.digests import parse_digest
from haneul.d2hub.errors import BlobStoreAwayError, StorageFullError
from haneul.d2hub.model import RemoteContent, StoredBlob
from haneul.kernel.buckets import open_bucket
from haneul.kernel.errors import ConflictError, HaneulError

_PREFIX: Final = "blobs"
_OWNER: Final = "d2hub-owner"
#: Bytes of one request: larger objects are sent in parts, and read in ranges, so that each has its timeout.
_PART: Final = 16 << 20
_RANGE: Final = 4 << 20
#: S3 and Swift take 10,000 parts; with fewer there is room for what a client sends.
_MOST_PARTS: Final = 5_000
_PARTS_AT_ONCE: Final = 4
#: Keys of one request to remove or list; S3 takes 1,000.
_BATCH: Final = 500
#: What stores say when they have no room: Swift, S3's quotas, and others.
_FULL: Final = ("status code: 507", "InsufficientStorage", "QuotaExceeded", "EntityTooLarge", "XMinioStorageFull")


class ObjectBlobs:
    """A store in one bucket. With ``redirects`` clients fetch content there themselves."""

    def __init__(self, folder: Path, settings: ObjectSettings, *, redirects: bool) -> None:
        self._uploads = FileUploads(folder)
        self._bucket = settings.bucket
        self._redirects, self._link_life = redirects, timedelta(seconds=settings.link_seconds)
        self._store = open_bucket(settings)

    def close(self) -> None:
        """Let threads end."""
        self._uploads.close()

    async def claim(self, owner: str) -> None:
        """Make the bucket this hub's, whose mark ``owner`` is. Raises ConflictError if it is another's."""
        with translated(self._bucket):
            try:
                found = bytes(await (await obstore.get_async(self._store, _OWNER)).bytes_async()).decode()
            except FileNotFoundError:
                if not await self.is_empty():
                    raise ConflictError(
                        f"the bucket {self._bucket} has content of some hub, which would be collected",
                        hint="name an empty bucket",
                    ) from None
                found = owner
                await obstore.put_async(self._store, _OWNER, owner.encode())
        if found != owner:
            raise ConflictError(
                f"the bucket {self._bucket} is another hub's, whose content would be collected",
                hint="give each hub a bucket of its own",
            )

    async def is_empty(self) -> bool:
        """Say whether the bucket has no content."""
        with translated(self._bucket):
            async for entries in obstore.list(self._store, _PREFIX, chunk_size=1):
                if entries:
                    return False
        return True

    async def begin(self, scope: str) -> str:
        """Make an upload's empty file."""
        return await self._uploads.begin(scope)

    async def append(self, scope: str, upload: str, parts: AsyncIterator[bytes], *, at: int | None = None) -> int:
        """Write at the end of the file."""
        return await self._uploads.append(scope, upload, parts, at=at)

    async def size(self, scope: str, upload: str) -> int:
        """Return the file's length."""
        return await self._uploads.size(scope, upload)

    async def finish(self, scope: str, upload: str, digest: str) -> StoredBlob:
        """Check the hash, send the file to the store, and remove it. While the store is away the upload stays."""
        wanted = parse_digest(digest)
        key = new_content_key(wanted)
        async with self._uploads.ending(scope, upload) as ending:
            size = await self._uploads.in_thread(lambda: ending.verify(wanted))
            with translated(self._bucket):
                await put_file(self._store, key, ending.path, size)
            await self._uploads.in_thread(lambda: ending.path.unlink(missing_ok=True))
        return StoredBlob(digest, key, size)

    async def cancel(self, scope: str, upload: str) -> None:
        """Remove the file."""
        await self._uploads.cancel(scope, upload)

    async def content(self, key: str) -> RemoteContent | None:
        """Ask the store how large it is, if it is there."""
        path = path_of(key)
        with translated(self._bucket):
            try:
                size = (await obstore.head_async(self._store, path))["size"]
            except FileNotFoundError:
                return None

        async def read(first: int, last: int) -> AsyncGenerator[bytes, None]:
            ranges = _Ranges(self, path, first, last)
            await ranges.begin()
            return ranges.parts()

        async def link() -> str:
            with translated(self._bucket):
                return await obstore.sign_async(self._store, "GET", path, self._link_life)

        return RemoteContent(size, read, link if self._redirects else None)

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove objects, some hundreds at a time."""
        for start in range(0, len(keys), _BATCH):
            with translated(self._bucket):
                await obstore.delete_async(self._store, [path_of(key) for key in keys[start : start + _BATCH]])

    async def strays(self, *, older_than: float) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
        """List the bucket. A list may be late: a removed object may still be in it, which does no harm."""
        limit = time.time() - older_than
        keys: list[str] = []
        with translated(self._bucket):
            async for entries in obstore.list(self._store, _PREFIX, chunk_size=_BATCH):
                keys += [
                    entry["path"].removeprefix(f"{_PREFIX}/")
                    for entry in entries
                    if entry["last_modified"].timestamp() < limit
                ]
        return keys, await self._uploads.old(older_than=older_than)

    async def abandon(self, uploads: Sequence[tuple[str, str]]) -> int:
        """Remove uploads' files, except those that a process is writing."""
        return await self._uploads.abandon(uploads)

    def follow(self, scope: str, upload: str) -> FileReader:
        """Open the upload's file, which can be read on after it was sent to the store and removed."""
        return self._uploads.follow(scope, upload)

    async def fetch(self, path: str, first: int, end: int) -> bytes:
        """Return the bytes of an object from ``first`` to before ``end``."""
        with translated(self._bucket):
            return bytes(await obstore.get_range_async(self._store, path, start=first, end=end))


class _Ranges:
    """Reads an object in ranges, the next while the one before is being sent."""

    def __init__(self, store: ObjectBlobs, path: str, first: int, last: int) -> None:
        self._store, self._path, self._next, self._end = store, path, first, last + 1
        self._first: bytes | None = None

    async def begin(self) -> None:
        """Read the first range, so that errors come before anything is sent."""
        self._first = await self._fetch()

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of each range."""
        part = self._first
        while part:
            coming = asyncio.ensure_future(self._fetch())
            try:
                yield part
                part = await coming
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _fetch(self) -> bytes:
        first, self._next = self._next, min(self._next + _RANGE, self._end)
        return await self._store.fetch(self._path, first, self._next) if first < self._next else b""


def path_of(key: str) -> str:
    """Return an object's place in the bucket."""
    return f"{_PREFIX}/{key}"


async def put_file(store: S3Store, key: str, file: Path, size: int) -> None:
    """Send a file of so many bytes, a large one in parts; it is there once it is whole."""
    await obstore.put_async(
        store,
        path_of(key),
        file if size else b"",
        attributes={"Content-Type": "application/octet-stream"},
        use_multipart=size > _PART,
        chunk_size=max(_PART, size // _MOST_PARTS),
        max_concurrency=_PARTS_AT_ONCE,
    )


@contextmanager
def translated(bucket: str) -> Iterator[None]:
    """Make errors of the store ours. What is not there is told by FileNotFoundError, which passes."""
    try:
        yield
    except (HaneulError, FileNotFoundError):
        raise
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise BlobStoreAwayError(
            f"the object store refuses the hub's key for the bucket {bucket}",
            hint="whoever runs the registry: look at the key in the store's file",
        ) from error
    except (BaseError, OSError, TimeoutError) as error:
        said = str(error)
        if any(word in said for word in _FULL):
            raise StorageFullError("the object store is full", hint="tell whoever runs it; then push again") from error
        raise BlobStoreAwayError(
            f"the object store does not answer as it should: {said.partition(chr(10))[0][:300]}",
            hint="try again in a moment",
        ) from error
