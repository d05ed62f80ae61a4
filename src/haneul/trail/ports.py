"""What the trail needs of others: where objects are kept, where records come from, and a nginx to replay at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from haneul.kernel.errors import UnavailableError
from haneul.trail.chunks import ChunkName, Index
from haneul.trail.model import Record


class TrailStoreAwayError(UnavailableError):
    """The store of records does not answer, or does not take what it is given."""

    code = "trail-store-away"
    title = "The store of audit records does not answer"


class Objects(Protocol):
    """Objects by their keys. All methods raise TrailStoreAwayError."""

    async def put(self, key: str, content: bytes) -> None:
        """Keep an object; one of this key is replaced."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return an object's content; None if there is none."""
        ...

    async def get_range(self, key: str, offset: int, length: int) -> bytes | None:
        """Return a part of an object; None if there is none."""
        ...

    async def keys(self, prefix: str) -> list[str]:
        """Return all keys below a prefix that ends with ``/``, in order."""
        ...

    async def remove(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...


@dataclass(frozen=True)
class Question:
    """What is searched for; times in milliseconds since 1970, ``path`` with ``*`` at its end for what begins so."""

    cluster: str
    since: int
    until: int
    host: str = ""
    path: str = ""
    #: A number, or a class such as ``5xx``.
    status: str = ""
    client: str = ""
    request_id: str = ""
    limit: int = 100


def status_range(text: str) -> tuple[int, int]:
    """Return the first and the last status that ``404`` or ``5xx`` means. Raises ValueError."""
    if len(text) == 3 and text[0] in "12345" and text[1:].lower() == "xx":
        return int(text[0]) * 100, int(text[0]) * 100 + 99
    if len(text) == 3 and text.isascii() and text.isdigit():
        return int(text), int(text)
    raise ValueError(f"{text!r} is no status such as 404 or 5xx")


@dataclass(frozen=True)
class Hit:
    """Where a record lies that answers a question."""

    chunk: str
    offset: int
    length: int
    line: int
    started: int


class Catalogue(Protocol):
    """The indexes of all chunks, where questions are answered fast. It may be lost: it is made anew of the store."""

    def chunks(self) -> set[str]:
        """Return the keys of the indexes that it has."""
        ...

    def add(self, name: ChunkName, index: Index) -> None:
        """Take in a chunk's index; one that it has already is left as it is."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Take out chunks by the keys of their indexes."""
        ...

    def find(self, question: Question) -> list[Hit]:
        """Return what answers, the newest first."""
        ...


class Source(Protocol):
    """Where ModSecurity's records come from."""

    def take(self, most: int) -> Taken:
        """Return what came since, at most so many records; what is taken is gone there."""
        ...


@dataclass(frozen=True)
class Written:
    """One transaction as it was written, and when, in seconds since 1970."""

    content: bytes
    ended: float


@dataclass(frozen=True)
class Taken:
    """What came; ``more`` if there was more than was asked for, ``lost`` counts what was no whole file."""

    written: tuple[Written, ...]
    more: bool = False
    lost: int = 0


@dataclass(frozen=True)
class Verdict:
    """What rules say of one replayed request."""

    rules: frozenset[str]
    messages: Mapping[str, str]


class Firewall(Protocol):
    """A real ModSecurity to which requests are sent once more."""

    async def verdicts(self, records: Sequence[Record], exclusions: str) -> list[Verdict | None]:
        """Return, for each record, what rules say with these exclusions; None where there was no answer."""
        ...
