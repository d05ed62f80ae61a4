"""What a balancer on this machine serves, as it is written down: one file, whole and at once; all else follows from it.

Several clusters' controllers use one balancer, each a process of its own, so a lock in the folder is held by whoever
reads what it is about to change.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from filelock import AsyncFileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from haneul.balancer.model import Frontends, Listener, Present
from haneul.kernel.errors import InvalidInputError, UnavailableError
from haneul.kernel.files import write_atomically

_LOCK_SECONDS: Final = 60.0
_PAUSE: Final = 0.05
_TRUTH: Final = TypeAdapter(tuple[Present, ...])


class Truth:
    """The file ``frontends.json`` in a balancer's folder, and the lock beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "frontends.json"
        self._turn = asyncio.Lock()
        #: What was read last: with many frontends that is work.
        self._read: tuple[bytes, dict[Listener, Present]] | None = None

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep all others off. Raises UnavailableError after a minute without it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = AsyncFileLock(self.folder / "lock", timeout=_LOCK_SECONDS, poll_interval=_PAUSE, run_in_executor=False)
        try:
            async with self._turn, lock:
                yield
        except Timeout as error:
            raise UnavailableError(f"{self.folder} is locked by another controller for too long") from error

    def load(self) -> dict[Listener, Present]:
        """Return what is written down. Raises InvalidInputError if somebody else wrote it."""
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        if self._read is not None and self._read[0] == text:
            return self._read[1]
        try:
            present = {there.frontend.listener: there for there in _TRUTH.validate_json(text)}
        except ValidationError as error:
            raise InvalidInputError(
                f"{self._file} is not as it was written: {error.error_count()} errors",
                hint="put it back from a copy, or take it away: what clusters ask for is written into it again",
            ) from error
        self._read = (text, present)
        return present

    def store(self, present: Frontends) -> None:
        """Write down what is served from now on."""
        ordered = tuple(present[listener] for listener in sorted(present))
        write_atomically(self._file, _TRUTH.dump_json(ordered, indent=1), mode=0o600)
