"""Which version of Kubernetes wrote a state, and whether another one may go on from it. Pure.

The facts beside a backup tell since when each version wrote. A state that is brought back meets the version that its
cluster has by then: that is what an upgrade of the masters would be, so the same rules hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from haneul.dkos.backup.names import milliseconds
from haneul.dkos.backup.timeline import Stretch
from haneul.dkos.releases import way_of_masters
from haneul.kernel.errors import ConflictError


def writers_after(known: Mapping[str, Any], version: str, now: datetime) -> dict[str, int]:
    """Return since which millisecond each version wrote, when ``version`` writes now; ``known`` are earlier facts."""
    return {version: milliseconds(now) if known else 0, **_writers(known)}


def check_reader(facts: Mapping[str, Any], stretch: Stretch, version: str) -> None:
    """Raise ConflictError if masters of ``version`` may not go on from the state at the end of a stretch."""
    writers = _writers(facts)
    moment = max((segment.begin for segment in stretch.segments), default=stretch.snapshot.taken)
    begun = {writer: since for writer, since in writers.items() if since <= moment} or writers
    if not begun:
        return
    writer = max(begun, key=lambda one: begun[one])
    if why := way_of_masters(writer, version):
        raise ConflictError(
            f"Kubernetes {writer} wrote that state, and the cluster has {version} now: {why}",
            hint="restore a later moment, from after the upgrade that came next",
        )


def _writers(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return what facts tell; those of an earlier Haneul name the one version that there was."""
    if "writers" in facts:
        return dict(facts["writers"])
    version = facts.get("spec", {}).get("version", "")
    return {version: 0} if version else {}
