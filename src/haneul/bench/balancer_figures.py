"""What is measured of a load balancer, and the figures of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from haneul.bench.statistics import median, percentile

DIRECT: Final = "past any balancer"
THROUGH: Final = "through HAProxy"
KERNEL: Final = "through the kernel (dnat)"
SIDES: Final = (DIRECT, THROUGH, KERNEL)


@dataclass(frozen=True)
class BalancerPlan:
    """How much is asked for.

    ``requests`` are those during the rolling update, ``killed_requests`` those during which a member is killed;
    ``members`` are at once, ``clients`` too, half of whom keep their connections. ``pre_stop`` is for how many seconds
    a member goes on after its endpoint says that it ends, as a preStop hook lets it. Rounds of ``seconds`` compare.
    """

    requests: int = 100_000
    killed_requests: int = 10_000
    members: int = 3
    clients: int = 16
    pre_stop: float = 1.0
    rounds: int = 5
    seconds: float = 3.0

    @property
    def expected_seconds(self) -> float:
        """Return how long comparing takes: a hint for people."""
        return self.rounds * len(CASES) * len(SIDES) * (self.seconds + 0.5)


@dataclass(frozen=True)
class Case:
    """A kind of load for comparing: clients at once, and how many of them take a new connection for each request."""

    name: str
    clients: int
    fresh: int


CASES: Final = (
    Case("1 client, kept connection", 1, 0),
    Case("1 client, new connections", 1, 1),
    Case("16 clients, kept connections", 16, 0),
    Case("16 clients, new connections", 16, 16),
)


@dataclass(frozen=True)
class Round:
    """One round of a case: answers a second; milliseconds of the middle answer and of the 99th of a hundred."""

    rate: float
    p50: float
    p99: float
    failed: int

    @classmethod
    def of(cls, latencies: Sequence[float], seconds: float, failed: int) -> Round:
        """Return the figures of what was measured. Raises ValueError without an answer."""
        return cls(len(latencies) / seconds, median(latencies) * 1000, percentile(latencies, 0.99) * 1000, failed)


@dataclass(frozen=True)
class Change:
    """What came of requests while members changed. ``longest`` is the slowest answer, in milliseconds."""

    requests: int
    failures: Mapping[str, int]
    changed: int
    seconds: float
    p99: float
    longest: float

    @property
    def failed(self) -> int:
        """Return how many requests failed."""
        return sum(self.failures.values())


@dataclass
class BalancerFigures:
    """What a run has measured so far; filled as it goes on, so that a run cut short loses nothing."""

    rolled: Change | None = None
    killed: Change | None = None
    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=dict)

    def add(self, case: str, side: str, measured: Round) -> None:
        """Take in a round."""
        self.rounds.setdefault(case, {}).setdefault(side, []).append(measured)

    def middle(self, case: str, side: str, what: str) -> float | None:
        """Return the median of a figure over the rounds; None without rounds."""
        rounds = self.rounds.get(case, {}).get(side, [])
        return median(getattr(one, what) for one in rounds) if rounds else None


QUICK: Final = BalancerPlan(requests=5_000, killed_requests=1_000, rounds=1, seconds=1.0)
