"""What is measured of the sign-on gate, and the figures of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from haneul.bench.statistics import median

#: The sides: the same app behind the same nginx, open to all, and asked about with a session's cookie.
OPEN: Final = "open"
GUARDED: Final = "with sign-on"
SIDES: Final = (OPEN, GUARDED)


@dataclass(frozen=True)
class SignOnPlan:
    """How long and how often each side is measured, at how many requests a second."""

    seconds: float = 5.0
    rounds: int = 7
    rate: float = 1_000.0
    connections: int = 32


QUICK: Final = SignOnPlan(seconds=2.0, rounds=1)


@dataclass(frozen=True)
class Round:
    """One round of one side: answers, requests a second, milliseconds, failures by kind.

    ``cpu`` is what the gate used of processors, in milliseconds for each answer.
    """

    answers: int
    rate: float
    p50: float
    p99: float
    cpu: float
    failures: Mapping[str, int]


@dataclass
class SignOnFigures:
    """Rounds by side, those of the same place followed each other; and the gate's memory at the end (MiB)."""

    rounds: dict[str, list[Round]] = field(default_factory=dict)
    memory: float | None = None

    def middle(self, side: str, what: Callable[[Round], float]) -> float | None:
        """Return the median of one figure over a side's rounds."""
        rounds = self.rounds.get(side, [])
        return median(map(what, rounds)) if rounds else None

    def added(self, what: Callable[[Round], float]) -> float | None:
        """Return what sign-on adds to a figure: the median of the differences of rounds that followed each other."""
        pairs = zip(self.rounds.get(GUARDED, []), self.rounds.get(OPEN, []), strict=False)
        differences = [what(guarded) - what(free) for guarded, free in pairs]
        return median(differences) if differences else None
