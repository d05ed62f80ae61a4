"""Whether the process that was started for a file is there still, and not another one that has its number."""

from __future__ import annotations

from pathlib import Path


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
