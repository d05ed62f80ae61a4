"""Backups as files in a folder: an object's name is its path.

A file gets its name only when all of it is on the disk, so a crash leaves the old one or the new one. Files that were
being written begin with a dot and are deleted by who opens the folder next for writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from haneul.dkos.backup.names import Entry
from haneul.kernel.errors import InvalidInputError, NotFoundError, UnavailableError
from haneul.kernel.files import sync

_T = TypeVar("_T")
_PIECE: Final = 1 << 20
_UNFINISHED: Final = ".unfinished-"


class FileBackups:
    """Objects as files below ``folder``, for their owner only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def tidy(self) -> None:
        """Delete what a process left that ended while it wrote. Nobody may be writing."""

        def work() -> None:
            for path in self._folder.rglob(f"{_UNFINISHED}*"):
                path.unlink(missing_ok=True)

        await asyncio.to_thread(work)

    async def put(self, key: str, content: AsyncIterable[bytes]) -> int:
        """Write a file beside its place, make it durable, and give it its name."""
        path = self._path(key)
        temporary = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
        size = 0
        try:
            descriptor = await _to_the_end(self._begin, temporary)
            try:
                async for part in content:
                    await _to_the_end(_write, descriptor, part)
                    size += len(part)
                await _to_the_end(os.fsync, descriptor)
            finally:
                os.close(descriptor)
            await _to_the_end(_name, temporary, path)
        except OSError as error:
            _forget(temporary)
            raise UnavailableError(
                f"the backup's folder cannot be written: {error.strerror}", hint="look at the disk of the backups"
            ) from error
        except BaseException:
            _forget(temporary)
            raise
        return size

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield a file's bytes."""
        try:
            handle = await asyncio.to_thread(self._path(key).open, "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFoundError(f"the backup has no object {key}") from error
        with handle:
            while part := await asyncio.to_thread(handle.read, _PIECE):
                yield part

    async def list(self, prefix: str = "") -> Sequence[Entry]:
        """Return the files whose names begin so."""
        # Only the folder that the prefix names in whole parts has to be looked through.
        top = self._folder / prefix.rpartition("/")[0]

        def work() -> list[Entry]:
            found = []
            for folder, _, files in os.walk(top):
                for name in files:
                    path = Path(folder, name)
                    key = path.relative_to(self._folder).as_posix()
                    if name.startswith(_UNFINISHED) or not key.startswith(prefix):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        found.append(Entry(key, path.stat().st_size))
            return sorted(found, key=lambda entry: entry.key)

        return await asyncio.to_thread(work)

    async def delete(self, key: str) -> None:
        """Delete a file, and its folder if it was the last one there."""

        def work() -> None:
            path = self._path(key)
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                for parent in path.parents:
                    if parent == self._folder:
                        break
                    parent.rmdir()

        await asyncio.to_thread(work)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(not part or part.startswith(".") for part in parts):
            raise InvalidInputError(f"{key!r} is no name of an object")
        return self._folder.joinpath(*parts)

    def _begin(self, temporary: Path) -> int:
        for _ in range(3):
            self._make_folder(temporary.parent)
            # Whoever deletes the last file of a folder deletes the folder, perhaps at this moment.
            with contextlib.suppress(FileNotFoundError):
                return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def _make_folder(self, folder: Path) -> None:
        missing = [
            path for path in (folder, *folder.parents) if path.is_relative_to(self._folder) and not path.exists()
        ]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            sync(path.parent)


async def _to_the_end(work: Callable[..., _T], *arguments: object) -> _T:
    """Do something in a thread; who is cancelled meanwhile waits for it, for it uses what is closed or deleted next."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _write(descriptor: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]


def _name(temporary: Path, path: Path) -> None:
    temporary.rename(path)
    sync(path.parent)


def _forget(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
