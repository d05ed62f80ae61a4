"""What backups need of others: where objects are kept, and an etcd to back up."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from haneul.dkos.backup.names import Entry
from haneul.dkos.backup.segments import Change


class BackupStore(Protocol):
    """Keeps named objects. A name is parts of lower-case letters, digits and hyphens, with slashes between them."""

    async def put(self, key: str, content: AsyncIterable[bytes]) -> int:
        """Keep an object, in place of one of that name; return its size.

        When this returns, it is there for good; if it does not, or ``content`` raises, nothing changed.
        """
        ...

    def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield an object's bytes. Raises NotFoundError."""
        ...

    async def list(self, prefix: str = "") -> Sequence[Entry]:
        """Return the objects whose names begin so, by name; never one that is being written."""
        ...

    async def delete(self, key: str) -> None:
        """Make an object not be there."""
        ...


@dataclass(frozen=True)
class Identity:
    """Which etcd answers: the number of its cluster of members, and its revision."""

    cluster: int
    revision: int


@dataclass(frozen=True)
class Batch:
    """Changes of whole revisions as they come, in their order: number and changes of each."""

    revisions: tuple[tuple[int, tuple[Change, ...]], ...]


class WatchCompactedError(Exception):
    """The etcd does not know any more what came after the revision that was asked for."""


class EtcdSource(Protocol):
    """The etcd of one cluster. All methods raise UnavailableError when it does not answer."""

    async def identity(self) -> Identity:
        """Return which etcd it is and where it is, after all that it has acknowledged."""
        ...

    def snapshot(self) -> AsyncIterator[bytes]:
        """Yield the file of a snapshot."""
        ...

    def watch(self, revision: int) -> AsyncGenerator[Batch]:
        """Yield all changes from a revision on, until closed. Raises WatchCompactedError."""
        ...

    async def lease_life(self, lease: str) -> int:
        """Return for how many seconds a lease was granted; 0 if it is gone."""
        ...

    async def close(self) -> None:
        """End its connections."""
        ...
