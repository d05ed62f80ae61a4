"""Whose turn it is to start: clusters begin a few at a time, first come, first served; those that wake before new ones.

Starting a control plane is work for the processors of the management hosts. Ten that start at once each take ten times
as long, and probes that give up make it longer still; two after two, the first are ready while the last are still
waiting, and the last are not later. Somebody may hold a connection to a cluster that wakes, and its programs are there
already: it waits for others that wake, never for new ones. Only starting waits, and nobody holds a turn for long: one
that does not come up gives its turn to the next and goes on all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Seconds after which a cluster whose API still does not answer no longer keeps others from starting.
LONGEST_TURN: Final = 60.0


@dataclass(frozen=True)
class _Waiting:
    """One that waits: how it is told to ask again, and whether it wakes from sleep."""

    wake: Callable[[], None]
    from_sleep: bool


@dataclass(frozen=True)
class _Started:
    """One that starts, since when, and whether it wakes from sleep."""

    since: float
    from_sleep: bool


class Turns:
    """The turns of one operator's clusters. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._started: dict[str, _Started] = {}

    def ask(self, uid: str, *, at_once: int, now: float, wake: Callable[[], None], from_sleep: bool = False) -> int:
        """Return how many clusters start or wait before this one; 0 if it is its turn, which it then has.

        ``at_once`` is how many may start side by side, and as many besides may wake; ``wake`` is called when asking
        again is worth while.
        """
        self._expire(now)
        if uid in self._started:
            return 0
        mine = self._waiting.setdefault(uid, _Waiting(wake, from_sleep))
        before = self._before(uid, mine)
        if before < at_once:
            del self._waiting[uid]
            self._started[uid] = _Started(now, mine.from_sleep)
            return 0
        return before

    def _before(self, uid: str, mine: _Waiting) -> int:
        alike = [other for other, entry in self._waiting.items() if entry.from_sleep == mine.from_sleep]
        waking = sum(entry.from_sleep for entry in self._started.values())
        if mine.from_sleep:
            return waking + alike.index(uid)
        return len(self._started) + len(self._waiting) - len(alike) + alike.index(uid)

    def done(self, uid: str) -> None:
        """Give back a cluster's turn, or its place in the queue; may be repeated."""
        had = self._started.pop(uid, None) is not None
        waited = self._waiting.pop(uid, None) is not None
        if had or waited:
            self._wake_waiting()

    def _expire(self, now: float) -> None:
        late = [uid for uid, entry in self._started.items() if now - entry.since >= LONGEST_TURN]
        for uid in late:
            # It goes on, but no longer stands in anybody's way.
            del self._started[uid]
        if late:
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        for entry in list(self._waiting.values()):
            entry.wake()
