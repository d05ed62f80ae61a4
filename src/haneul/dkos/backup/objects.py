"""Sealed objects of a store: what is written is encrypted first, what is read was checked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import asdict
from typing import Any

from haneul.dkos.backup.names import Contents, Interruption, Mark, contents_of, facts_key, mark_key
from haneul.dkos.backup.ports import BackupStore
from haneul.dkos.backup.sealing import open_sealed, seal
from haneul.kernel.errors import BackupDamagedError, BackupIncompleteError, NotFoundError


class SealedObjects:
    """The objects of one cluster, under its key."""

    def __init__(self, store: BackupStore, cluster: str, key: bytes) -> None:
        self._store = store
        self._key = key
        self.cluster = cluster

    async def put(self, name: str, content: AsyncIterable[bytes]) -> int:
        """Keep an object; return how many bytes it takes."""
        return await self._store.put(name, seal(self._key, name, content))

    async def put_bytes(self, name: str, content: bytes) -> int:
        """Keep an object that is small."""

        async def whole() -> AsyncIterator[bytes]:
            yield content

        return await self.put(name, whole())

    async def put_document(self, name: str, document: Any) -> int:
        """Keep something that can be JSON."""
        return await self.put_bytes(name, json.dumps(document, sort_keys=True).encode())

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield an object's content. Raises BackupIncompleteError, BackupDamagedError."""
        try:
            async for part in open_sealed(self._key, name, self._store.read(name)):
                yield part
        except NotFoundError as error:
            raise BackupIncompleteError(f"{name} is not there", hint="restore another moment") from error

    async def read_bytes(self, name: str) -> bytes:
        """Return the content of an object that is small."""
        return b"".join([part async for part in self.read(name)])

    async def read_document(self, name: str) -> Any:
        """Return what :meth:`put_document` kept."""
        try:
            return json.loads(await self.read_bytes(name))
        except ValueError as error:
            raise BackupDamagedError(f"{name} cannot be read", hint="restore another moment") from error

    async def facts(self) -> dict[str, Any]:
        """Return what is known of the cluster itself."""
        found: dict[str, Any] = await self.read_document(facts_key(self.cluster))
        return found

    async def mark(self, generation: str) -> Mark | None:
        """Return until when a generation is complete, if that was written down."""
        try:
            found = await self.read_document(mark_key(self.cluster, generation))
            interruptions = tuple(Interruption(**one) for one in found.get("interruptions", ()))
            return Mark(found["complete"], found["revision"], interruptions)
        except BackupIncompleteError:
            return None

    async def put_mark(self, generation: str, mark: Mark) -> None:
        """Write down until when a generation is complete."""
        await self.put_document(mark_key(self.cluster, generation), asdict(mark))

    async def contents(self) -> Contents:
        """Return what there is, by name."""
        return contents_of(self.cluster, await self._store.list(f"{self.cluster}/"))

    async def delete(self, name: str) -> None:
        """Delete an object."""
        await self._store.delete(name)

    async def delete_all(self) -> None:
        """Delete everything of the cluster."""
        for entry in await self._store.list(f"{self.cluster}/"):
            await self._store.delete(entry.key)
