"""Measures names: how long after a change a client outside gets the answer, and how many answers there are a second.

A change is a Service that is made. The clock starts when the cluster's API has acknowledged it, and ends with the first
answer of the DNS server that has its address, asked for again and again from outside; so what is measured is never
shorter than what a client sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from haneul.bench.report import Report, Table
from haneul.bench.statistics import median, percentile
from haneul.kernel.clock import Clock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.progress import Progress

_WAIT_SECONDS: Final = 120.0
#: What field reports tell of publishers that poll: a minute, unless they are told otherwise (external-dns).
_POLLING: Final = "a poller with an interval of one minute needs 30 s on average, 60 s at most"


class NamesLab(Protocol):
    """A cluster of a running platform, used as its users use it, and its names as clients outside ask for them."""

    async def fill(self, count: int) -> None:
        """Have so many Services in all, and return when the last one's name is answered."""
        ...

    async def change(self, name: str) -> str:
        """Make one more Service; return its address once the API has acknowledged it."""
        ...

    async def answers(self, name: str, address: str) -> bool:
        """Ask once, and say whether the name has this address."""
        ...

    async def take_back(self, name: str) -> None:
        """Delete a Service that :meth:`change` made."""
        ...

    async def load(self, seconds: float) -> Sequence[float]:
        """Ask for names that are there as fast as possible; return each asking process's answers a second."""
        ...


@dataclass(frozen=True)
class NamesPlan:
    """How many Services there are while changes are measured, how many changes, and for how long is asked."""

    sizes: tuple[int, ...] = (10, 1000)
    changes: int = 100
    load_seconds: float = 5.0


QUICK: Final = NamesPlan(sizes=(10,), changes=10, load_seconds=1.0)


@dataclass
class NamesFigures:
    """Seconds from a change to its answer, by the number of Services that there are; answers a second."""

    waits: dict[int, list[float]] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)


class NamesBench:
    """One run."""

    def __init__(self, lab: NamesLab, *, clock: Clock, progress: Progress) -> None:
        self._lab = lab
        self._clock = clock
        self._progress = progress

    async def run(self, plan: NamesPlan, figures: NamesFigures) -> None:
        """Measure into ``figures``, which keep what there is if the run is cut short."""
        for size in plan.sizes:
            with self._progress.stage(f"make {size} Services", expected_seconds=size / 20):
                await self._lab.fill(size)
            with self._progress.stage(f"change one of {size} Services", expected_seconds=plan.changes / 2) as stage:
                waits = figures.waits.setdefault(size, [])
                for number in range(plan.changes):
                    stage.note(f"{number + 1} of {plan.changes}")
                    waits.append(await self._change(f"changed-{size}-{number}"))
        with self._progress.stage("ask as fast as possible", expected_seconds=plan.load_seconds):
            figures.rates += await self._lab.load(plan.load_seconds)

    async def _change(self, name: str) -> float:
        address = await self._lab.change(name)
        began = self._clock.monotonic()
        while not await self._lab.answers(name, address):
            if self._clock.monotonic() - began > _WAIT_SECONDS:
                raise DeadlineExceededError(f"waited {_WAIT_SECONDS:.0f} s for the name of {name} to be answered")
        waited = self._clock.monotonic() - began
        await self._lab.take_back(name)
        return waited


def report(figures: NamesFigures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return what a run leaves."""
    tables = []
    if measured := {size: waits for size, waits in figures.waits.items() if waits}:
        rows = tuple(
            (
                f"{size} Services",
                str(len(waits)),
                *(f"{value * 1000:.0f} ms" for value in (median(waits), percentile(waits, 0.99), max(waits))),
            )
            for size, waits in measured.items()
        )
        columns = ("there are", "changes", "median", "99th percentile", "greatest")
        tables.append(Table("From a Service to its answer", columns, rows, f"In comparison, {_POLLING}."))
    if figures.rates:
        rows = ((f"{len(figures.rates)} at once", f"{sum(figures.rates):,.0f}"),)
        note = "Asked on the same machine, which the askers share with the server; answers from its memory."
        tables.append(Table("Answers a second", ("asking processes", "answers a second"), rows, note))
    raw = {"waits": {str(size): waits for size, waits in figures.waits.items()}, "rates": figures.rates}
    return Report("dns", at, machine, tuple(tables), raw)
