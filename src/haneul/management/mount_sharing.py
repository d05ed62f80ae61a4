"""Whether mounts propagate between the host and its pods, see mount_namespaces(7).

Cilium's mounts must reach its pods, so `up` makes every mount shared, as systemd does at boot. Those that were not are
written down and put back by `down --purge`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from haneul.kernel.files import write_atomically
from haneul.kernel.process import run

_CALL_SECONDS: Final = 10.0
_MOUNTS: Final = Path("/proc/self/mountinfo")


def private_mounts(mountinfo: str) -> list[str]:
    """Return the mount points in a /proc/<pid>/mountinfo that do not share what is mounted below them."""
    found = []
    for line in mountinfo.splitlines():
        words = line.partition(" - ")[0].split()
        if not any(word.startswith("shared:") for word in words[6:]):
            found.append(words[4])
    return found


async def share_mounts(memory: Path) -> None:
    """Make every mount shared. Which were not is kept in the file ``memory`` from the first time on."""
    if _remember(memory):
        await run(["mount", "--make-rshared", "/"], timeout=_CALL_SECONDS)


async def restore_mount_sharing(memory: Path) -> None:
    """Put back what :func:`share_mounts` found, as far as it is still mounted."""
    for place in _remembered(memory):
        await run(["mount", "--make-private", place], timeout=_CALL_SECONDS, check=False)


def _remember(memory: Path) -> bool:
    """Write down which mounts are private unless that was done before; return whether any is now."""
    private = private_mounts(_MOUNTS.read_text())
    if not memory.exists():
        write_atomically(memory, json.dumps(private))
    return bool(private)


def _remembered(memory: Path) -> list[str]:
    mounted = {line.split()[4] for line in _MOUNTS.read_text().splitlines()}
    places = json.loads(memory.read_text()) if memory.exists() else []
    return [place for place in places if place in mounted]
