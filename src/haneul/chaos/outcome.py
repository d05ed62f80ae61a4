"""What a run has seen: the one thing that the run fills, and reports and verdicts read."""

from __future__ import annotations

from dataclasses import dataclass, field

from haneul.chaos.faults import Asked
from haneul.chaos.ledger import Tally
from haneul.chaos.verdicts import RoundResult
from haneul.chaos.writing import Written


@dataclass
class Outcome:
    """What a run has seen so far; filled as it goes on, so that a run cut short loses nothing."""

    results: list[RoundResult] = field(default_factory=list)
    written: dict[str, Written] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    whole_time: dict[Asked, Tally] = field(default_factory=dict)
    missed: int = 0
    complete: bool = False
    machine: dict[str, str] = field(default_factory=dict)
