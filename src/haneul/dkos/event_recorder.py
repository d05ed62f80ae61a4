"""Between those who tell of events and the log: nobody who tells ever waits, and what flaps does not flood.

Telling only takes note; one task writes. The same event again becomes a higher count, written at most every few
seconds. How many different events a cluster may cause is bounded, since parts of their messages come from inside it;
so is how many are remembered, and how often a write is tried. What is more than that is left out: events are best
effort, and no cluster's care depends on them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from haneul.dkos.event_log import EventLog
from haneul.dkos.events import Event
from haneul.dkos.model import Cluster
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError

_log = structlog.get_logger(__name__)

#: Seconds between two writes of the same event.
WRITE_SECONDS: Final = 10.0
#: Different events of one cluster: so many at once, then one more every few seconds.
BURST: Final = 256
REFILL_SECONDS: Final = 10.0
#: Events of all clusters that are remembered so that they can be counted.
MOST_REMEMBERED: Final = 4096
_CALL_SECONDS: Final = 5.0
_TRIES: Final = 3


@dataclass
class _Series:
    """One event and its repetitions: what is not written yet, and when it may be."""

    cluster: Cluster
    last: datetime
    due: float
    unwritten: int = 0
    failures: int = 0


@dataclass
class _Allowance:
    """How many more different events a cluster may cause."""

    left: float
    at: float

    def take(self, now: float) -> bool:
        """Take one if there is one."""
        self.left = min(BURST, self.left + (now - self.at) / REFILL_SECONDS)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class EventRecorder:
    """Takes note of events and writes them, as long as :meth:`run` runs."""

    def __init__(self, log: EventLog, *, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._series: OrderedDict[tuple[str, Event], _Series] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._news = asyncio.Event()

    def tell(self, cluster: Cluster, event: Event) -> None:
        """Take note of an event; never waits, never fails."""
        key, now = (cluster.uid, event), self._clock.monotonic()
        series = self._series.get(key)
        if series is None:
            if not self._allowance(cluster.uid, now).take(now):
                _log.warning("event left out", cluster=cluster.uid, reason=event.reason, message=event.message)
                return
            series = self._series[key] = _Series(cluster, self._clock.now(), due=now)
            if len(self._series) > MOST_REMEMBERED:
                self._series.popitem(last=False)
        self._series.move_to_end(key)
        series.last = self._clock.now()
        series.unwritten += 1
        self._news.set()

    async def run(self) -> None:
        """Write what is told, until cancelled."""
        while True:
            self._news.clear()
            await self.write_due()
            waiting = [series.due for series in self._series.values() if series.unwritten]
            timeout = max(0.0, min(waiting) - self._clock.monotonic()) if waiting else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()

    async def write_due(self) -> None:
        """Write what may be written now; for programs that end, and for :meth:`run`."""
        for (_, event), series in list(self._series.items()):
            if series.unwritten and series.due <= self._clock.monotonic():
                await self._write(event, series)

    async def _write(self, event: Event, series: _Series) -> None:
        times = series.unwritten
        series.due = self._clock.monotonic() + WRITE_SECONDS
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._log.record(series.cluster, event, times=times, last=series.last)
        except (HaneulError, TimeoutError) as error:
            series.failures += 1
            _log.warning("event not written", cluster=series.cluster.uid, reason=event.reason, error=str(error))
        except Exception:
            # Whatever it is, it is no reason to end the operator.
            series.failures = _TRIES
            _log.exception("event not written", cluster=series.cluster.uid, reason=event.reason)
        else:
            series.unwritten -= times
            series.failures = 0
        if series.failures >= _TRIES:
            series.unwritten = series.failures = 0

    def _allowance(self, uid: str, now: float) -> _Allowance:
        allowance = self._allowances.setdefault(uid, _Allowance(BURST, now))
        self._allowances.move_to_end(uid)
        if len(self._allowances) > MOST_REMEMBERED:
            self._allowances.popitem(last=False)
        return allowance
