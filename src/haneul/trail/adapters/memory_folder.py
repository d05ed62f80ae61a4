"""A folder that is a file system of its own in memory (tmpfs), of a fixed size: for root only."""

from __future__ import annotations

import os
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


async def mount_memory(folder: Path, size: int) -> bool:
    """Make the folder a file system of ``size`` bytes; return False if that cannot be here, which is logged."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_mount():
        return True
    if os.geteuid() != 0:
        return False
    options = f"size={size},nr_inodes={max(size // _FILE, 1024)},mode=0711,nosuid,nodev,noexec"
    try:
        await run(["mount", "-t", "tmpfs", "-o", options, _SOURCE, str(folder)], timeout=_SECONDS)
    except (CommandFailedError, FileNotFoundError, UnavailableError) as error:
        _log.warning("no file system in memory; the disk's is used", folder=str(folder), detail=str(error))
        return False
    return True


async def unmount_memory(folder: Path) -> None:
    """Undo :func:`mount_memory`, if it was done; what was not read is gone."""
    if os.geteuid() == 0 and folder.is_mount():
        await run(["umount", str(folder)], timeout=_SECONDS)
