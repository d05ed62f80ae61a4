"""Whether the process that was started for a file is there still, and not another one that has its number."""

from __future__ import annotations

import signal
from pathlib import Path

from haneul.kernel.processes import send_if


def lives(pid_file: Path, named: Path) -> bool:
    """Say whether the process of a pid file runs, and has the path ``named`` among its arguments."""
    return number(pid_file, named) is not None


def number(pid_file: Path, named: Path) -> int | None:
    """Return the process's number; None if it does not run."""
    try:
        found = int(pid_file.read_text())
        command = Path(f"/proc/{found}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return found if str(named).encode() in command.split(b"\0") else None


def send(pid_file: Path, named: Path, sign: signal.Signals) -> bool:
    """Send a signal to the process if it runs; say whether it was sent."""
    found = number(pid_file, named)
    return found is not None and send_if(found, sign, lambda: number(pid_file, named) == found)
