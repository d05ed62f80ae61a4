"""The folder into which ModSecurity writes each transaction as a file of its own, and which never fills a disk.

```
SPOOL/20261127/20261127-2130/20261127-213002-NAME     NAME is the transaction's (haneul.trail.model.Mark)
```

ModSecurity names folders by the minute in which a request began, in local time, and would make them itself; but workers
may not write into SPOOL or a day. So they write only where whoever reads has made the minute: this one and the next. If
the reader is dead or stopped, the open minutes pass, and from then on nothing is written. nginx never waits for the
reader: it makes a file or it does not, without a lock, a pipe or a connection. Where the reader lives but does not keep
up, it closes the minutes above ``room`` and opens them again at the half. Where SPOOL is a file system of its own in
memory (:mod:`haneul.trail.adapters.memory_folder`), its size is a bound besides, whatever happens.

A minute's folder is left for an hour, for requests that take long; longer ones leave no record.

Workers may have been taken over, and whoever reads may be root: only plain files of a minute are read, never what a
link leads to, and nothing that could be waited for.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from haneul.kernel.clock import Clock
from haneul.trail.model import LARGEST
from haneul.trail.ports import Taken, Written

_ENTER: Final = 0o711
_WRITE: Final = 0o700
_SHUT: Final = 0
_HOUR: Final = timedelta(hours=1)
#: No minute is called something later.
_LAST: Final = "99991231-2359"
#: A file is written at once; one that is not whole after so many seconds never will be.
_PATIENCE: Final = 5.0


class Spool:
    """``user`` is whom nginx's workers run as, empty if as the caller; ``room`` is in bytes.

    A user without a name is a number, and the user's group has the same.
    """

    def __init__(self, folder: Path, *, user: str | int, room: int, clock: Clock) -> None:
        self._folder = folder
        self._user = user
        self._room = room
        self._clock = clock
        self._shut = False

    def prepare(self) -> None:
        """Make the folder, and open it for now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(_ENTER if os.geteuid() == 0 else 0o500)
        self.tend()

    def tend(self) -> None:
        """Open this minute and the next, or shut all if there is no room; remove what nobody writes into any more."""
        used = sum(size for _, size in self._files())
        if used > self._room:
            self._shut = True
        elif used <= self._room // 2:
            self._shut = False
        now = self._clock.now().astimezone()
        for minute in (now, now + timedelta(minutes=1)):
            self._open(minute)
        oldest = f"{now - _HOUR:%Y%m%d-%H%M}"
        for folder in self._minutes():
            if not oldest < folder.name <= _LAST:
                # Folders of a worker that was taken over may be deeper than can be removed; their room is bounded.
                with _writable(folder.parent), contextlib.suppress(RecursionError):
                    shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError), _writable(self._folder):
                    folder.parent.rmdir()
            elif folder.stat().st_mode & 0o777 != self._mode:
                folder.chmod(self._mode)

    def take(self, most: int) -> Taken:
        """Read and remove what was written, the oldest first."""
        written: list[Written] = []
        lost = 0
        now = self._clock.now().timestamp()
        for name, size in sorted(self._files()):
            if len(written) == most:
                return Taken(tuple(written), more=True, lost=lost)
            file = Path(name)
            try:
                content, ended = _read(file)
            except OSError:
                lost += 1
                continue
            if content.rstrip().endswith(b"}"):
                written.append(Written(content, ended))
            elif size <= LARGEST and now - ended < _PATIENCE:
                continue
            else:
                lost += 1
            with _writable(file.parent):
                file.unlink(missing_ok=True)
        return Taken(tuple(written), lost=lost)

    def names(self) -> Iterator[str]:
        """Yield the names of files that are there."""
        return (name for name, _ in self._files())

    @property
    def _mode(self) -> int:
        return _SHUT if self._shut and os.geteuid() == 0 else 0o500 if self._shut else _WRITE

    def _open(self, moment: datetime) -> None:
        day = self._folder / f"{moment:%Y%m%d}"
        minute = day / f"{moment:%Y%m%d-%H%M}"
        if minute.exists():
            return
        with _writable(self._folder):
            day.mkdir(exist_ok=True)
        day.chmod(_ENTER if os.geteuid() == 0 else 0o500)
        with _writable(day):
            minute.mkdir(mode=_WRITE, exist_ok=True)
        if isinstance(self._user, int):
            os.chown(minute, self._user, self._user)
        elif self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(minute, entry.pw_uid, entry.pw_gid)

    def _minutes(self) -> list[Path]:
        # Of each cluster, several times a second.
        return [minute for day in _folders_in(self._folder) for minute in _folders_in(day)]

    def _files(self) -> Iterator[tuple[str, int]]:
        for minute in self._minutes():
            with contextlib.suppress(FileNotFoundError), os.scandir(minute) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_file(follow_symlinks=False):
                            yield entry.path, entry.stat(follow_symlinks=False).st_size


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _read(file: Path) -> tuple[bytes, float]:
    """Return what a file has, nothing if that is too much, and when it was written. Raises OSError."""
    # Between being listed and being opened it may have become something else.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        state = os.fstat(opened.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise OSError(f"{file} is no plain file")
        return b"" if state.st_size > LARGEST else opened.read(LARGEST), state.st_mtime


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Let the owner write for a moment; root needs no leave."""
    before = folder.stat().st_mode & 0o777
    if os.geteuid() == 0 or before & 0o200:
        yield
        return
    folder.chmod(0o700)
    try:
        yield
    finally:
        folder.chmod(before)
