"""Content of a hub copied between the files of its folder and its bucket, under the same keys."""

from __future__ import annotations

import asyncio
import hashlib
import os
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

    async def size(self, key: str) -> int | None:
        """Ask for one object's bytes, of the object itself; None if it is not there."""
        with translated(self._bucket):
            try:
                return (await obstore.head_async(self._store, path_of(key)))["size"]
            except FileNotFoundError:
                return None

    async def put(self, key: str, file: Path) -> None:
        """Send a file."""
        with translated(self._bucket):
            await put_file(self._store, key, file, file.stat().st_size)

    async def get(self, key: str, size: int, file: Path) -> None:
        """Write an object into a file, which is there once it is whole, on the disk, and has the hash of its key."""
        algorithm, _, name = key.split("/")
        seen = hashlib.new(algorithm)
        partial = file.with_name(f".{file.name}.partial")
        with partial.open("wb") as target:
            for start in range(0, size, _RANGE):
                with translated(self._bucket):
                    end = min(start + _RANGE, size)
                    part = bytes(await obstore.get_range_async(self._store, path_of(key), start=start, end=end))
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

    async def clear(self) -> None:
        """Remove all content that a list shows."""
        keys = list(await self.sizes())
        with translated(self._bucket):
            for start in range(0, len(keys), _BATCH):
                await obstore.delete_async(self._store, [path_of(key) for key in keys[start : start + _BATCH]])
