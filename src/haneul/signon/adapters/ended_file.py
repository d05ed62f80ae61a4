"""Sessions that were ended before their time, in a file that a gate which starts anew reads.

A line is the moment at which the session would have ended by itself, and its id. Several gates of one machine may use
one file: each sees within a second what another wrote.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from filelock import FileLock

from haneul.kernel.clock import Clock
from haneul.kernel.files import write_atomically

_OWNER_ONLY: Final = 0o600
_LOOK_SECONDS: Final = 1.0
_LOCK_SECONDS: Final = 10.0


class EndedFile:
    """The file, and what is known of it."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = FileLock(f"{path}.lock", timeout=_LOCK_SECONDS, mode=_OWNER_ONLY)
        self._until: dict[str, int] = {}
        self._read_to = 0
        self._looked = 0.0
        with self._lock:
            self._read()
            now = int(clock.now().timestamp())
            self._until = {session: until for session, until in self._until.items() if until > now}
            text = "".join(f"{until} {session}\n" for session, until in self._until.items())
            write_atomically(path, text, mode=_OWNER_ONLY)
            self._read_to = len(text)
            self._file = path.stat().st_ino

    def end(self, session: str, until: int) -> None:
        """Remember that a session is over. It is, here, even if it cannot be written down."""
        self._until[session] = until
        with self._lock, self._path.open("a") as file:
            file.write(f"{until} {session}\n")
            file.flush()
            os.fsync(file.fileno())

    def ended(self, session: str) -> bool:
        """Say whether a session is over."""
        now = self._clock.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._read()
        return session in self._until

    def _read(self) -> None:
        """Take in what was written since; the file may have been begun anew."""
        try:
            found = self._path.stat()
            if found.st_ino != getattr(self, "_file", found.st_ino) or found.st_size < self._read_to:
                self._file, self._read_to = found.st_ino, 0
            if found.st_size == self._read_to:
                return
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                content = file.read()
        except OSError:
            # What is known stays known.
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.decode("ascii", "replace").splitlines():
            until, _, session = line.partition(" ")
            if until.isdecimal() and session:
                self._until[session] = int(until)
