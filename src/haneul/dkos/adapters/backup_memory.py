"""Backups in memory: for trying things out, and for tests."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence

from haneul.dkos.backup.names import Entry
from haneul.kernel.errors import NotFoundError


class MemoryBackups:
    """Objects that end with the process."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    async def put(self, key: str, content: AsyncIterable[bytes]) -> int:
        """Keep an object."""
        whole = b"".join([part async for part in content])
        self._objects[key] = whole
        return len(whole)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield an object's bytes."""
        if key not in self._objects:
            raise NotFoundError(f"the backup has no object {key}")
        yield self._objects[key]

    async def list(self, prefix: str = "") -> Sequence[Entry]:
        """Return the objects whose names begin so."""
        return [Entry(key, len(whole)) for key, whole in sorted(self._objects.items()) if key.startswith(prefix)]

    async def delete(self, key: str) -> None:
        """Forget an object."""
        self._objects.pop(key, None)
