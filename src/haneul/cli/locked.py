"""A lock beside a file that several commands may change at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[None]:
    """Let one process at a time change ``path``. Raises filelock's ``Timeout`` after ``seconds``."""
    # Its import takes longer than all else that kubectl waits for when it asks for a credential.
    from filelock import FileLock  # noqa: PLC0415

    with FileLock(path.with_name(f"{path.name}.lock"), timeout=seconds):
        yield
