"""How records lie in an object store: chunks of compressed lines, each with an index beside it. Pure.

```
CLUSTER/2026-11-27/1795815002006-1795815061998-420-1310720-kept-5a4c329a.jsonl.gz    records
CLUSTER/2026-11-27/1795815002006-1795815061998-420-1310720-kept-5a4c329a.index.gz    where each lies
```

The name says from when to when, how many records, how many bytes of a budget, and whether they were kept by themselves
or collected by somebody. A chunk is a file of gzip (RFC 1952) with many members, a block each, so that one block is
read without the others, and any tool reads the whole. The index is written last: a chunk without one is not there yet.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from haneul.trail.model import Record, UnreadableError

_BLOCK: Final = 128 << 10
_LEVEL: Final = 6
_KEY: Final = re.compile(
    r"([a-z0-9.-]{1,63})/(\d{4}-\d\d-\d\d)/(\d{1,15})-(\d{1,15})-(\d{1,9})-(\d{1,15})-(kept|collected)-([0-9a-f]{8,32})\.index\.gz"
)


@dataclass(frozen=True)
class ChunkName:
    """What a chunk's name says; times in milliseconds since 1970, ``size`` in bytes before compression."""

    cluster: str
    day: str
    first: int
    last: int
    records: int
    size: int
    kind: str
    unique: str

    @property
    def _stem(self) -> str:
        numbers = f"{self.first}-{self.last}-{self.records}-{self.size}"
        return f"{self.cluster}/{self.day}/{numbers}-{self.kind}-{self.unique}"

    @property
    def content(self) -> str:
        """Return where the records are."""
        return f"{self._stem}.jsonl.gz"

    @property
    def index(self) -> str:
        """Return where their index is."""
        return f"{self._stem}.index.gz"


@dataclass(frozen=True)
class Entry:
    """What the index says of a record; ``block`` and ``line`` are numbers from 0."""

    started: int
    status: int
    client: str
    request_id: str
    host: str
    path: str
    block: int
    line: int


@dataclass(frozen=True)
class Index:
    """Where blocks begin and how long they are, in bytes, and what each record is found by."""

    blocks: tuple[tuple[int, int], ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Chunk:
    """A chunk as it is written."""

    name: ChunkName
    content: bytes
    index: bytes


def make_chunk(
    cluster: str, records: Sequence[tuple[Record, bytes]], *, kind: str, now: datetime, unique: str
) -> Chunk:
    """Return a chunk of records with their lines; there has to be one at least. It is of the day that is ``now``."""
    blocks: list[tuple[int, int]] = []
    entries: list[Entry] = []
    content = bytearray()
    gathered: list[bytes] = []
    size = 0

    def close() -> None:
        nonlocal gathered, size
        member = gzip.compress(b"".join(gathered), _LEVEL, mtime=0)
        blocks.append((len(content), len(member)))
        content.extend(member)
        gathered, size = [], 0

    for record, line in records:
        if gathered and size + len(line) > _BLOCK:
            close()
        place = (len(blocks), len(gathered))
        found = (record.started, record.status, record.client, record.request_id, record.host, record.path)
        entries.append(Entry(*found, *place))
        gathered.append(line)
        size += len(line)
    close()
    starts = [entry.started for entry in entries]
    name = ChunkName(
        cluster,
        now.astimezone(UTC).date().isoformat(),
        min(starts),
        max(starts),
        len(entries),
        sum(len(line) for _, line in records),
        kind,
        unique,
    )
    rows = [
        [one.started, one.status, one.client, one.request_id, one.host, one.path, one.block, one.line]
        for one in entries
    ]
    index = gzip.compress(
        json.dumps({"blocks": blocks, "entries": rows}, separators=(",", ":")).encode(), _LEVEL, mtime=0
    )
    return Chunk(name, bytes(content), index)


def parse_key(key: str) -> ChunkName | None:
    """Return what the name of an index says; None if it is none of ours."""
    found = _KEY.fullmatch(key)
    if not found:
        return None
    cluster, day, first, last, records, size, kind, unique = found.groups()
    return ChunkName(cluster, day, int(first), int(last), int(records), int(size), kind, unique)


def read_index(content: bytes) -> Index:
    """Return what an index says. Raises UnreadableError."""
    try:
        document = json.loads(gzip.decompress(content))
        blocks = tuple((int(offset), int(length)) for offset, length in document["blocks"])
        return Index(blocks, tuple(Entry(*row) for row in document["entries"]))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise UnreadableError("it is no index of records") from error


def read_block(content: bytes) -> list[bytes]:
    """Return a block's lines. Raises UnreadableError."""
    try:
        return gzip.decompress(content).splitlines(keepends=True)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("it is no block of records") from error
