"""How soon a controller looks again when nothing wakes it. Pure but for the two moments that it remembers.

Changes of pods, nodes and the cluster's resource wake a controller; looking by the clock is for what nothing tells of,
such as an API server that begins to answer. So it is quick where that is expected any moment, slows down while nothing
comes of it, and is slow where only a person can go on.
"""

from __future__ import annotations

from typing import Final

from haneul.dkos.model import ClusterStatus, ConditionType, Phase
from haneul.dkos.states import WAITS_FOR_APPROVER

QUICK: Final = 0.2
LAST: Final = 5.0
IDLE: Final = 15.0
_QUICK_PHASES: Final = frozenset({Phase.CREATING, Phase.HIBERNATING, Phase.WAKING, Phase.RESTORING})
#: A creation that did not come any further for so many seconds is in trouble, and no longer looked at quickly.
CREATION_SECONDS: Final = 120.0
_FACTOR: Final = 1.5


class Pace:
    """The time between the looks at one cluster."""

    def __init__(self) -> None:
        self._seen: ClusterStatus | None = None
        self._changed_at = 0.0
        self._wait = QUICK

    def after(self, status: ClusterStatus, now: float) -> float:
        """Return how many seconds to wait after a look that ended at the monotonic moment ``now``."""
        if status != self._seen:
            self._seen, self._changed_at, self._wait = status, now, QUICK
        if is_settled(status) or _only_a_person_goes_on(status):
            return IDLE
        if status.phase in _QUICK_PHASES and now - self._changed_at < CREATION_SECONDS:
            return QUICK
        wait = self._wait
        self._wait = min(wait * _FACTOR, LAST)
        return wait


def is_settled(status: ClusterStatus) -> bool:
    """Say whether nothing is left to do."""
    return all(
        condition.status == "True" for condition in status.conditions if condition.type is not ConditionType.FOLLOWED
    )


def _only_a_person_goes_on(status: ClusterStatus) -> bool:
    """The spec is refused, or all that is missing is an approval, which wakes the controller."""
    missing = [entry for entry in status.conditions if entry.status != "True"]
    approver = {ConditionType.NETWORK_READY, ConditionType.NODES_READY}
    return any(entry.type is ConditionType.ACCEPTED for entry in missing) or (
        {entry.type for entry in missing} <= approver and any(entry.reason == WAITS_FOR_APPROVER for entry in missing)
    )
