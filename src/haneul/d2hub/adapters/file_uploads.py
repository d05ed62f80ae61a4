"""Uploads in files: an upload grows in place, whatever becomes of it at its end.

```
uploads/6f0c9d17e2a35b48/0192f7…       an upload: a mark of its repository, and its id
```

An upload's state is its file's length; what was hashed so far is kept in memory, and after a restart hashed again.

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

from haneul.d2hub.adapters.growing_file import FileReader
from haneul.d2hub.adapters.upload_locks import held, locked, unknown_upload
from haneul.d2hub.digests import CANONICAL, Digest, Hasher, new_hasher
from haneul.d2hub.errors import DigestInvalidError, RangeNotSatisfiableError, StorageFullError
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


@dataclass(frozen=True)
class Ending:
    """An upload at its end, in whose turn nothing else happens to it."""

    path: Path
    _session: _Session

    def verify(self, wanted: Digest) -> int:
        """Return the file's length if ``wanted`` is its digest. Blocks. Raises DigestInvalidError, and removes it."""
        size = _size(self.path)
        found = self._session.hasher.hexdigest() if self._session.hashed == size else ""
        if wanted.algorithm != CANONICAL or not found:
            found = _hash_file(self.path, wanted.algorithm)
        if found != wanted.hex:
            self.path.unlink()
            raise DigestInvalidError(
                f"the {size} bytes that arrived have the digest {wanted.algorithm}:{found}, not {wanted}",
                hint="begin the upload again",
            )
        return size


class FileUploads:
    """The uploads of one store, in ``uploads`` below a folder of a local file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "uploads"
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        sync(folder)

    def close(self) -> None:
        """Let threads end."""
        self._threads.shutdown()

    async def begin(self, scope: str) -> str:
        """Make an upload's empty file."""
        upload, mark = secrets.token_hex(16), _mark(scope)
        path = self._folder / mark / upload
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise translated(error) from error
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

    @contextlib.asynccontextmanager
    async def ending(self, scope: str, upload: str) -> AsyncIterator[Ending]:
        """Hold an upload while it becomes content; it is over if its file is gone afterwards."""
        path, session = self._session(scope, upload)
        async with session.lock, held(path):
            try:
                yield Ending(path, session)
            finally:
                if not path.exists():
                    self._sessions.pop((path.parent.name, upload), None)

    async def cancel(self, scope: str, upload: str) -> None:
        """Remove the file."""
        path, session = self._session(scope, upload)
        async with session.lock, held(path):
            path.unlink()
            self._sessions.pop((path.parent.name, upload), None)

    async def old(self, *, older_than: float) -> Sequence[tuple[str, str]]:
        """Return scope marks and ids of uploads that did not change for so many seconds.

        What is known of uploads that ended elsewhere is forgotten.
        """
        known = list(self._sessions)

        def look() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
            limit = time.time() - older_than
            uploads = [(path.parent.name, path.name) for path in self._folder.glob("*/*") if modified(path) < limit]
            return uploads, [(mark, upload) for mark, upload in known if not (self._folder / mark / upload).exists()]

        uploads, ended = await self.in_thread(look)
        for session in ended:
            self._sessions.pop(session, None)
        return uploads

    async def abandon(self, uploads: Sequence[tuple[str, str]]) -> int:
        """Remove uploads' files, except those that a process is writing; return how many."""
        gone = 0
        for mark, upload in uploads:
            path = self._folder / mark / upload
            with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
                if locked(file.fileno()):
                    path.unlink()
                    self._sessions.pop((mark, upload), None)
                    gone += 1
        return gone

    def follow(self, scope: str, upload: str) -> FileReader:
        """Open an upload's file, which can be read on when it has another name or none."""
        try:
            return FileReader(os.open(self._folder / _mark(scope) / upload, os.O_RDONLY), self._threads)
        except FileNotFoundError as error:
            raise unknown_upload(upload) from error

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Do what blocks, to its end, and translate what the disk says."""
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
            raise translated(error) from error

    def _session(self, scope: str, upload: str) -> tuple[Path, _Session]:
        """Return an upload's file and what is known of it. Raises BlobUploadUnknownError."""
        mark = _mark(scope)
        path = self._folder / mark / upload
        session = self._sessions.get((mark, upload))
        if session is None:
            # From before this process began, if at all.
            if not _UPLOAD_ID.fullmatch(upload) or not path.exists():
                raise unknown_upload(upload)
            session = self._sessions.setdefault((mark, upload), _Session(hashed=0))
        return path, session


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
                raise translated(error) from error

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
            raise translated(error) from error

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


def modified(path: Path) -> float:
    """Return when a file changed last, in seconds since the epoch; one that is gone is not old."""
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


def translated(error: OSError) -> Exception:
    """Return what a full disk is for clients; anything else is what it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError("the disk of the registry is full", hint="tell whoever runs it; then push again")
    return error
