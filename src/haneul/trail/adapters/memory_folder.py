"""A folder that is a file system of its own in memory (tmpfs), of a fixed size: for root only.

Each names the process that mounted it. nginx may go on writing into one whose process has ended, and its next reader
takes it over; where nobody will, as in a folder for a test or a measurement, it is found by that and cleared away.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from haneul.kernel.errors import CommandFailedError, UnavailableError
from haneul.kernel.process import run

_log = structlog.get_logger(__name__)
_SECONDS: Final = 10.0
#: Bytes for each file at least, by which their number is bounded too.
_FILE: Final = 2 << 10
_SOURCE: Final = "haneul-trail"
_MOUNTS: Final = Path("/proc/self/mountinfo")


async def mount_memory(folder: Path, size: int) -> bool:
    """Make the folder a file system of ``size`` bytes; return False if that cannot be here, which is logged.

    One of ours that has another size gets this one, with all that is in it; it keeps its own if there is more in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mounted = folder.is_mount()
    if os.geteuid() != 0:
        return mounted
    if mounted and not any(found == folder.resolve() for found, _ in _our_mounts(_MOUNTS.read_text())):
        return True
    options = f"size={size},nr_inodes={max(size // _FILE, 1024)},mode=0711,nosuid,nodev,noexec"
    if mounted:
        options = f"remount,{options}"
    try:
        await run(["mount", "-t", "tmpfs", "-o", options, f"{_SOURCE}-{os.getpid()}", str(folder)], timeout=_SECONDS)
    except (CommandFailedError, FileNotFoundError, UnavailableError) as error:
        if mounted:
            _log.warning("a file system in memory keeps its size", folder=str(folder), detail=str(error))
        else:
            _log.warning("no file system in memory; the disk's is used", folder=str(folder), detail=str(error))
        return mounted
    return True


async def unmount_memory(folder: Path) -> None:
    """Undo :func:`mount_memory`, if it was done; what was not read is gone."""
    if os.geteuid() == 0 and folder.is_mount():
        # Its memory goes with the last file that a worker has open.
        await run(["umount", "--lazy", str(folder)], timeout=_SECONDS)


async def clear_abandoned(below: Path) -> list[Path]:
    """Unmount what processes mounted below a folder that are gone; return where that was."""
    if os.geteuid() != 0:
        return []
    abandoned = list(abandoned_mounts(_MOUNTS.read_text(), below))
    for folder in abandoned:
        # Another process may clear it at the same moment.
        with contextlib.suppress(CommandFailedError):
            await unmount_memory(folder)
    return abandoned


def abandoned_mounts(mountinfo: str, below: Path) -> Iterator[Path]:
    """Yield our mount points in a /proc/<pid>/mountinfo whose processes are gone."""
    for folder, process in _our_mounts(mountinfo):
        if folder.is_relative_to(below) and not Path(f"/proc/{process}").exists():
            yield folder


def _our_mounts(mountinfo: str) -> Iterator[tuple[Path, str]]:
    """Yield our mount points, and the process that mounted each."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if mark := re.fullmatch(rf"tmpfs {_SOURCE}-(\d+) .*", after):
            # Blanks and their like are written in octal, see proc(5).
            yield Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split()[4])), mark[1]
