"""Whose turn it is to start: new and waking clusters begin a few at a time, first come, first served.

Starting a control plane is work for the processors of the management hosts. Ten that start at once each take ten times
as long, and probes that give up make it longer still; two after two, the first are ready while the last are still
waiting, and the last are not later. Only starting waits, the first time or after sleep, and nobody holds a turn for
long: one that does not come up gives its turn to the next and goes on all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Seconds after which a cluster whose API still does not answer no longer keeps others from starting.
LONGEST_TURN: Final = 60.0


class Turns:
    """The turns of one operator's clusters. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], None]] = {}
        self._started: dict[str, float] = {}

    def ask(self, uid: str, *, at_once: int, now: float, wake: Callable[[], None]) -> int:
        """Return how many clusters start or wait before this one; 0 if it is its turn, which it then has.

        ``at_once`` is how many may start side by side; ``wake`` is called when asking again is worth while.
        """
        self._expire(now)
        if uid in self._started:
            return 0
        self._waiting.setdefault(uid, wake)
        ahead = list(self._waiting).index(uid)
        if len(self._started) + ahead < at_once:
            del self._waiting[uid]
            self._started[uid] = now
            return 0
        return len(self._started) + ahead

    def done(self, uid: str) -> None:
        """Give back a cluster's turn, or its place in the queue; may be repeated."""
        had = self._started.pop(uid, None) is not None
        waited = self._waiting.pop(uid, None) is not None
        if had or waited:
            self._wake_waiting()

    def _expire(self, now: float) -> None:
        late = [uid for uid, since in self._started.items() if now - since >= LONGEST_TURN]
        for uid in late:
            # It goes on, but no longer stands in anybody's way.
            del self._started[uid]
        if late:
            self._wake_waiting()

    def _wake_waiting(self) -> None:
        for wake in list(self._waiting.values()):
            wake()
