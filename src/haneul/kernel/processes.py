"""Ending and signalling processes by pidfd, so that no other process can be hit that got the same number meanwhile.

Numbers are given again after some ten thousand others, which is minutes on a busy machine, and to threads too: kill(2)
with a thread's number hits the whole process that the thread is of. A pidfd is one process for ever, see pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

#: PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), since Linux 6.9.
_WHOLE_GROUP: Final = 1 << 2
#: What pidfd_open(2) says of a number that nobody has, or only a thread.
_NO_PROCESS: Final = frozenset({errno.ESRCH, errno.EINVAL, errno.ENOENT})


@dataclass(frozen=True)
class Found:
    """One process. Its number and the moment of its start, in clock ticks since the machine's, are it for ever."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Say whether exactly this process is still there; one that has ended and waits for its parent is not."""
        return _state(self.pid) not in (None, "Z") and started(self.pid) == self.started


def find(pid: int) -> Found | None:
    """Return the process with a number, if there is one."""
    begin = started(pid)
    return None if begin is None else Found(pid, begin)


def all_found(pids: Iterable[int], matches: Callable[[int], bool]) -> list[Found]:
    """Return those of the processes that match and are alive."""
    found = [process for pid in pids if matches(pid) and (process := find(pid)) is not None]
    return [process for process in found if process.alive]


def send(processes: Iterable[Found], number: signal.Signals) -> None:
    """Send a signal to exactly these processes, as far as they are still there."""
    for process in processes:
        send_if(process.pid, number, partial(getattr, process, "alive"))


def send_if(pid: int, number: signal.Signals, is_meant: Callable[[], bool]) -> bool:
    """Send a signal to the process with a number if it is the one that is meant; say whether it was sent.

    ``is_meant`` looks at the process of that number. It is asked while the process is held: it may end then, but what
    has its number after it gets no signal.
    """
    with _held(pid) as handle:
        if handle is None or not is_meant():
            return False
        try:
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        return True


class Group:
    """The process group that a process of ours is the head of, with whatever that process left in it when it ended."""

    def __init__(self, leader: int) -> None:
        """``leader`` is the number of a process that was started just now, in a session of its own."""
        self._number = leader
        self._started = started(leader)
        self._handle = _open(leader)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to everybody in the group, if somebody is."""
        with contextlib.suppress(ProcessLookupError):
            if self._handle is not None:
                try:
                    signal.pidfd_send_signal(self._handle, number, None, _WHOLE_GROUP)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                else:
                    return
            # Before Linux 6.9. The number is kept for the group as long as somebody is in it.
            if started(self._number) in (None, self._started):
                os.killpg(self._number, number)

    def close(self) -> None:
        """Let go of the process."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def stopped(process: Found) -> bool:
    """Say whether a process is there and gets no processor."""
    return process.alive and _state(process.pid) == "T"


def started(pid: int) -> int | None:
    """Return when a process started, see proc(5); None once it is gone."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def title(pid: int) -> str:
    """Return what a process shows as its command line, in one text; nothing once it has ended."""
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return said.decode(errors="replace").rstrip("\0 ").replace("\0", " ")


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int | None]:
    handle = _open(pid)
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _NO_PROCESS:
            return None
        raise


def _state(pid: int) -> str | None:
    fields = _fields(pid)
    return fields[0] if fields else None


def _fields(pid: int) -> list[str]:
    """Return the fields of a process's ``stat`` from the third on: its name, before, may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
