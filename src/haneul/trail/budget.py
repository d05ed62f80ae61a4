"""How many bytes are kept: never more in any second, nor on any day (UTC). Pure.

A bucket of tokens with room for a second's worth lets twice as much through in a second that begins with a full one. So
what was let through is remembered for one second instead, and no second, wherever it begins, has more than it may. A
part of each day is set aside for what people collect, so that a flood of errors leaves them room; together they are the
day's budget.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Limits:
    """Bytes of records before they are compressed; ``reserved`` of each day's are for collections alone."""

    per_second: int
    per_day: int
    reserved: int = 0


class Budget:
    """One cluster's. It gives nothing before it has learnt what was used this day already."""

    def __init__(self, limits: Limits, now: datetime) -> None:
        self._limits = limits
        self._day = _day(now)
        self._kept, self._collected = 0, 0
        self._known = False
        self._lately: deque[tuple[float, int]] = deque()
        self._in_second = 0

    @property
    def kept(self) -> int:
        """Return the bytes that were kept this day by themselves."""
        return self._kept

    @property
    def collected(self) -> int:
        """Return the bytes that people collected this day."""
        return self._collected

    @property
    def known(self) -> bool:
        """Say whether it is known what was used this day."""
        return self._known

    def learn(self, kept: int, collected: int) -> None:
        """Take note of the bytes that were kept and collected this day, by whomever."""
        self._kept, self._collected = kept, collected
        self._known = True

    def take(self, size: int, *, now: datetime, monotonic: float) -> bool:
        """Say whether a record of so many bytes may be kept, and count it if so."""
        self._turn(now)
        # A moment exactly one second ago is of another second.
        while self._lately and self._lately[0][0] <= monotonic - 1.0:
            self._in_second -= self._lately.popleft()[1]
        room = self._limits.per_day - max(self._limits.reserved, self._collected) - self._kept
        if not self._known or self._in_second + size > self._limits.per_second or size > room:
            return False
        self._lately.append((monotonic, size))
        self._in_second += size
        self._kept += size
        return True

    def take_collected(self, size: int, *, now: datetime) -> bool:
        """Say whether so many bytes may be collected, and count them if so."""
        self._turn(now)
        if not self._known or size > self._limits.per_day - self._kept - self._collected:
            return False
        self._collected += size
        return True

    def give_back(self, size: int) -> None:
        """Take note that so many bytes that were to be collected were not."""
        self._collected = max(0, self._collected - size)

    def _turn(self, now: datetime) -> None:
        # A clock that is set back does not give a day's budget once more.
        if (day := _day(now)) > self._day:
            self._day, self._kept, self._collected = day, 0, 0


def _day(now: datetime) -> str:
    return now.astimezone(UTC).date().isoformat()
