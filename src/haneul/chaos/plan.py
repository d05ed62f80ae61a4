"""What is broken together, in which order. Pure.

First each fault alone, then pairs, last the power cut. Every pair of all faults would take hours; those that are told
here each ask a question that no single fault answers. Any others may be named by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from haneul.chaos.faults import BY_NAME, CATALOGUE, Asked, Fault, Way
from haneul.kernel.errors import InvalidInputError


@dataclass(frozen=True)
class Round:
    """Faults that strike at the same moment."""

    faults: tuple[Fault, ...]

    @property
    def name(self) -> str:
        """Return what the round is known by."""
        return " + ".join(fault.name for fault in self.faults)

    @property
    def hold(self) -> float:
        """Return how many seconds the faults last before they are taken back."""
        return max(fault.hold for fault in self.faults)

    @property
    def lasts(self) -> bool:
        """Say whether the faults have an end that somebody brings about, from which their recovery counts."""
        return any(fault.hold > 0 or fault.way is Way.CHANGE for fault in self.faults)

    @property
    def recovery(self) -> float:
        """Return within how many seconds after that everything must be as before: no pair gets more time."""
        return max(fault.recovery for fault in self.faults)

    @property
    def allowed(self) -> Mapping[Asked, float]:
        """Return the longest outages that keep the promise: of two faults, the more lenient one, never their sum."""
        allowed: dict[Asked, float] = {}
        for asked, seconds in itertools.chain.from_iterable(fault.allowed.items() for fault in self.faults):
            allowed[asked] = max(allowed.get(asked, 0.0), seconds)
        return allowed


_MASTERS: Final = ("etcd-killed", "apiserver-killed", "controller-manager-killed", "scheduler-killed")

#: Two masters at once; a master while what should bring it back is dead itself; a death under load.
PAIRS: Final[tuple[tuple[str, str], ...]] = (
    *itertools.combinations(_MASTERS, 2),
    ("etcd-killed", "host-kubelet-killed"),
    ("apiserver-killed", "host-runtime-killed"),
    ("etcd-killed", "management-api-killed"),
    ("apiserver-killed", "management-etcd-killed"),
    ("apiserver-killed", "operator-deleted"),
    ("operator-deleted", "platform-api-deleted"),
    ("management-api-killed", "management-etcd-killed"),
    ("node-kubelet-killed", "node-runtime-killed"),
    ("node-runtime-killed", "apiserver-killed"),
    ("node-cut-off", "etcd-killed"),
    ("node-pod-deleted", "controller-manager-killed"),
    ("host-kubelet-killed", "host-runtime-killed"),
    ("load-processor", "apiserver-killed"),
    ("load-api", "etcd-killed"),
    ("load-disk", "etcd-killed"),
    ("load-memory", "management-api-killed"),
    ("etcd-disk-full", "apiserver-killed"),
)

#: Data that must survive, what all clusters share, what holds pods, and a resource that runs out: two minutes.
TELLING: Final = ("etcd-killed", "management-api-killed", "node-runtime-killed", "etcd-disk-full")


def whole_plan() -> tuple[Round, ...]:
    """Return every fault alone, then the pairs, then everything at once."""
    singles = [Round((fault,)) for fault in CATALOGUE if fault.way is not Way.POWER]
    pairs = [Round((BY_NAME[one], BY_NAME[other])) for one, other in PAIRS]
    last = [Round((fault,)) for fault in CATALOGUE if fault.way is Way.POWER]
    return (*singles, *pairs, *last)


def short_plan() -> tuple[Round, ...]:
    """Return the four most telling faults."""
    return tuple(Round((BY_NAME[name],)) for name in TELLING)


def named_plan(names: Sequence[str]) -> tuple[Round, ...]:
    """Return a round for each name, in the given order; ``one+other`` is a pair. Raises InvalidInputError."""
    return tuple(Round(tuple(_fault(name.strip()) for name in names_of_one.split("+"))) for names_of_one in names)


def _fault(name: str) -> Fault:
    if name not in BY_NAME:
        raise InvalidInputError(f"there is no fault {name!r}", hint=f"there are {', '.join(BY_NAME)}")
    return BY_NAME[name]
