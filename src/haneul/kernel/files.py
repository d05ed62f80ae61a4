"""Files that are either old or new, never half-written, and those that nobody but their owner may read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_OTHERS: Final = 0o077


class NotPrivateError(Exception):
    """Others than its owner may read a file that has a secret."""


def read_private(path: Path) -> str:
    """Return a file's text, if nobody but its owner may read it. Raises NotPrivateError, OSError, UnicodeDecodeError.

    The rights are those of the file that is read, whichever one gets its name meanwhile.
    """
    with path.open() as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise NotPrivateError(str(path))
        return file.read()


def is_there(path: Path) -> bool:
    """Say whether a file is there that this user may see."""
    try:
        return path.exists()
    except PermissionError:
        return False


def write_atomically(
    path: Path, content: str | bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> bool:
    """Replace ``path`` by ``content`` durably; return False if it already was so.

    The bytes reach the disk before the name does, so a crash leaves the old file or the new one. ``mode`` is set
    before the first byte is written: a secret is never readable by others, not even for an instant. So is ``owner``,
    numbers of a user and a group; without one the file is the caller's.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data and (path.stat().st_mode & 0o777) == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            if owner is not None:
                os.fchown(handle.fileno(), *owner)
            os.fchmod(handle.fileno(), mode)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return True


def sync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
