"""Moves the content of a hub that does not run: from the files of its folder into a bucket, or back.

```
DATA/store.owner    the mark by which the bucket knows the hub, for good: what a list of it shows late is not another's
DATA/store.moving   is there from the first copy until nothing is there twice any more
DATA/store.id       the same mark as the first, while the bucket is where content is, not files
```

Content is copied under the keys that it has, so that the database need not know. ``store.id`` comes, or goes, at one
instant, after all copies are there and before any of what was copied is removed: whoever is ended at any moment loses
nothing, and the same move, or the other one, finishes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from haneul.app.d2hub_folder import in_use
from haneul.d2hub.adapters.file_blobs import FileBlobs
from haneul.d2hub.adapters.object_blobs import ObjectBlobs
from haneul.d2hub.adapters.object_copies import ObjectCopies
from haneul.d2hub.adapters.object_settings import ObjectSettings
from haneul.d2hub.errors import StorageFullError
from haneul.kernel.errors import ConflictError
from haneul.kernel.files import sync, write_atomically

_PRIVATE: Final = 0o600
#: Bytes that stay free besides what is copied.
_SPARE: Final = 1 << 30
_MIB: Final = 1 << 20
#: Told of progress, in words for people.
Told = Callable[[str], None]


class ContentMove:
    """The content of the hub in one folder, and a bucket, which has so many ``copies`` of each object on that disk."""

    def __init__(self, data: Path, settings: ObjectSettings, *, copies: int, told: Told) -> None:
        self._times = copies
        self._data, self._settings, self._told = data, settings, told
        self._copies = ObjectCopies(settings)
        self._blobs = data / "blobs"
        self._owner, self._moving, self._mark = data / "store.owner", data / "store.moving", data / "store.id"

    async def into_bucket(self) -> None:
        """Have all content in the bucket alone. Raises ConflictError if it is another's, BlobStoreAwayError."""
        with in_use(self._data, shared=False):
            mark = self._begin()
            await self._claim(mark)
            if not self._mark.exists():
                await self._fill_bucket()
                write_atomically(self._mark, mark, mode=_PRIVATE)
            if self._blobs.exists():
                shutil.rmtree(self._blobs)
                sync(self._data)
            self._end()

    async def into_files(self) -> None:
        """Have all content in files alone. Raises ConflictError, with nothing changed, if some is not to be had."""
        with in_use(self._data, shared=False):
            mark = self._begin()
            await self._claim(mark)
            if self._mark.exists():
                await self._fill_files()
                self._mark.unlink()
                sync(self._data)
            await self._copies.clear()
            self._end()

    def _begin(self) -> str:
        """Return the hub's mark, with a note that a move is under way."""
        kept = next((path.read_text() for path in (self._mark, self._owner) if path.exists()), "")
        mark = kept or secrets.token_hex(16)
        write_atomically(self._owner, mark, mode=_PRIVATE)
        write_atomically(self._moving, "", mode=_PRIVATE)
        return mark

    def _end(self) -> None:
        self._moving.unlink()
        sync(self._data)

    async def _claim(self, mark: str) -> None:
        store = ObjectBlobs(self._data, self._settings, redirects=False)
        try:
            await store.claim(mark)
        finally:
            store.close()

    async def _fill_bucket(self) -> None:
        files = {str(path.relative_to(self._blobs)): path for path in self._blobs.glob("*/*/*") if _is_whole(path)}
        sizes = {key: path.stat().st_size for key, path in files.items()}
        # A list may be late, and show what was removed: files go only for what answers itself.
        there = await self._copies.sizes_of(sizes)
        missing = [key for key, size in sizes.items() if there.get(key) != size]
        self._see_room(sum(sizes[key] for key in missing) * self._times)
        for key in self._one_by_one(missing, sizes):
            await self._copies.put(key, files[key])
        there = await self._copies.sizes_of(missing)
        for key in missing:
            if there.get(key) != sizes[key]:
                raise ConflictError(
                    f"{key} did not arrive in the bucket {self._settings.bucket} whole", hint="try again"
                )

    async def _fill_files(self) -> None:
        # It makes the folders that files of content lie in.
        FileBlobs(self._data).close()
        known = _known(self._data / "hub.db")
        # What the database knows has to be there, whatever a list shows. What it does not know is not for us to judge,
        # and may be gone already, for a list may be late.
        sizes = await self._copies.sizes_of({**await self._copies.sizes(), **known})
        for key, size in known.items():
            if sizes.get(key) != size:
                raise self._wanting(key)
        missing = [key for key, size in sizes.items() if _size(self._blobs / key) != size]
        self._see_room(sum(sizes[key] for key in missing))
        for key in self._one_by_one(missing, sizes):
            if not await self._copies.get(key, sizes[key], self._blobs / key) and key in known:
                raise self._wanting(key)

    def _wanting(self, key: str) -> ConflictError:
        return ConflictError(
            f"{key} is not in the bucket {self._settings.bucket}, but {self._data} knows of it",
            hint="look whether all zones of the store run, then try again",
        )

    def _see_room(self, wanted: int) -> None:
        free = shutil.disk_usage(self._data).free
        if wanted + _SPARE > free:
            raise StorageFullError(
                f"{wanted // _MIB} MiB are to be copied, and {free // _MIB} MiB are free",
                hint="make room, then try again",
            )

    def _one_by_one(self, keys: list[str], sizes: dict[str, int]) -> Iterable[str]:
        """Yield keys, and tell how far one has come."""
        total, done = sum(sizes[key] for key in keys), 0
        for number, key in enumerate(keys):
            self._told(f"{number} of {len(keys)} blobs, {done // _MIB} of {total // _MIB} MiB")
            yield key
            done += sizes[key]


def _known(database: Path) -> dict[str, int]:
    """Return the keys that a hub's own database knows, with bytes."""
    if not database.exists():
        return {}
    with closing(sqlite3.connect(database)) as connection:
        return dict(connection.execute("SELECT key, size FROM blobs").fetchall())


def _is_whole(path: Path) -> bool:
    """Say whether a file is content, not what a move that was ended had begun."""
    return not path.name.startswith(".")


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - as Path.stat
    except FileNotFoundError:
        return None
