"""Blobs in memory: for tests, simulations, and registries that end with their process."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence

from haneul.d2hub.digests import digest_of, parse_digest
from haneul.d2hub.errors import BlobUploadUnknownError, DigestInvalidError, RangeNotSatisfiableError
from haneul.d2hub.model import BytesContent, StoredBlob


class MemoryReader:
    """Reads bytes that grow."""

    def __init__(self, held: bytearray) -> None:
        self._held = held

    async def read(self, at: int, most: int) -> bytes:
        """Return what is there."""
        return bytes(self._held[at : at + most])

    def close(self) -> None:
        """Do nothing: memory goes by itself."""


class MemoryBlobs:
    """A store that is gone with its process."""

    def __init__(self) -> None:
        self._uploads: dict[tuple[str, str], bytearray] = {}
        self._content: dict[str, bytes] = {}
        self._changed: dict[object, float] = {}
        self._turns: dict[tuple[str, str], asyncio.Lock] = {}

    async def begin(self, scope: str) -> str:
        """Begin with nothing."""
        upload = secrets.token_hex(16)
        self._uploads[scope, upload] = bytearray()
        self._changed[scope, upload] = time.monotonic()
        return upload

    async def append(self, scope: str, upload: str, parts: AsyncIterator[bytes], *, at: int | None = None) -> int:
        """Add bytes."""
        held = self._held(scope, upload)
        async with self._turns.setdefault((scope, upload), asyncio.Lock()):
            if at is not None and at != len(held):
                raise RangeNotSatisfiableError(f"the next part begins at byte {len(held)}, not {at}")
            async for part in parts:
                held += part
        self._changed[scope, upload] = time.monotonic()
        return len(held)

    async def size(self, scope: str, upload: str) -> int:
        """Return the length."""
        return len(self._held(scope, upload))

    async def finish(self, scope: str, upload: str, digest: str) -> StoredBlob:
        """Check the hash and keep the bytes."""
        wanted = parse_digest(digest)
        held = self._held(scope, upload)
        data = bytes(held)
        await self.cancel(scope, upload)
        found = digest_of(data, wanted.algorithm)
        if found != wanted:
            raise DigestInvalidError(
                f"the {len(data)} bytes that arrived have the digest {found}, not {digest}",
                hint="begin the upload again",
            )
        key = f"{digest}.{secrets.token_hex(6)}"
        self._content[key] = data
        self._changed[key] = time.monotonic()
        return StoredBlob(digest, key, len(data))

    async def cancel(self, scope: str, upload: str) -> None:
        """Drop the bytes."""
        self._held(scope, upload)
        del self._uploads[scope, upload], self._changed[scope, upload]
        self._turns.pop((scope, upload), None)

    async def content(self, key: str) -> BytesContent | None:
        """Return the bytes."""
        data = self._content.get(key)
        return None if data is None else BytesContent(data)

    async def remove(self, keys: Sequence[str]) -> None:
        """Drop content."""
        for key in keys:
            self._content.pop(key, None)
            self._changed.pop(key, None)

    async def strays(self, *, older_than: float) -> tuple[Sequence[str], Sequence[tuple[str, str]]]:
        """Look at what is old enough."""
        limit = time.monotonic() - older_than
        keys = [key for key in self._content if self._changed[key] < limit]
        return keys, [upload for upload in self._uploads if self._changed[upload] < limit]

    async def abandon(self, uploads: Sequence[tuple[str, str]]) -> int:
        """Drop uploads that nobody has the turn of."""
        taken = {upload for upload, turn in self._turns.items() if turn.locked()}
        idle = [upload for upload in uploads if upload in self._uploads and upload not in taken]
        for upload in idle:
            self._uploads.pop(upload, None)
            self._turns.pop(upload, None)
            self._changed.pop(upload, None)
        return len(idle)

    def follow(self, scope: str, upload: str) -> MemoryReader:
        """Read the same bytes that the upload grows in."""
        return MemoryReader(self._held(scope, upload))

    def _held(self, scope: str, upload: str) -> bytearray:
        try:
            return self._uploads[scope, upload]
        except KeyError as error:
            raise BlobUploadUnknownError(
                f"this repository has no upload {upload[:40]!r}", hint="begin a new one"
            ) from error
