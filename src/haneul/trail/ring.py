"""The last records in memory, all of them in full detail, in so many bytes and no more.

Records are compressed in blocks; the oldest block goes when there is no room. What was frozen stays until it is let go,
while new records have a ring of their own: so both together take twice the bytes at most. Another thread adds than
the one that reads, therefore the lock.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from haneul.kernel.errors import ConflictError

_BLOCK: Final = 256 << 10
#: For speed: every request passes here, and what is kept is compressed again and better.
_LEVEL: Final = 1


@dataclass(frozen=True)
class _Block:
    first: int
    last: int
    count: int
    content: bytes


@dataclass(frozen=True)
class RingState:
    """How many records there are, in how many bytes, and since when (milliseconds since 1970; 0 if there is none)."""

    records: int
    size: int
    since: int
    frozen: bool
    frozen_records: int


class Ring:
    """``room`` is in bytes, compressed; records that are not in a block yet count as they are."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._blocks: deque[_Block] = deque()
        self._size = 0
        self._open: list[tuple[int, bytes]] = []
        self._open_size = 0
        self._frozen: tuple[_Block, ...] | None = None

    def add(self, started: int, line: bytes) -> None:
        """Add a record by when it started, in milliseconds since 1970; one that is larger than the ring is left out."""
        if len(line) > self._room:
            return
        with self._lock:
            if self._open and self._open_size + len(line) > min(_BLOCK, self._room):
                self._seal()
            self._open.append((started, line))
            self._open_size += len(line)
            while self._blocks and self._size + self._open_size > self._room:
                self._size -= len(self._blocks.popleft().content)

    def freeze(self) -> int:
        """Hold what there is now; return how many records. Raises ConflictError if something is held already."""
        with self._lock:
            if self._frozen is not None:
                raise ConflictError(
                    "the ring is frozen already, and what it had then would be lost",
                    hint="collect it, or let it go with --thaw",
                )
            self._seal()
            self._frozen = tuple(self._blocks)
            self._blocks.clear()
            self._size = 0
            return sum(block.count for block in self._frozen)

    def thaw(self) -> bool:
        """Let go what was held; return False if nothing was."""
        with self._lock:
            held, self._frozen = self._frozen is not None, None
            return held

    def newest_first(self, since: int) -> Iterator[bytes]:
        """Yield lines of what is held and of what came later, the newest first, back to a time in milliseconds."""
        with self._lock:
            later = list(reversed(self._open))
            blocks = [*(self._frozen or ()), *self._blocks]
        yield from _since(later, since)
        for block in reversed(blocks):
            if block.last >= since:
                yield from _since(reversed(_read(block)), since)

    def state(self) -> RingState:
        """Return what there is."""
        with self._lock:
            blocks = [*(self._frozen or ()), *self._blocks]
            held = sum(block.count for block in self._frozen or ())
            size = sum(len(block.content) for block in blocks) + self._open_size
            starts = [block.first for block in blocks] + [started for started, _ in self._open]
            count = sum(block.count for block in blocks) + len(self._open)
            return RingState(count, size, min(starts, default=0), self._frozen is not None, held)

    def _seal(self) -> None:
        if not self._open:
            return
        starts = [started for started, _ in self._open]
        # Beside each line the moment that it belongs to: nobody has to read JSON to leave a record out.
        text = b"".join(b"%d %s" % entry for entry in self._open)
        block = _Block(min(starts), max(starts), len(starts), zlib.compress(text, _LEVEL))
        self._blocks.append(block)
        self._size += len(block.content)
        self._open, self._open_size = [], 0


def _read(block: _Block) -> list[tuple[int, bytes]]:
    entries = []
    for text in zlib.decompress(block.content).splitlines(keepends=True):
        started, _, line = text.partition(b" ")
        entries.append((int(started), line))
    return entries


def _since(entries: Iterable[tuple[int, bytes]], since: int) -> Iterator[bytes]:
    for started, line in entries:
        if started >= since:
            yield line
