"""A small disk of its own for a folder, so that it can be full without harming anybody else.

The disk is a file with a file system, mounted over the folder. ``mount -o loop`` frees the loop device by itself when
the mount is gone, see mount(8); so nothing is left once it is unmounted and the file deleted.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from haneul.kernel.process import run

_SECONDS: Final = 30.0
_BALLAST: Final = ".haneul-chaos-ballast"
_MIB: Final = 1 << 20
_FREE: Final = _MIB


@dataclass(frozen=True)
class SmallDisk:
    """A disk of ``mib`` MiB in the file ``image``, over ``folder``."""

    image: Path
    folder: Path
    mib: int = 320

    async def make(self) -> None:
        """Make the file with its file system, without a part that is only root's."""
        self.image.parent.mkdir(parents=True, exist_ok=True)
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as handle:
            handle.truncate(self.mib * _MIB)
        await run(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(self.image)], timeout=_SECONDS)

    async def mount(self) -> None:
        """Put the disk over the folder, which is made if it is not there; everybody may write to it."""
        self.folder.mkdir(exist_ok=True)
        await run(["mount", "-o", "loop,nodev,nosuid", str(self.image), str(self.folder)], timeout=_SECONDS)
        self.folder.chmod(0o777)

    async def unmount(self) -> None:
        """Take the disk away from the folder at once; who has files open on it keeps them until it ends."""
        while await asyncio.to_thread(os.path.ismount, self.folder):
            await run(["umount", "--lazy", str(self.folder)], timeout=_SECONDS)

    async def remove(self) -> None:
        """Take the disk away for good."""
        await self.unmount()
        self.image.unlink(missing_ok=True)

    async def fill(self) -> None:
        """Take what is free but for a MiB, which file systems need for their own accounts."""

        def take() -> None:
            free = os.statvfs(self.folder)
            size = free.f_bavail * free.f_frsize - _FREE
            if size > 0:
                with self.ballast.open("ab") as handle:
                    os.posix_fallocate(handle.fileno(), handle.tell(), size)

        await asyncio.to_thread(take)

    async def empty(self) -> None:
        """Give back what was taken."""
        await asyncio.to_thread(self.ballast.unlink, missing_ok=True)

    @property
    def ballast(self) -> Path:
        """Return the file that takes the room."""
        return self.folder / _BALLAST
