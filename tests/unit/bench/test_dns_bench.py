"""How names are measured, and what a run leaves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from haneul.bench.dns import NamesBench, NamesFigures, NamesPlan, report
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.progress import SilentProgress

NOW = datetime(2026, 11, 27, 18, 0, tzinfo=UTC)


class Lab:
    """A cluster whose names are answered ``late`` seconds after their change; never, if that is None."""

    def __init__(self, clock: VirtualClock, late: float | None) -> None:
        self.clock = clock
        self.late = late
        self.changed: dict[str, float] = {}
        self.filled: list[int] = []

    async def fill(self, count: int) -> None:
        self.filled.append(count)

    async def change(self, name: str) -> str:
        self.changed[name] = self.clock.monotonic()
        return "10.0.0.1"

    async def answers(self, name: str, address: str) -> bool:
        self.clock.advance(0.125)
        return self.late is not None and self.clock.monotonic() - self.changed[name] >= self.late

    async def take_back(self, name: str) -> None:
        del self.changed[name]

    async def load(self, seconds: float) -> Sequence[float]:
        return [100.0 * seconds, 200.0]


async def test_what_is_measured_is_the_time_until_the_first_answer() -> None:
    clock = VirtualClock(NOW)
    lab, figures = Lab(clock, 0.5), NamesFigures()
    await NamesBench(lab, clock=clock, progress=SilentProgress()).run(NamesPlan((2, 5), 3, 1.0), figures)
    assert lab.filled == [2, 5]
    assert lab.changed == {}
    assert figures.waits == {2: [0.5] * 3, 5: [0.5] * 3}
    made = report(figures, at=NOW, machine={"cores": "2"})
    assert [table.title for table in made.tables] == ["From a Service to its answer", "Answers a second"]
    assert made.tables[0].rows[0] == ("2 Services", "3", "500 ms", "500 ms", "500 ms")
    assert made.tables[1].rows == (("2 at once", "300"),)


async def test_a_name_that_never_comes_ends_the_run_and_what_was_measured_stays() -> None:
    clock = VirtualClock(NOW)
    figures = NamesFigures()
    bench = NamesBench(Lab(clock, None), clock=clock, progress=SilentProgress())
    with pytest.raises(DeadlineExceededError, match="changed-2-0"):
        await bench.run(NamesPlan((2,), 1, 1.0), figures)
    assert report(figures, at=NOW, machine={}).tables == ()
