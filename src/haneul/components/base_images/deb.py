"""One Debian package as it is read: what it says of itself, and its files as a tar archive.

Only read: maintainers' scripts are neither run nor kept. dpkg-deb knows how packages are compressed.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from haneul.components.base_images.apt import Package
from haneul.kernel.process import run

_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Unpacked:
    """A package's control paragraph, its date (seconds since the epoch), and its files in a tar archive."""

    package: Package
    control: str
    date: int
    files: Path

    def field(self, name: str) -> str:
        """Return the first line of a field of the control paragraph; empty if it is not there."""
        for line in self.control.splitlines():
            key, colon, value = line.partition(":")
            if colon and key == name:
                return value.strip()
        return ""


async def unpack(archive: Path, package: Package, folder: Path) -> Unpacked:
    """Read a package into ``folder``. Raises CommandFailedError if it is none."""
    control, files = folder / f"{package.file_name}.control", folder / f"{package.file_name}.files"
    await _part(archive, "--ctrl-tarfile", control)
    await _part(archive, "--fsys-tarfile", files)
    with tarfile.open(control, encoding="utf-8") as members:
        # Built reproducibly, a package bears the date of its latest change.
        date = max(int(member.mtime) for member in members)
        paragraph = members.extractfile("./control")
        text = paragraph.read().decode() if paragraph else ""
    control.unlink()
    return Unpacked(package, text.rstrip("\n"), date, files)


async def _part(archive: Path, which: str, target: Path) -> None:
    # What comes out is no text, so it goes into a file without passing through here.
    await run(["sh", "-c", 'exec dpkg-deb "$1" "$2" >"$3"', "sh", which, str(archive), str(target)], timeout=_SECONDS)
