"""A host service of Python's that gives up what root may, before it does anything else.

It becomes a user that has no name and no right, in a mount namespace of its own. Folders that only root may enter, such
as root's home, with the Python that runs this, or the installation's state, are covered there by empty ones, in which
only what the service needs is to be seen. Its command line stays what it was, by which its supervisor knows it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import haneul
from haneul.kernel.errors import HostNotReadyError

_NEW_MOUNTS: Final = 0x00020000  # CLONE_NEWNS (unshare(2))
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x40000  # MS_BIND, MS_REC, MS_PRIVATE (mount(2))
_NO_NEW_PRIVILEGES: Final = 38  # PR_SET_NO_NEW_PRIVS (prctl(2))


def own_code() -> tuple[Path, ...]:
    """Return the folders from which this program, its packages and its Python are read while it runs."""
    package = Path(haneul.__file__).parent
    places = (Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent, package)
    return tuple(dict.fromkeys(place.resolve() for place in places))


def closed_above(folder: Path) -> Path | None:
    """Return the topmost folder above that not everybody may enter; None if there is none."""
    for parent in reversed(folder.parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            return parent
    return None


def seclude(needed: Iterable[Path], *, user: int) -> None:
    """Become ``user``, which is the number of its group too, for whom of closed folders only the needed ones are there.

    For the beginning of a process of root's with one thread. Raises HostNotReadyError where the kernel forbids it.
    """
    folders = set(needed)
    outermost = [folder for folder in folders if not folders & set(folder.parents)]
    closed = {folder: above for folder in outermost if (above := closed_above(folder)) is not None}
    library = ctypes.CDLL(None, use_errno=True)

    def call(what: str, status: int) -> None:
        if status != 0:
            raise HostNotReadyError(
                f"{what}: {os.strerror(ctypes.get_errno())}", hint="host services are started as root, by 'haneul up'"
            )

    def mount(source: str, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
        words = [None if text is None else text.encode() for text in (source, str(target), kind)]
        call(f"{target} cannot be mounted", library.mount(*words, flags, options.encode() if options else None))

    call("there is no mount namespace to be had", library.unshare(_NEW_MOUNTS))
    mount("none", Path("/"), None, _RECURSIVE | _PRIVATE)
    # Only what is of the new namespace can be mounted in it.
    handles = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in closed}
    os.umask(0o022)
    for above in sorted(set(closed.values())):
        mount("none", above, "tmpfs", 0, "mode=755,size=64k")
    for folder, handle in sorted(handles.items()):
        folder.mkdir(parents=True, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", folder, None, _BIND | _RECURSIVE)
        os.close(handle)
    os.chdir("/")
    os.umask(0o077)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    call("privileges cannot be given up", library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
