"""Measures names: how long after a change a client outside gets the answer, and how many answers there are a second.

A change is a Service that is made. The clock starts when the cluster's API has acknowledged it, and ends with the first
answer of the DNS server that has its address, asked for again and again from outside; so what is measured is never
shorter than what a client sees.

Beside it stands a poller that looks once a minute, as publishers do unless they are told otherwise (external-dns). It
is computed: of the same changes, at the moments at which they were made, had it begun at any second of a minute, and
were its own work done in no time. So it is never slower here than a real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Final, Protocol

from haneul.bench.report import Report, Table
from haneul.bench.statistics import median, percentile
from haneul.kernel.clock import Clock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.progress import Progress

_WAIT_SECONDS: Final = 120.0
_POLLING_SECONDS: Final = 60


@dataclass(frozen=True)
class Load:
    """What a server answered: ``rate`` answers a second; of all questions, how many were answered well, and lost."""

    rate: float
    answers: int
    well: int
    lost: int


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

    async def load(self, seconds: float) -> Mapping[str, Load]:
        """Ask one server after the other for names that are there, as fast as it answers; return what each did."""
        ...


@dataclass(frozen=True)
class NamesPlan:
    """How many Services there are while changes are measured, how many changes, and for how long is asked."""

    sizes: tuple[int, ...] = (10, 1000)
    changes: int = 100
    load_seconds: float = 5.0


LARGE: Final = NamesPlan(sizes=(10, 1000, 10_000))
QUICK: Final = NamesPlan(sizes=(10,), changes=10, load_seconds=1.0)


@dataclass
class NamesFigures:
    """Seconds from a change to its answer, by the number of Services that there are; what servers answered under load.

    ``moments`` are those of the changes, in seconds of one clock.
    """

    waits: dict[int, list[float]] = field(default_factory=dict)
    moments: dict[int, list[float]] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)


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
                waits, moments = figures.waits.setdefault(size, []), figures.moments.setdefault(size, [])
                for number in range(plan.changes):
                    stage.note(f"{number + 1} of {plan.changes}")
                    moment, waited = await self._change(f"changed-{size}-{number}")
                    moments.append(moment)
                    waits.append(waited)
        with self._progress.stage("ask as fast as possible", expected_seconds=plan.load_seconds):
            figures.loads.update(await self._lab.load(plan.load_seconds))

    async def _change(self, name: str) -> tuple[float, float]:
        address = await self._lab.change(name)
        began = self._clock.monotonic()
        while not await self._lab.answers(name, address):
            if self._clock.monotonic() - began > _WAIT_SECONDS:
                raise DeadlineExceededError(f"waited {_WAIT_SECONDS:.0f} s for the name of {name} to be answered")
        waited = self._clock.monotonic() - began
        await self._lab.take_back(name)
        return began, waited


def polled(moments: Sequence[float], *, interval: int = _POLLING_SECONDS) -> list[float]:
    """Return how long each change waits for a poller, once for each second at which that may have begun."""
    return [(begun - moment) % interval for moment in moments for begun in range(interval)]


def report(figures: NamesFigures, *, at: datetime, machine: Mapping[str, str]) -> Report:
    """Return what a run leaves."""
    tables = []
    if measured := {size: waits for size, waits in figures.waits.items() if waits}:
        rows = [(f"{size} Services", str(len(waits)), *_spread(waits)) for size, waits in measured.items()]
        if moments := [moment for found in figures.moments.values() for moment in found]:
            rows.append(("a poller, once a minute", str(len(moments)), *_spread(polled(moments))))
        columns = ("there are", "changes", "median", "99th percentile", "greatest")
        note = "The poller is computed from the same changes, for every second at which it may have begun."
        tables.append(Table("From a Service to its answer", columns, tuple(rows), note))
    if figures.loads:
        answers = tuple(
            (name, f"{load.rate:,.0f}", f"{load.well / load.answers:.1%}", str(load.lost))
            for name, load in figures.loads.items()
        )
        asked = ("server", "answers a second", "that have an address", "questions lost")
        note = "Asked by dnsperf on the same machine, which it shares with the server, 100 questions at once."
        tables.append(Table("Answers a second", asked, answers, note))
    raw = {
        "waits": {str(size): waits for size, waits in figures.waits.items()},
        "moments": {str(size): moments for size, moments in figures.moments.items()},
        "loads": {name: asdict(load) for name, load in figures.loads.items()},
    }
    return Report("dns", at, machine, tuple(tables), raw)


def _spread(waits: Sequence[float]) -> tuple[str, str, str]:
    return _shown(median(waits)), _shown(percentile(waits, 0.99)), _shown(max(waits))


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
