"""The part of the audit record that needs no transaction of its own: pulls, and what was refused.

Such records wait in memory and are written together every second, so no pull waits for the disk. What waits is
bounded; what finds no room is counted, not kept, and so is what can never be written. A crash loses what waited: as a
rule the last second, at most :data:`MOST_WAITING` records. An orderly end writes them.

Records are kept for a time and then removed, a few in a transaction.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from haneul.d2hub.happenings import AuditEntry, Happening
from haneul.d2hub.metrics import family
from haneul.d2hub.names import project_of
from haneul.d2hub.record_ports import Audit
from haneul.d2hub.rules import Rules
from haneul.kernel.clock import Clock
from haneul.kernel.errors import InvalidInputError

_log = structlog.get_logger(__name__)
MOST_WAITING: Final = 10_000
_EVERY_SECONDS: Final = 1.0
_PURGE_SECONDS: Final = 3600.0
_BATCH: Final = 500


class Journal:
    """Takes records from requests and writes them in batches."""

    def __init__(self, audit: Audit, rules: Rules, *, keep: timedelta, clock: Clock, chance: random.Random) -> None:
        self._audit, self._rules, self._keep = audit, rules, keep
        self._clock, self._chance = clock, chance
        self._waiting: deque[AuditEntry] = deque()
        self._written: Counter[str] = Counter()
        self._lost = 0
        self._one = asyncio.Lock()

    def weight(self, repository: str) -> int:
        """Return how many pulls one that is made now stands for; 0 says that it is not to be written down."""
        one_in = self._rules.rules(project_of(repository)).audit_pulls
        return one_in if one_in <= 1 or self._chance.randrange(one_in) == 0 else 0

    def pulled(self, repository: str, reference: str, digest: str, *, by: tuple[str, str], weight: int) -> None:
        """Take a pull; ``by`` is account and address."""
        account, address = by
        now = self._clock.now()
        self._add(
            AuditEntry(
                now,
                Happening.PULL,
                repository,
                reference,
                digest,
                account,
                address,
                weight=weight,
                identity=_new_identity(),
            )
        )

    def refused(
        self, happening: Happening, repository: str, reference: str, digest: str, *, by: tuple[str, str], result: str
    ) -> None:
        """Take a change that was refused; ``by`` is account and address, ``result`` the error's code."""
        account, address = by
        now = self._clock.now()
        self._add(
            AuditEntry(
                now, happening, repository, reference, digest, account, address, result, identity=_new_identity()
            )
        )

    async def run(self) -> None:
        """Write and purge, without end."""
        purged = -_PURGE_SECONDS
        while True:
            await self._clock.sleep(_EVERY_SECONDS)
            try:
                # Who ends this shall not end a write of which nobody would know whether it was done.
                await asyncio.shield(self.flush())
                if self._clock.monotonic() - purged >= _PURGE_SECONDS:
                    await self.purge()
                    purged = self._clock.monotonic()
            except Exception as error:  # noqa: BLE001, RUF100 - what waits is written by a later turn
                _log.error("audit records cannot be written now", exc_info=error)

    async def flush(self) -> None:
        """Write everything that waits. What could not be written waits on, unless it never can be."""
        async with self._one:
            while self._waiting:
                batch = list(itertools.islice(self._waiting, _BATCH))
                try:
                    await self._write(batch)
                except InvalidInputError:
                    await self._write_each(batch)

    async def end(self) -> None:
        """Write what waits, at an orderly end."""
        try:
            await self.flush()
        except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, the process ends
            _log.error("audit records are lost", records=len(self._waiting), exc_info=error)

    async def purge(self) -> int:
        """Remove records that were kept for long enough; return how many."""
        before, gone = self._clock.now() - self._keep, 0
        while removed := await self._audit.purge(before=before, limit=_BATCH):
            gone += removed
        if gone:
            _log.info("purged audit records", records=gone, before=before.isoformat())
        return gone

    def lines(self) -> Iterable[str]:
        """Return metrics."""
        written = {f'action="{name}"': float(count) for name, count in sorted(self._written.items())}
        return [
            *family("d2hub_audit_batched_total", "counter", "Audit records of pulls and refusals written.", written),
            *family("d2hub_audit_waiting", "gauge", "Audit records in memory.", {"": len(self._waiting)}),
            *family(
                "d2hub_audit_lost_total", "counter", "Audit records without room, or not writable.", {"": self._lost}
            ),
        ]

    async def _write(self, batch: Sequence[AuditEntry]) -> None:
        """Write the first that wait."""
        await self._audit.add(batch)
        for _ in batch:
            self._waiting.popleft()
        self._written.update(str(entry.happening) for entry in batch)

    async def _write_each(self, batch: Sequence[AuditEntry]) -> None:
        """Write the first that wait one by one: one that can never be written does not hold up those behind it."""
        for entry in batch:
            try:
                await self._write([entry])
            except InvalidInputError as error:
                self._waiting.popleft()
                self._lost += 1
                _log.error("an audit record is lost", repository=entry.repository, exc_info=error)

    def _add(self, entry: AuditEntry) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._lost += 1
            return
        self._waiting.append(entry)


def _new_identity() -> str:
    return uuid.uuid4().hex
