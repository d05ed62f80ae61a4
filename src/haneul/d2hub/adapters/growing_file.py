"""Reads a file that another hand still writes."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

#: Bytes that are read without another thread.
_INLINE: Final = 64 << 10


class FileReader:
    """Reads a file that grows."""

    def __init__(self, descriptor: int, threads: ThreadPoolExecutor) -> None:
        self._descriptor, self._threads = descriptor, threads
        self._reading: asyncio.Future[bytes] | None = None

    async def read(self, at: int, most: int) -> bytes:
        """Read what is there, in a thread if that is much."""
        there = min(os.fstat(self._descriptor).st_size - at, most)
        if there <= 0:
            return b""
        if there <= _INLINE:
            return os.pread(self._descriptor, there, at)
        loop = asyncio.get_running_loop()
        self._reading = loop.run_in_executor(self._threads, os.pread, self._descriptor, there, at)
        return await self._reading

    def close(self) -> None:
        """Close the file, after a read that nobody waits for any more."""
        if self._reading is None or self._reading.done():
            os.close(self._descriptor)
        else:
            self._reading.add_done_callback(lambda _: os.close(self._descriptor))
