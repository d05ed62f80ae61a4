"""The port ``Objects`` on a folder, in memory, or in a bucket with an S3 API, by obstore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore

from haneul.trail.ports import TrailStoreAwayError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_BATCH: Final = 1000


class StoredObjects:
    """Objects in one of obstore's stores."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name

    async def put(self, key: str, content: bytes) -> None:
        """Keep an object."""
        with self._translated():
            await obstore.put_async(self._store, key, content)

    async def get(self, key: str) -> bytes | None:
        """Return an object's content; None if there is none."""
        with self._translated():
            try:
                return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
            except FileNotFoundError:
                return None

    async def get_range(self, key: str, offset: int, length: int) -> bytes | None:
        """Return a part of an object; None if there is none."""
        with self._translated():
            try:
                return bytes(await obstore.get_range_async(self._store, key, start=offset, length=length))
            except FileNotFoundError:
                return None

    async def keys(self, prefix: str) -> list[str]:
        """Return all keys below a prefix, in order."""
        found: list[str] = []
        with self._translated():
            async for entries in obstore.list(self._store, prefix, chunk_size=_BATCH):
                found += [entry["path"] for entry in entries]
        return sorted(found)

    async def remove(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        with self._translated():
            try:
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                return

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            # The rest of its message is for whoever wrote the library.
            first = str(error).strip().partition("\n")[0][:300]
            raise TrailStoreAwayError(f"{self._name}: {first}", hint="records wait in the ring meanwhile") from error


def objects_in_memory() -> StoredObjects:
    """Return a store that is gone with the process."""
    return StoredObjects(MemoryStore(), "memory")


def objects_in_folder(folder: Path) -> StoredObjects:
    """Return a store in a folder, which is made, for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return StoredObjects(LocalStore(folder), str(folder))


def objects_in_bucket(store: ObjectStore, name: str) -> StoredObjects:
    """Return a store in a bucket, which has to be there."""
    return StoredObjects(store, f"the bucket {name}")
