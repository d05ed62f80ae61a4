"""Files that are either old or new, never half-written, and those that nobody but their owner may read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_OTHERS: Final = 0o077
#: Octets of what is read in one piece.
_LONGEST: Final = 1024 * 1024


class NotPrivateError(Exception):
    """Others than its owner may read a file that has a secret."""


def read_plain(path: Path) -> bytes:
    """Return what a file of at most 1 MiB has that lies in a folder of somebody else's, who may change it meanwhile.

    No link is followed and nothing is waited for. Raises OSError, also for what is no plain file.
    """
    return _read(path, follow=False, longest=_LONGEST)[0]


def read_private(path: Path, *, follow: bool = True) -> str:
    """Return the text of a file of at most 1 MiB, if nobody but its owner may read it.

    The rights are those of the file that is read, whichever one gets its name meanwhile. It may be named by a link, as
    in a mounted Secret, unless ``follow`` is false, as it has to be in a folder of somebody else's. Raises
    NotPrivateError, UnicodeDecodeError, and OSError, also for what is no plain file.
    """
    content, rights = _read(path, follow=follow, longest=_LONGEST)
    if rights & _OTHERS:
        raise NotPrivateError(str(path))
    return content.decode()


def _read(path: Path, *, follow: bool, longest: int) -> tuple[bytes, int]:
    """Return what a plain file has, and its rights. Raises OSError, also if it has more than ``longest`` octets."""
    # Opening a pipe would wait for whoever writes into it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    opened = os.open(path, flags)
    try:
        state = os.fstat(opened)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "no plain file", str(path))
        with os.fdopen(opened, "rb", closefd=False) as file:
            content = file.read(longest + 1)
    finally:
        os.close(opened)
    if len(content) > longest:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content, stat.S_IMODE(state.st_mode)


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
    numbers of a user and a group; without one the file is the caller's. As the folder may be the owner's too, whatever
    else than a plain file is there is replaced unread.
    """
    data = content.encode() if isinstance(content, str) else content
    if _is_so(path, data, mode, follow=owner is None):
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


def _is_so(path: Path, data: bytes, mode: int, *, follow: bool) -> bool:
    try:
        return _read(path, follow=follow, longest=len(data)) == (data, mode)
    except OSError:
        return False


def sync(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
