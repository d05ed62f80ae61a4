"""How names are measured, and what a run leaves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from haneul.bench.dns import Load, NamesBench, NamesFigures, NamesPlan, polled, report
from haneul.bench.dns_load import read
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import DeadlineExceededError
from haneul.kernel.progress import SilentProgress

NOW = datetime(2026, 11, 27, 18, 0, tzinfo=UTC)


SAID = """
Statistics:

  Queries sent:         135402
  Queries completed:    135400 (100.00%)
  Queries lost:         2 (0.00%)

  Response codes:       NOERROR 135390 (99.99%), SERVFAIL 10 (0.01%)
  Average packet size:  request 50, response 66
  Run time (s):         3.000612
  Queries per second:   45123.900000

  Average Latency (s):  0.002157 (min 0.000051, max 0.016553)
"""


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

    async def load(self, seconds: float) -> Mapping[str, Load]:
        return {"ours": Load(1000.4 * seconds, 2000, 1999, 3), "peer": Load(200.0, 100, 100, 0)}


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
    assert made.tables[0].rows[2][:2] == ("a poller, once a minute", "6")
    assert made.tables[1].rows == (("ours", "1,000", "100.0%", "3"), ("peer", "200", "100.0%", "0"))


def test_a_poller_waits_half_a_minute_on_average_and_less_than_one_at_most() -> None:
    waits = polled([0.0, 12.25, 100.5])
    assert len(waits) == 180
    assert min(waits) >= 0
    assert max(waits) < 60
    assert sum(waits) / len(waits) == pytest.approx(29.75, abs=0.25)
    # A change at the moment of a look is seen by it.
    assert polled([7.0], interval=10)[7] == 0
    assert polled([7.0], interval=10)[6] == 9


def test_what_dnsperf_prints_is_read() -> None:
    assert read(SAID) == Load(45123.9, 135400, 135390, 2)
    with pytest.raises(ValueError, match="not the words"):
        read("Error: unable to connect")


async def test_a_name_that_never_comes_ends_the_run_and_what_was_measured_stays() -> None:
    clock = VirtualClock(NOW)
    figures = NamesFigures()
    bench = NamesBench(Lab(clock, None), clock=clock, progress=SilentProgress())
    with pytest.raises(DeadlineExceededError, match="changed-2-0"):
        await bench.run(NamesPlan((2,), 1, 1.0), figures)
    assert report(figures, at=NOW, machine={}).tables == ()
