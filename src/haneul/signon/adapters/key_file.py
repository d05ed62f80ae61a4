"""The keys in a file that nobody but its owner may read, and which others may change at any time."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock

from haneul.kernel.clock import Clock
from haneul.kernel.errors import ForbiddenError, HaneulError, InvalidInputError
from haneul.kernel.files import NotPrivateError, read_private, write_atomically
from haneul.signon.keyring import Key, Keyring, as_text, from_text, new_key, rotated

_log = structlog.get_logger(__name__)
_OWNER_ONLY: Final = 0o600
_LOOK_SECONDS: Final = 5.0
_LOOK_AT_MOST: Final = 1.0
_LOCK_SECONDS: Final = 10.0


class KeyFile:
    """The keys of one domain, read anew when their file changes."""

    def __init__(self, domain: str, path: Path, *, clock: Clock) -> None:
        self._domain = domain
        self._path = path
        self._clock = clock
        self._looked = clock.monotonic()
        self._mark = _mark(path)
        self._ring = Keyring(domain, read_keys(path))

    def current(self) -> Keyring:
        """Return the keys; their file is looked at every few seconds."""
        return self._seen(_LOOK_SECONDS)

    def seen_anew(self) -> Keyring:
        """Return the keys; their file is looked at now, unless it just was."""
        return self._seen(_LOOK_AT_MOST)

    def _seen(self, seconds: float) -> Keyring:
        now = self._clock.monotonic()
        if now - self._looked < seconds:
            return self._ring
        self._looked = now
        try:
            mark = _mark(self._path)
            if mark != self._mark:
                self._ring, self._mark = Keyring(self._domain, read_keys(self._path)), mark
                _log.info("other keys from now on")
        except (OSError, HaneulError) as error:
            # What was read before goes on: a file that is being put there must not sign everybody out.
            _log.warning("the file of keys cannot be used", error=str(error))
        return self._ring


def make_keys(path: Path, *, clock: Clock) -> None:
    """Make the file if it is not there."""
    if path.exists():
        # A gate that may read its keys need not be let write beside them.
        return
    with _changing(path):
        if not path.exists():
            write_atomically(path, as_text([new_key(clock.now())]), mode=_OWNER_ONLY)


def rotate_keys(path: Path, *, life: timedelta, end_sessions: bool, clock: Clock) -> int:
    """Add a key and take away what is not needed; return how many there are.

    With ``end_sessions`` all others go, so that nothing that was sealed before is good any more.
    """
    with _changing(path):
        now = clock.now()
        keys: list[Key] = [new_key(now)] if end_sessions else rotated(read_keys(path), now=now, life=life)
        write_atomically(path, as_text(keys), mode=_OWNER_ONLY, owner=_owner(path))
        return len(keys)


def read_keys(path: Path) -> list[Key]:
    """Return the keys. Raises InvalidInputError and ForbiddenError."""
    try:
        return from_text(read_private(path))
    except NotPrivateError as error:
        raise ForbiddenError(f"others than its owner may read {path}", hint=f"chmod 600 {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}", hint="'keysFile' names it") from error


def _changing(path: Path) -> FileLock:
    return FileLock(f"{path}.lock", timeout=_LOCK_SECONDS, mode=_OWNER_ONLY)


def _owner(path: Path) -> tuple[int, int] | None:
    """Return whose the file stays when root changes it, which may be a gate that is somebody else."""
    if os.geteuid() != 0 or not path.exists():
        return None
    found = path.stat()
    return found.st_uid, found.st_gid


def _mark(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
