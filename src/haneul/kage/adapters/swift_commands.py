"""How Swift's parts are called: an interpreter that has Swift, with ``swift_run.py``; and rsync."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from haneul.kage.model import RSYNC, Part
from haneul.kernel.process import run

_RING_SECONDS: Final = 120.0


def of_part(command: Sequence[str], etc: Path, part: Part) -> tuple[str, ...]:
    """Return what runs a part. ``command`` is interpreter and program, ``etc`` the folder of Swift's configuration."""
    if part.module == RSYNC:
        return ("rsync", "--daemon", "--no-detach", f"--config={part.configuration}")
    return (*command, "part", str(etc), part.module, str(part.configuration))


async def make_rings(command: Sequence[str], etc: Path, described: Mapping[str, Any]) -> None:
    """Let Swift's own builder make rings. Raises CommandFailedError."""
    await run([*command, "rings", str(etc)], stdin=json.dumps(described).encode(), timeout=_RING_SECONDS)
