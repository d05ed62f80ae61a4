"""Looks at all clusters whenever one changed, and every half minute, and has what it sees written down."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from haneul.usage.ports import Sightings
from haneul.usage.record import UsageRecord

_log = structlog.get_logger(__name__)
EVERY_SECONDS: Final = 30.0
#: So many changes at once need one look only.
_TOGETHER_SECONDS: Final = 0.2


class UsageRecorder:
    """One process's recorder; others may record the same."""

    def __init__(self, record: UsageRecord, clusters: Sightings, *, every: float = EVERY_SECONDS) -> None:
        self._record = record
        self._clusters = clusters
        self._every = every
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """A cluster changed: look soon."""
        self._changed.set()

    async def look(self) -> None:
        """Look at all clusters and write it down."""
        await self._record.note(await self._clusters.look())

    async def run(self) -> None:
        """Record until cancelled. What fails is tried again at the next look; nothing is lost but precision."""
        while True:
            self._changed.clear()
            try:
                await self.look()
            except Exception:
                # Whatever it was, the API goes on to serve, and the clusters are still there at the next look.
                _log.exception("usage not recorded")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._changed.wait()
            await asyncio.sleep(_TOGETHER_SECONDS)
