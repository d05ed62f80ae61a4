"""Records on their way to the store: gathered, written as chunks, tried again while it is away, removed when old.

What waits is bounded: when the store stays away, the oldest chunk that waits goes, and is counted.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from haneul.kernel.clock import Clock
from haneul.kernel.errors import UnavailableError
from haneul.trail.chunks import Chunk, ChunkName, make_chunk, parse_key, read_index
from haneul.trail.model import Record
from haneul.trail.ports import Catalogue, Objects

_log = structlog.get_logger(__name__)
CHUNK: Final = 8 << 20
_MOST_WAITING: Final = 4

Lines = list[tuple[Record, bytes]]


class Keeper:
    """Writes one cluster's chunks. Other threads may add; one task writes."""

    def __init__(self, cluster: str, objects: Objects, catalogue: Catalogue, clock: Clock) -> None:
        self._cluster = cluster
        self._objects = objects
        self._catalogue = catalogue
        self._clock = clock
        self._lock = threading.Lock()
        self._gathered: Lines = []
        self._size = 0
        self._since = clock.monotonic()
        self._waiting: deque[tuple[Lines, datetime]] = deque()
        #: Records that were dropped because the store was away too long.
        self.dropped = 0

    def add(self, record: Record, line: bytes) -> None:
        """Gather a record."""
        with self._lock:
            if not self._gathered:
                self._since = self._clock.monotonic()
            self._gathered.append((record, line))
            self._size += len(line)
            if self._size >= CHUNK:
                self._close()

    def is_due(self, seconds: float) -> bool:
        """Say whether something is to be written: a whole chunk, or one that has been waiting for so long."""
        with self._lock:
            old = bool(self._gathered) and self._clock.monotonic() - self._since >= seconds
            return old or bool(self._waiting)

    async def flush(self) -> None:
        """Write what was gathered. Raises TrailStoreAwayError; then it waits, and may be tried again."""
        with self._lock:
            self._close()
        while self._waiting:
            with self._lock:
                lines, gathered = self._waiting[0]
            await self.write(lines, "kept", gathered)
            with self._lock:
                # Meanwhile it may have been dropped.
                if self._waiting and self._waiting[0][0] is lines:
                    self._waiting.popleft()

    async def write(self, lines: Sequence[tuple[Record, bytes]], kind: str, now: datetime) -> ChunkName:
        """Write a chunk; it is of the day that is ``now``. Raises TrailStoreAwayError."""
        chunk = await asyncio.to_thread(self._made, lines, kind, now)
        await self._objects.put(chunk.name.content, chunk.content)
        await self._objects.put(chunk.name.index, chunk.index)
        try:
            await asyncio.to_thread(lambda: self._catalogue.add(chunk.name, read_index(chunk.index)))
        except UnavailableError as error:
            # It is in the store, and whoever searches takes it in.
            _log.warning("records are kept, but not in the catalogue yet", detail=error.detail)
        return chunk.name

    async def spent(self, now: datetime) -> tuple[int, int]:
        """Return the bytes that were kept and collected on this day (UTC) already. Raises TrailStoreAwayError."""
        day = f"{self._cluster}/{_day(now)}/"
        found = [name for key in await self._objects.keys(day) if (name := parse_key(key))]
        kept = sum(name.size for name in found if name.kind == "kept")
        return kept, sum(name.size for name in found if name.kind == "collected")

    async def remove_before(self, now: datetime, days: int) -> int:
        """Remove chunks that were written more than so many days ago; return how many. Raises TrailStoreAwayError."""
        oldest = _day(now - timedelta(days=days))
        keys = await self._objects.keys(f"{self._cluster}/")
        old = [name for key in keys if (name := parse_key(key)) and name.day < oldest]
        for name in old:
            # The index first: a chunk without one is not found.
            await self._objects.remove(name.index)
            await self._objects.remove(name.content)
        if old:
            await asyncio.to_thread(self._catalogue.forget, [name.index for name in old])
        return len(old)

    def _close(self) -> None:
        if not self._gathered:
            return
        self._waiting.append((self._gathered, self._clock.now()))
        self._gathered, self._size = [], 0
        while len(self._waiting) > _MOST_WAITING:
            self.dropped += len(self._waiting.popleft()[0])

    def _made(self, lines: Sequence[tuple[Record, bytes]], kind: str, now: datetime) -> Chunk:
        return make_chunk(self._cluster, lines, kind=kind, now=now, unique=secrets.token_hex(4))


def _day(now: datetime) -> str:
    return f"{now:%Y-%m-%d}"
