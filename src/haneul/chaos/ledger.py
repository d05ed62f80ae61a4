"""The outage ledger: every question, whether it was answered, and what that means for a stretch of time. Pure.

Questions are asked at a fixed pace whether or not earlier ones were answered, so that a stall is seen in full. An
outage lasts from the first question in a row that failed, in the order of asking, to the next that was answered.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

#: Seconds between two questions: twenty a second.
INTERVAL: Final = 0.05


class Answer(NamedTuple):
    """One question: when it was asked, whether it was answered well, and after how many seconds that was known."""

    asked: float
    good: bool
    seconds: float


@dataclass(frozen=True)
class Tally:
    """What a stretch of time was like for whoever asked."""

    asked: int
    failed: int
    outages: int
    longest_gap: float
    slowest: float


@dataclass
class Ledger:
    """All questions that one address was asked. ``missed`` were due while whoever asks had no processor."""

    name: str
    missed: int = 0
    _answers: list[Answer] = field(default_factory=list, repr=False)
    _last_failed: float = field(default=-inf, repr=False)
    _unbroken_since: float = field(default=inf, repr=False)

    def note(self, asked: float, *, good: bool, seconds: float = 0.0) -> None:
        """Take note of one question that was asked at a monotonic moment, in the order in which answers come."""
        self._answers.append(Answer(asked, good, seconds))
        if good and asked > self._last_failed:
            self._unbroken_since = min(self._unbroken_since, asked)
        elif not good and asked > self._last_failed:
            self._last_failed = asked
            # A failure is known last: later questions may have been answered while this one still waited.
            lately = itertools.takewhile(lambda one: one.asked + one.seconds >= asked, reversed(self._answers))
            self._unbroken_since = min((one.asked for one in lately if one.good and one.asked > asked), default=inf)

    def unbroken_since(self) -> float:
        """Return when the first of the latest questions was asked that were all answered; infinity without any."""
        return self._unbroken_since

    def tally(self, since: float = -inf, until: float = inf) -> Tally:
        """Return the tally of the questions that were asked from ``since`` until before ``until``."""
        answers = sorted(answer for answer in self._answers if since <= answer.asked < until)
        gaps = outages(answers)
        return Tally(
            asked=len(answers),
            failed=sum(not answer.good for answer in answers),
            outages=len(gaps),
            longest_gap=max(gaps, default=0.0),
            slowest=max((answer.seconds for answer in answers if answer.good), default=0.0),
        )


def outages(answers: list[Answer]) -> list[float]:
    """Return how long each outage lasted; ``answers`` are in the order of asking."""
    gaps: list[float] = []
    began: float | None = None
    for answer in answers:
        if not answer.good and began is None:
            began = answer.asked
        elif answer.good and began is not None:
            gaps.append(answer.asked - began)
            began = None
    if began is not None:
        gaps.append(answers[-1].asked + INTERVAL - began)
    return gaps
