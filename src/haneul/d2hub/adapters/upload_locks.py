"""One process at a time has an upload's file (flock), wherever its client sends the next part."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from haneul.d2hub.errors import BlobUploadUnknownError
from haneul.kernel.errors import UnavailableError

#: How long a request waits for another process, and between two looks: seconds. A process whose client is gone waits
#: for more from it, at most a minute.
_LONGEST_WAIT: Final = 70.0
_LOOK: Final = 0.02


@contextlib.asynccontextmanager
async def held(path: Path) -> AsyncIterator[int]:
    """Open an upload's file, to be written at its end, and keep other processes from it.

    Raises BlobUploadUnknownError, UnavailableError.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError as error:
        raise unknown_upload(path.name) from error
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LONGEST_WAIT
        while not locked(descriptor):
            if loop.time() > deadline:
                raise UnavailableError("another process still writes this upload", hint="go on with it a little later")
            await asyncio.sleep(_LOOK)
        # Who held it may have finished: then what is open here is content already, and nobody's to change.
        if not _names(path, descriptor):
            raise unknown_upload(path.name)
        yield descriptor
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    """Lock a file until it is closed; False if another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unknown_upload(upload: str) -> BlobUploadUnknownError:
    """Return the error for an upload that is not there."""
    return BlobUploadUnknownError(f"this repository has no upload {upload[:40]!r}", hint="begin a new one")


def _names(path: Path, descriptor: int) -> bool:
    """Say whether a path still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
