"""What is measured of the audit trail of ingress, and the figures of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from haneul.bench.statistics import median

#: The sides: the same nginx and app, with and without ModSecurity and what reads its records.
WITHOUT: Final = "without"
WITH: Final = "with the trail"
SIDES: Final = (WITHOUT, WITH)


@dataclass(frozen=True)
class AuditPlan:
    """How long and how often each side is measured, at how many requests a second; bytes of records to search."""

    seconds: float = 5.0
    rounds: int = 7
    rate: float = 200.0
    connections: int = 16
    store: int = 10 << 30
    asked: int = 5


@dataclass(frozen=True)
class AuditRound:
    """One round of one side: answers, milliseconds of each, and of processors for each: nginx's and the reader's."""

    answers: int
    p50: float
    p99: float
    nginx: float
    reader: float
    failures: Mapping[str, int]


@dataclass(frozen=True)
class Kept:
    """Of mixed requests: bytes as ModSecurity wrote them, of records that were kept, and of these in the store."""

    requests: int
    kept: int
    seen_bytes: int
    kept_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Stored:
    """What is searched: records, their bytes, those in the store, and the catalogue's."""

    records: int
    size: int
    stored: int
    catalogue: int


@dataclass(frozen=True)
class Searched:
    """One kind of question: how many records answered, and seconds of each time."""

    question: str
    found: int
    seconds: tuple[float, ...]


@dataclass
class AuditFigures:
    """What was measured so far."""

    rounds: dict[str, list[AuditRound]] = field(default_factory=dict)
    kept: Kept | None = None
    stored: Stored | None = None
    searched: list[Searched] = field(default_factory=list)

    def middle(self, side: str, what: Callable[[AuditRound], float]) -> float | None:
        """Return the median of one figure over a side's rounds."""
        rounds = self.rounds.get(side, [])
        return median(map(what, rounds)) if rounds else None

    def added(self, what: Callable[[AuditRound], float]) -> float | None:
        """Return what the trail adds to a figure: the median of the differences of rounds that followed each other."""
        pairs = zip(self.rounds.get(WITH, []), self.rounds.get(WITHOUT, []), strict=False)
        differences = [what(one) - what(other) for one, other in pairs]
        return median(differences) if differences else None
