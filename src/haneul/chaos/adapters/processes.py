"""Ending and stopping processes by pidfd, so that no other process can be hit that got the same number meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


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
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(process.pid)
            try:
                if process.alive:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)


def stopped(process: Found) -> bool:
    """Say whether a process is there and gets no processor."""
    return process.alive and _state(process.pid) == "T"


def started(pid: int) -> int | None:
    """Return when a process started, see proc(5); None once it is gone."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def _state(pid: int) -> str | None:
    fields = _fields(pid)
    return fields[0] if fields else None


def _fields(pid: int) -> list[str]:
    """Return the fields of a process's ``stat`` from the third on: its name, before, may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
