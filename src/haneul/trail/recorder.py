"""The trail of one cluster at work: takes what ModSecurity wrote, masks it, remembers it, keeps what is to be kept.

Nothing leaves in any other way than masked: reading, masking and the ring are one step, and the rest comes after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import structlog

from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError
from haneul.trail.budget import Budget
from haneul.trail.keeping import CHUNK, Keeper, Lines
from haneul.trail.masking import Masks, mask_record
from haneul.trail.model import Record, UnreadableError, parse_record, record_of_line
from haneul.trail.policy import Policy
from haneul.trail.ports import Source
from haneul.trail.ring import Ring

_log = structlog.get_logger(__name__)
#: Records between two looks at whether something else is to be done.
_TURN: Final = 200
#: Seconds that a store has to say what was used of the day before reading begins without it.
_FIRST_ANSWER: Final = 10.0
_TEND: Final = 1.0
_REMOVE: Final = 3600.0
_BACKOFF: Final = (1.0, 60.0)


class TendedSource(Source, Protocol):
    """A source that wants to be looked after, or it closes by itself."""

    def tend(self) -> None:
        """Keep it open."""
        ...


@dataclass
class Figures:
    """Counts since this process began; sizes in bytes: as written, and as kept before they are compressed."""

    seen: int = 0
    seen_bytes: int = 0
    unreadable: int = 0
    kept: int = 0
    kept_bytes: int = 0
    not_wanted: int = 0
    over_budget: int = 0


@dataclass(frozen=True)
class Collected:
    """What a collection put into the store, and what it had no room for."""

    records: int
    size: int
    chunks: int
    left_out: int


class Recorder:
    """``policy_of`` says what is kept of an Ingress by its name; ``ingresses`` has names by their short ones."""

    def __init__(
        self,
        source: TendedSource,
        ring: Ring,
        keeper: Keeper,
        budget: Budget,
        masks: Masks,
        *,
        policy_of: Callable[[str], Policy],
        ingresses: Mapping[str, str],
        clock: Clock,
        flush_seconds: float = 30.0,
        keep_days: int = 30,
        look_seconds: float = 0.2,
    ) -> None:
        self._source = source
        self._ring = ring
        self._keeper = keeper
        self._budget = budget
        self._masks = masks
        self._policy_of = policy_of
        self._ingresses = ingresses
        self._clock = clock
        self._flush_seconds = flush_seconds
        self._keep_days = keep_days
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._turning = threading.Lock()
        self._collecting = asyncio.Lock()
        self.figures = Figures()
        #: Nobody reads any more: it was cancelled, or broke off.
        self.ended = False

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            # What is read before is not kept; what was not read yet waits in its folder for a while.
            with contextlib.suppress(HaneulError, TimeoutError):
                await asyncio.wait_for(self.learn(), _FIRST_ANSWER)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reading())
                group.create_task(self._writing())
                group.create_task(self._removing())
        finally:
            self.ended = True

    async def learn(self) -> None:
        """Ask the store what was used of this day's budget; nothing is kept before. Raises TrailStoreAwayError."""
        kept, collected = await self._keeper.spent(self._clock.now())
        with self._lock:
            self._budget.learn(kept, collected)

    async def close(self) -> None:
        """Write what was gathered, once. Raises TrailStoreAwayError."""
        await asyncio.to_thread(self.turn)
        await self._keeper.flush()

    def turn(self) -> bool:
        """Take in what was written since; say whether there is more."""
        # A turn goes on in its thread though whoever waited for it was cancelled.
        with self._turning:
            return self._turn()

    def _turn(self) -> bool:
        taken = self._source.take(_TURN)
        self.figures.unreadable += taken.lost
        for written in taken.written:
            self.figures.seen += 1
            self.figures.seen_bytes += len(written.content)
            try:
                record = parse_record(written.content, ended=written.ended, ingresses=self._ingresses)
                masked = mask_record(record, self._masks)
            except UnreadableError:
                self.figures.unreadable += 1
                continue
            self._take_in(masked)
        return taken.more

    def lines(self, since: int) -> Iterator[bytes]:
        """Yield records in the ring as lines, the newest first, back to a time in milliseconds since 1970."""
        return self._ring.newest_first(since)

    def freeze(self) -> int:
        """Hold the ring. Raises ConflictError."""
        return self._ring.freeze()

    def thaw(self) -> bool:
        """Let go what was held."""
        return self._ring.thaw()

    def state(self) -> dict[str, Any]:
        """Return counts, the ring's state, and what of this day's budget is used."""
        with self._lock:
            budget = {"kept": self._budget.kept, "collected": self._budget.collected}
        figures = {**asdict(self.figures), "dropped": self._keeper.dropped}
        return {"figures": figures, "ring": asdict(self._ring.state()), "today": budget}

    async def collect(self, since: int) -> Collected:
        """Put what the ring has since then into the store, the newest first, as far as the day's budget goes.

        The ring is frozen meanwhile, and let go when all is there. Raises TrailStoreAwayError; then it stays frozen.
        """
        async with self._collecting:
            if not self._ring.state().frozen:
                self._ring.freeze()
            records = size = chunks = left_out = 0
            newest = self._ring.newest_first(since)
            while True:
                lines, gathered, refused, more = await asyncio.to_thread(self._gathered, newest)
                left_out += refused
                if lines:
                    await self._write_collected(lines, gathered)
                    records, size, chunks = records + len(lines), size + gathered, chunks + 1
                if not more:
                    break
            if not left_out:
                self._ring.thaw()
            return Collected(records, size, chunks, left_out)

    def _gathered(self, newest: Iterator[bytes]) -> tuple[Lines, int, int, bool]:
        """Return records for one chunk, their bytes, how many had no room, and whether there may be more."""
        lines: Lines = []
        gathered = refused = 0
        for line in newest:
            with self._lock:
                taken = self._budget.take_collected(len(line), now=self._clock.now())
            if not taken:
                refused += 1
                continue
            lines.append((record_of_line(line), line))
            gathered += len(line)
            if gathered >= CHUNK:
                return lines, gathered, refused, True
        return lines, gathered, refused, False

    async def _write_collected(self, lines: Lines, size: int) -> None:
        try:
            await self._keeper.write(lines, "collected", self._clock.now())
        except BaseException:
            with self._lock:
                self._budget.give_back(size)
            raise

    def _take_in(self, record: Record) -> None:
        policy = self._policy_of(str(record.transaction.get("ingress", "")))
        why = policy.why(record)
        kept = Record(record.transaction, record.request, record.response, {**record.audit_data, "kept": why})
        line = kept.line()
        self._ring.add(kept.started, line)
        if not why:
            self.figures.not_wanted += 1
            return
        with self._lock:
            taken = self._budget.take(len(line), now=self._clock.now(), monotonic=self._clock.monotonic())
        if not taken:
            self.figures.over_budget += 1
            return
        self.figures.kept += 1
        self.figures.kept_bytes += len(line)
        self._keeper.add(kept, line)

    async def _reading(self) -> None:
        tended = float("-inf")
        while True:
            try:
                if self._clock.monotonic() - tended >= _TEND:
                    tended = self._clock.monotonic()
                    await asyncio.to_thread(self._source.tend)
                more = await asyncio.to_thread(self.turn)
            except OSError as error:
                # The folder may be gone for a moment, while somebody puts another one there.
                _log.warning("records cannot be read", detail=str(error))
                more = False
            if not more:
                await self._clock.sleep(self._look_seconds)

    async def _writing(self) -> None:
        wait, longest = _BACKOFF
        while True:
            try:
                if not self._budget.known:
                    await self.learn()
                if self._keeper.is_due(self._flush_seconds):
                    await self._keeper.flush()
                await self._clock.sleep(min(1.0, self._flush_seconds))
                wait = _BACKOFF[0]
            except HaneulError as error:
                _log.warning("records wait", detail=error.detail, seconds=wait, dropped=self._keeper.dropped)
                await self._clock.sleep(wait)
                wait = min(wait * 2, longest)

    async def _removing(self) -> None:
        while True:
            try:
                removed = await self._keeper.remove_before(self._clock.now(), self._keep_days)
                if removed:
                    _log.info("removed old records", chunks=removed)
            except HaneulError as error:
                _log.warning("old records stay", detail=error.detail)
            await self._clock.sleep(_REMOVE)
