"""Blobs in files: uploads grow in place, and become content by getting another name.

```
blobs/sha256/4b/4b8f…e1.9c31d2a07f66   content: its hash, and a mark that no other copy has
uploads/6f0c9d17e2a35b48/0192f7…       an upload: a mark of its repository, and its id
```

Content lies under a name that is used once and is written down (in the database) only after it is on the disk. So a
crash leaves at most files that nobody knows, which a collection removes, and no reader ever sees half of anything. An
upload's state is its file's length; what was hashed so far is kept in memory, and after a restart hashed again.

Several processes may have one folder, if its file system locks files for all of them: an upload's file is locked
(flock) while a process writes or finishes it, so an upload may go on at another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from haneul.d2hub.adapters.upload_locks import held, locked, unknown_upload
from haneul.d2hub.digests import ALGORITHMS, CANONICAL, Hasher, new_hasher, parse_digest
from haneul.d2hub.errors import (
    DigestInvalidError,
    RangeNotSatisfiableError,
    StorageFullError,
)
from haneul.d2hub.model import FileContent, StoredBlob
from haneul.kernel.files import sync

#: Bytes that are gathered before a thread hashes and writes them: below, changing threads costs more than the work.
_BATCH: Final = 1 << 20
#: Bytes that are hashed and written without another thread.
_INLINE: Final = 64 << 10
_THREADS: Final = 8
_UPLOAD_ID: Final = re.compile(r"[0-9a-f]{32}")
_T = TypeVar("_T")


@dataclass
class _Session:
    """What this process knows of an upload: its turn, and the hash of its first ``hashed`` bytes."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    hasher: Hasher = field(default_factory=new_hasher)
    hashed: int = 0


class FileBlobs:
    """A store in one folder of a local file system."""

    def __init__(self, folder: Path) -> None:
        self._blobs, self._uploads = folder / "blobs", folder / "uploads"
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")
        for algorithm in ALGORITHMS:
            for number in range(256):
                (self._blobs / algorithm / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
            sync(self._blobs / algorithm)
        self._uploads.mkdir(mode=0o700, exist_ok=True)
        for made in (self._blobs, folder):
            sync(made)

    def close(self) -> None:
        """Let threads end."""
        self._threads.shutdown()

    async def begin(self, scope: str) -> str:
        """Make an upload's empty file."""
        upload, mark = secrets.token_hex(16), _mark(scope)
        path = self._uploads / mark / upload
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise _translated(error) from error
        self._sessions[mark, upload] = _Session()
        return upload

    async def append(self, scope: str, upload: str, parts: AsyncIterator[bytes], *, at: int | None = None) -> int:
        """Write at the end of the file; hash and write in a thread while the next part arrives."""
        path, session = self._session(scope, upload)
        async with session.lock, held(path) as descriptor:
            size = _size(path)
            if at is not None and at != size:
                raise RangeNotSatisfiableError(f"the next part begins at byte {size}, not {at}")
            writer = _Writer(descriptor, session, size, self._threads)
            try:
                async for part in parts:
                    await writer.take(part)
            finally:
                await writer.end()
            return writer.size

    async def size(self, scope: str, upload: str) -> int:
        """Return the file's length."""
        path, session = self._session(scope, upload)
        async with session.lock, held(path):
            return _size(path)

    async def finish(self, scope: str, upload: str, digest: str) -> StoredBlob:
        """Check the hash, give the file its name, and wait until both are on the disk."""
        path, session = self._session(scope, upload)
        wanted = parse_digest(digest)
        key = f"{wanted.algorithm}/{wanted.hex[:2]}/{wanted.hex}.{secrets.token_hex(6)}"

        def settle() -> int:
            size = _size(path)
            found = session.hasher.hexdigest() if session.hashed == size else ""
            if wanted.algorithm != CANONICAL or not found:
                found = _hash_file(path, wanted.algorithm)
            if found != wanted.hex:
                path.unlink()
                raise DigestInvalidError(
                    f"the {size} bytes that arrived have the digest {wanted.algorithm}:{found}, not {digest}",
                    hint="begin the upload again",
                )
            target = self._blobs / key
            path.rename(target)
            sync(target)
            sync(target.parent)
            return size

        async with session.lock, held(path):
            try:
                size = await self._in_thread(settle)
            finally:
                if not path.exists():
                    self._sessions.pop((path.parent.name, upload), None)
        return StoredBlob(digest, key, size)

    async def cancel(self, scope: str, upload: str) -> None:
        """Remove the file."""
        path, session = self._session(scope, upload)
        async with session.lock, held(path):
            path.unlink()
            self._sessions.pop((path.parent.name, upload), None)

    async def content(self, key: str) -> FileContent | None:
        """Return the file."""
        path = self._blobs / key
        try:
            return FileContent(path, path.stat().st_size)
        except FileNotFoundError:
            return None

    async def remove(self, keys: Sequence[str]) -> None:
        """Remove files. A name that comes back after a crash is a stray that the next collection removes."""

        def unlink() -> None:
            for key in keys:
                (self._blobs / key).unlink(missing_ok=True)

        await self._in_thread(unlink)

    async def strays(self, *, older_than: float) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
        """Look through all folders. What is known of uploads that ended elsewhere is forgotten."""
        known = list(self._sessions)

        def look() -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]]]:
            limit = time.time() - older_than
            keys = [str(path.relative_to(self._blobs)) for path in self._blobs.glob("*/*/*") if _modified(path) < limit]
            uploads = [(path.parent.name, path.name) for path in self._uploads.glob("*/*") if _modified(path) < limit]
            ended = [(mark, upload) for mark, upload in known if not (self._uploads / mark / upload).exists()]
            return keys, uploads, ended

        keys, uploads, ended = await self._in_thread(look)
        for session in ended:
            self._sessions.pop(session, None)
        return keys, uploads

    async def abandon(self, uploads: Sequence[tuple[str, str]]) -> int:
        """Remove uploads' files, except those that a process is writing."""
        gone = 0
        for mark, upload in uploads:
            path = self._uploads / mark / upload
            with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
                if locked(file.fileno()):
                    path.unlink()
                    self._sessions.pop((mark, upload), None)
                    gone += 1
        return gone

    def _session(self, scope: str, upload: str) -> tuple[Path, _Session]:
        """Return an upload's file and what is known of it. Raises BlobUploadUnknownError."""
        mark = _mark(scope)
        path = self._uploads / mark / upload
        session = self._sessions.get((mark, upload))
        if session is None:
            # From before this process began, if at all.
            if not _UPLOAD_ID.fullmatch(upload) or not path.exists():
                raise unknown_upload(upload)
            session = self._sessions.setdefault((mark, upload), _Session(hashed=0))
        return path, session

    def follow(self, scope: str, upload: str) -> FileReader:
        """Open the upload's file, which can be read on after it got another name or none."""
        path = self._uploads / _mark(scope) / upload
        try:
            return FileReader(os.open(path, os.O_RDONLY), self._threads)
        except FileNotFoundError as error:
            raise unknown_upload(upload) from error

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            # Not cancelled with its caller: the thread would go on, unwatched, after the lock was let go.
            await asyncio.wait([future])
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        try:
            return future.result()
        except OSError as error:
            raise _translated(error) from error


class FileReader:
    """Reads a file that grows."""

    def __init__(self, descriptor: int, threads: ThreadPoolExecutor) -> None:
        self._descriptor, self._threads = descriptor, threads
        self._reading: asyncio.Future[bytes] | None = None

    async def read(self, at: int, most: int) -> bytes:
        """Read what is there, in a thread if that is much."""
        there = min(os.fstat(self._descriptor).st_size - at, most)
        if there <= 0:
            return b""
        if there <= _INLINE:
            return os.pread(self._descriptor, there, at)
        loop = asyncio.get_running_loop()
        self._reading = loop.run_in_executor(self._threads, os.pread, self._descriptor, there, at)
        return await self._reading

    def close(self) -> None:
        """Close the file, after a read that nobody waits for any more."""
        if self._reading is None or self._reading.done():
            os.close(self._descriptor)
        else:
            self._reading.add_done_callback(lambda _: os.close(self._descriptor))


class _Writer:
    """Takes parts, and writes them in batches; at most one batch is being written while the next is gathered."""

    def __init__(self, descriptor: int, session: _Session, size: int, threads: ThreadPoolExecutor) -> None:
        self._descriptor, self._session, self._threads = descriptor, session, threads
        self._batch: list[bytes] = []
        self._waiting = 0
        self._under_way: asyncio.Future[None] | None = None
        self._begin = size
        self.size = size

    async def take(self, part: bytes) -> None:
        """Take a part. Raises what went wrong with earlier ones."""
        self._batch.append(part)
        self._waiting += len(part)
        if self._waiting >= _BATCH:
            await self._settled()
            self._start()

    async def end(self) -> None:
        """Write what is left."""
        await self._settled()
        if self._waiting > _INLINE:
            self._start()
            await self._settled()
        elif self._waiting:
            batch, length = self._taken()
            try:
                self._write(batch, length)
            except OSError as error:
                raise _translated(error) from error

    def _taken(self) -> tuple[list[bytes], int]:
        batch, length = self._batch, self._waiting
        self._batch, self._waiting = [], 0
        return batch, length

    def _start(self) -> None:
        batch, length = self._taken()
        self._under_way = asyncio.get_running_loop().run_in_executor(self._threads, self._write, batch, length)

    async def _settled(self) -> None:
        future = self._under_way
        if future is None:
            return
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        finally:
            self._under_way = None
        try:
            future.result()
        except OSError as error:
            # What was gathered meanwhile does not follow what was written.
            self._taken()
            raise _translated(error) from error

    def _write(self, batch: list[bytes], length: int) -> None:
        in_order = self._session.hashed == self.size
        try:
            for part in batch:
                rest = memoryview(part)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                if in_order:
                    self._session.hasher.update(part)
        except OSError:
            self._rewind()
            raise
        self.size += length
        if in_order:
            self._session.hashed += length

    def _rewind(self) -> None:
        """Make the file as long as it was before, so that the client can send the same again; free the disk."""
        os.ftruncate(self._descriptor, self._begin)
        self.size = self._begin
        # A hash cannot go back: the file will be hashed whole at its end.
        self._session.hasher, self._session.hashed = new_hasher(), 0


def _mark(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:16]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise unknown_upload(path.name) from error


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _hash_file(path: Path, algorithm: str) -> str:
    hasher = new_hasher(algorithm)
    with path.open("rb") as file:
        while part := file.read(_BATCH):
            hasher.update(part)
    return hasher.hexdigest()


def _translated(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError("the disk of the registry is full", hint="tell whoever runs it; then push again")
    return error
