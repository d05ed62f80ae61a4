"""Blobs in files: uploads become content by getting another name.

```
blobs/sha256/4b/4b8f…e1.9c31d2a07f66   content: its hash, and a mark that no other copy has
```

Content lies under a name that is used once and is written down (in the database) only after it is on the disk. So a
crash leaves at most files that nobody knows, which a collection removes, and no reader ever sees half of anything.
Several processes may have one folder, as they may have its uploads.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from haneul.d2hub.adapters.content_keys import new_content_key
from haneul.d2hub.adapters.file_uploads import FileUploads, modified
from haneul.d2hub.adapters.growing_file import FileReader
from haneul.d2hub.digests import ALGORITHMS, parse_digest
from haneul.d2hub.model import FileContent, StoredBlob
from haneul.kernel.files import sync


class FileBlobs:
    """A store in one folder of a local file system."""

    def __init__(self, folder: Path) -> None:
        self._blobs, self._uploads = folder / "blobs", FileUploads(folder)
        for algorithm in ALGORITHMS:
            for number in range(256):
                (self._blobs / algorithm / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
            sync(self._blobs / algorithm)
        for made in (self._blobs, folder):
            sync(made)

    def close(self) -> None:
        """Let threads end."""
        self._uploads.close()

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
        """Check the hash, give the file its name, and wait until both are on the disk."""
        wanted = parse_digest(digest)
        key = new_content_key(wanted)
        async with self._uploads.ending(scope, upload) as ending:

            def settle() -> int:
                size = ending.verify(wanted)
                target = self._blobs / key
                ending.path.rename(target)
                sync(target)
                sync(target.parent)
                return size

            return StoredBlob(digest, key, await self._uploads.in_thread(settle))

    async def cancel(self, scope: str, upload: str) -> None:
        """Remove the file."""
        await self._uploads.cancel(scope, upload)

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

        await self._uploads.in_thread(unlink)

    async def strays(self, *, older_than: float) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
        """Look through all folders."""

        def look() -> list[str]:
            limit = time.time() - older_than
            return [str(path.relative_to(self._blobs)) for path in self._blobs.glob("*/*/*") if modified(path) < limit]

        return await self._uploads.in_thread(look), await self._uploads.old(older_than=older_than)

    async def abandon(self, uploads: Sequence[tuple[str, str]]) -> int:
        """Remove uploads' files, except those that a process is writing."""
        return await self._uploads.abandon(uploads)

    def follow(self, scope: str, upload: str) -> FileReader:
        """Open the upload's file, which can be read on after it got another name or none."""
        return self._uploads.follow(scope, upload)
