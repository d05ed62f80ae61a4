"""Reading the process table, to find what earlier runs left. See proc(5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def command_line(pid: int) -> tuple[str, ...]:
    """Return a process's arguments; empty once it has ended, also while its parent has not yet collected it."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(part.decode(errors="replace") for part in raw.rstrip(b"\0").split(b"\0")) if raw else ()


def executable(pid: int) -> str:
    """Return the path of the file that a process runs, or nothing once it has ended."""
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def processes_matching(matches: Callable[[int], bool]) -> list[int]:
    """Return the ids of all processes for which ``matches`` holds."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in pids if matches(pid)]
