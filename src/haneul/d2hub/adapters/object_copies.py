"""Content of a hub copied between the files of its folder and its bucket, under the same keys."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import obstore

from haneul.d2hub.adapters.object_blobs import path_of, put_file, translated
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.kernel.buckets import open_bucket
from haneul.kernel.errors import UnavailableError
from haneul.kernel.files import sync

_PREFIX: Final = "blobs/"
_BATCH: Final = 500
#: Objects that are asked for at once.
_AT_ONCE: Final = 16
_RANGE: Final = 16 << 20


class ObjectCopies:
    """A hub's bucket, as what is copied to or from. All raise BlobStoreAwayError, or StorageFullError."""

    def __init__(self, settings: ObjectSettings) -> None:
        self._bucket, self._store = settings.bucket, open_bucket(settings)

    async def sizes(self) -> dict[str, int]:
        """Return the keys of what a list of the bucket shows, with bytes; a list may be late."""
        found: dict[str, int] = {}
        with translated(self._bucket):
            async for entries in obstore.list(self._store, _PREFIX, chunk_size=_BATCH):
                found |= {entry["path"].removeprefix(_PREFIX): entry["size"] for entry in entries}
        return found

    async def sizes_of(self, keys: Iterable[str]) -> dict[str, int]:
        """Ask each object itself, whatever a list shows; return those that are there, with bytes."""
        wanted, found = list(keys), dict[str, int]()
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            sizes = await asyncio.gather(*map(self._size, some))
            found |= {key: size for key, size in zip(some, sizes, strict=True) if size is not None}
        return found

    async def put(self, key: str, file: Path) -> None:
        """Send a file."""
        with translated(self._bucket):
            await put_file(self._store, key, file, file.stat().st_size)

    async def get(self, key: str, size: int, file: Path) -> bool:
        """Write an object into a file, which is there once it is whole, on the disk, and has the hash of its key.

        Return False, and leave no file, if there is no such object. Raises UnavailableError if it has another hash.
        """
        algorithm, _, name = key.split("/")
        seen = hashlib.new(algorithm)
        partial = file.with_name(f".{file.name}.partial")
        with partial.open("wb") as target:
            for start in range(0, size, _RANGE):
                part = await self._part(key, start, min(start + _RANGE, size))
                if part is None:
                    partial.unlink()
                    return False
                await asyncio.to_thread(seen.update, part)
                await asyncio.to_thread(target.write, part)
            target.flush()
            await asyncio.to_thread(os.fsync, target.fileno())
        if seen.hexdigest() != name.partition(".")[0]:
            partial.unlink()
            raise UnavailableError(
                f"{key} is not in the bucket as it was put there",
                hint="look whether all zones of the store run, then try again",
            )
        partial.rename(file)
        await asyncio.to_thread(sync, file.parent)
        return True

    async def clear(self) -> None:
        """Remove all content that a list shows."""
        keys = list(await self.sizes())
        with translated(self._bucket):
            for start in range(0, len(keys), _BATCH):
                await obstore.delete_async(self._store, [path_of(key) for key in keys[start : start + _BATCH]])

    async def _size(self, key: str) -> int | None:
        with translated(self._bucket):
            try:
                return (await obstore.head_async(self._store, path_of(key)))["size"]
            except FileNotFoundError:
                return None

    async def _part(self, key: str, start: int, end: int) -> bytes | None:
        with translated(self._bucket):
            try:
                return bytes(await obstore.get_range_async(self._store, path_of(key), start=start, end=end))
            except FileNotFoundError:
                return None
