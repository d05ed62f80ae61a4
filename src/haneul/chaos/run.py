"""A run: break, ask, take back, wait until all is as before; round after round. Nothing is left afterwards.

The ledgers go on over the whole run, also between rounds; a round's figures are those of its own stretch of time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from haneul.chaos.faults import CLUSTERS, Asked
from haneul.chaos.ledger import Ledger
from haneul.chaos.outcome import Outcome
from haneul.chaos.plan import Round
from haneul.chaos.ports import Breaker, Ground, Injection
from haneul.chaos.prober import PATIENCE, Prober
from haneul.chaos.verdicts import RoundResult, broken_promises
from haneul.chaos.writing import Writer
from haneul.kernel.clock import Clock
from haneul.kernel.errors import HaneulError, UnavailableError
from haneul.kernel.progress import Progress, Stage

#: So long must everything have answered before a round begins, and before it ends: longer than any question waits.
QUIET: Final = PATIENCE + 0.2
_LOOK_SECONDS: Final = 0.25
#: A round that takes this many times its promise, and a minute, ends the run: what follows would measure nothing.
_TIMES: Final = 2
_HEAL_SECONDS: Final = 300.0


class ChaosRun:
    """Runs a plan."""

    def __init__(self, ground: Ground, breaker: Breaker, *, clock: Clock, progress: Progress) -> None:
        self._ground = ground
        self._breaker = breaker
        self._clock = clock
        self._progress = progress

    async def run(self, plan: Sequence[Round], outcome: Outcome) -> None:
        """Run every round. Raises UnavailableError if the platform does not come back from one."""
        outcome.cleared = await self._breaker.clear()
        try:
            with self._progress.stage("make two clusters with a workload each", expected_seconds=40):
                await self._ground.prepare()
            async with self._asked_and_written(outcome) as ledgers:
                for number, one in enumerate(plan, start=1):
                    await self._round(f"{number} of {len(plan)}: {one.name}", one, ledgers, outcome)
            outcome.complete = True
        finally:
            with self._progress.stage("take back what is left of faults, delete the clusters", expected_seconds=30):
                await self._breaker.clear()
                await self._ground.leave()
            outcome.left = await self._ground.leftovers()

    @asynccontextmanager
    async def _asked_and_written(self, outcome: Outcome) -> AsyncIterator[Mapping[Asked, Ledger]]:
        """Ask and write while the block runs; at its end, read back what was written."""
        writers = {name: self._writer(name) for name in CLUSTERS}
        writing = [asyncio.create_task(writer.go_on()) for writer in writers.values()]
        async with Prober(clock=self._clock) as prober:
            ledgers = {asked: prober.ask(asked, question) for asked, question in self._ground.questions().items()}
            try:
                yield ledgers
                for task in writing:
                    task.cancel()
                await asyncio.gather(*writing, return_exceptions=True)
                for name, writer in writers.items():
                    outcome.written[name] = await writer.compare(functools.partial(self._ground.written, name))
            finally:
                for task in writing:
                    task.cancel()
                await asyncio.gather(*writing, return_exceptions=True)
                outcome.whole_time = {asked: ledger.tally() for asked, ledger in ledgers.items()}
                outcome.missed = sum(ledger.missed for ledger in ledgers.values())

    def _writer(self, cluster: str) -> Writer:
        return Writer(lambda number: self._ground.write(cluster, number), clock=self._clock)

    async def _round(self, title: str, one: Round, ledgers: Mapping[Asked, Ledger], outcome: Outcome) -> None:
        with self._progress.stage(title, expected_seconds=one.hold + 15) as stage:
            stage.note("waiting for calm")
            calm, trouble = await self._whole([], ledgers, self._clock.monotonic(), 2 * one.recovery + 60, stage)
            if calm is None:
                raise UnavailableError(f"{one.name} was not begun: {trouble}", hint="'haneul status' may tell more")
            injections = [await self._breaker.aim(fault) for fault in one.faults]
            began = self._clock.monotonic()
            try:
                stage.note("broken")
                await _all(injection.inject() for injection in injections)
                await self._clock.sleep(max(0.0, began + one.hold - self._clock.monotonic()))
            finally:
                async with asyncio.timeout(_HEAL_SECONDS):
                    await _all(injection.heal() for injection in injections)
            healed = self._clock.monotonic() if one.lasts else began
            patience = _TIMES * one.recovery + 60
            recovered, trouble = await self._whole(injections, ledgers, healed, patience, stage)
            ended = self._clock.monotonic()
            tallies = {asked: ledger.tally(began, ended) for asked, ledger in ledgers.items()}
            result = RoundResult(one, recovered, tallies, trouble)
            outcome.results.append(result)
            stage.note("; ".join(broken_promises(result)) or f"as before after {recovered:.1f} s")
        if recovered is None:
            raise UnavailableError(
                f"after {one.name} the platform did not come back: {trouble}", hint="'haneul status' may tell more"
            )

    async def _whole(
        self,
        injections: Sequence[Injection],
        ledgers: Mapping[Asked, Ledger],
        since: float,
        patience: float,
        stage: Stage,
    ) -> tuple[float | None, str]:
        """Wait until all is whole; return how many seconds after ``since`` it became so, or None and what is not."""
        whole_from: float | None = None
        while True:
            looked = self._clock.monotonic()
            trouble = await self._trouble(injections)
            if trouble:
                whole_from = None
                stage.note(trouble)
            else:
                whole_from = looked if whole_from is None else whole_from
            now = self._clock.monotonic()
            answering = max(ledger.unbroken_since() for ledger in ledgers.values())
            if whole_from is not None and now - max(whole_from, answering) >= QUIET:
                return max(0.0, max(whole_from, answering) - since), ""
            if now - since > patience:
                silent = [name for name, ledger in ledgers.items() if now - ledger.unbroken_since() < QUIET]
                return None, trouble or f"{', '.join(silent)} without answer"
            await self._clock.sleep(_LOOK_SECONDS)

    async def _trouble(self, injections: Sequence[Injection]) -> str:
        with contextlib.suppress(HaneulError, TimeoutError, OSError):
            async with asyncio.timeout(10):
                if not all([await injection.gone() for injection in injections]):
                    return "what was struck does not run again yet"
                return await self._ground.trouble()
        return "what would tell does not answer"


async def _all(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all steps at once and to their end, also when one of them fails; then raise the first failure."""
    failures = [end for end in await asyncio.gather(*steps, return_exceptions=True) if isinstance(end, BaseException)]
    if failures:
        raise failures[0]
