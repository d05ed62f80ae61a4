"""The lock that keeps two commands from changing this host at once, and who has it.

The kernel lets go of it when its holder ends, however that happens. What is written beside it, by whom and since when
it is held, counts only as long as that very process is there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from haneul.kernel.clock import Clock
from haneul.kernel.errors import ConflictError
from haneul.kernel.files import write_atomically
from haneul.kernel.processes import Found, find

_LOCK, _HOLDER = "host.lock", "host.lock.json"
_SHOWN: Final = "%Y-%m-%d %H:%M:%S UTC"


@contextlib.contextmanager
def host_lock(state: Path, what: str, *, clock: Clock) -> Iterator[None]:
    """Hold the lock of an installation whose folder is ``state``; ``what`` is the command, for people.

    Raises ConflictError, at once, with who holds it.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    holder = state / _HOLDER
    lock = FileLock(state / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConflictError(
            f"{_told(holder)} is changing this host", hint="wait for it to end, then try again"
        ) from error
    try:
        own = find(os.getpid())
        said = {"pid": os.getpid(), "started": own.started if own else 0, "what": what}
        # A full disk keeps nobody from holding it: `down` is what makes room.
        with contextlib.suppress(OSError):
            write_atomically(holder, json.dumps({**said, "since": clock.now().isoformat()}), mode=0o600)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _told(holder: Path) -> str:
    """Say who holds the lock: what was killed has left its name, and who has just begun may not have written it yet."""
    try:
        said = json.loads(holder.read_text())
        process, what = Found(int(said["pid"]), int(said["started"])), str(said["what"])
        since = datetime.fromisoformat(said["since"])
    except (OSError, ValueError, KeyError, TypeError):
        process = None
    if process is None or not process.alive:
        return "another 'haneul' command"
    return f"'{what}' (process {process.pid}, since {since.strftime(_SHOWN)})"
