"""How much of a balancer a project may have: addresses, and listeners at them. Pure.

What there is of a project is read from the balancer, whose clusters' marks begin with the project's name, so that no
count can lag behind. A limit stops growth and nothing else: what a Service has, it keeps, also where the limit was
lowered below what there is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from haneul.balancer.model import Frontends, Slot, project_of

QUOTA: Final = "QuotaExceeded"


@dataclass(frozen=True)
class Limits:
    """What a project may have at most."""

    project: str
    addresses: int
    listeners: int


@dataclass(frozen=True)
class Use:
    """How many addresses and listeners there are."""

    addresses: int = 0
    listeners: int = 0


def use_of(present: Frontends, counts: Callable[[str], bool]) -> Use:
    """Return what those owners have together that count."""
    listeners = [listener for listener, there in present.items() if counts(there.owner)]
    return Use(len({listener.address for listener in listeners}), len(listeners))


def use_by_project(present: Frontends) -> dict[str, Use]:
    """Return what each project has."""
    addresses, listeners = defaultdict(set), Counter[str]()
    for listener, there in present.items():
        project = project_of(there.owner)
        addresses[project].add(listener.address)
        listeners[project] += 1
    return {project: Use(len(addresses[project]), count) for project, count in listeners.items()}


def use_of_others(present: Frontends, owner: str) -> Use:
    """Return what the other clusters have of an owner's project."""
    project = project_of(owner)
    return use_of(present, lambda other: other != owner and project_of(other) == project)


@dataclass(frozen=True)
class Room:
    """A project's limit of one thing, and how much of it the project's other clusters have."""

    project: str
    most: int
    others: int

    def full(self, own: int, *, words: str, option: str) -> str:
        """Return in words that there is no room for more than the cluster's ``own``, and what to do."""
        used = self.others + own
        return (
            f"{self.project} has {used} of the {self.most} {words} that it may have; it goes on by itself once there "
            f"is room: delete a Service of type LoadBalancer that is not needed in one of the project's clusters, or "
            f"have a platform administrator raise it: 'haneul project quota set {self.project} {option} {used + 1}'"
        )


class Held:
    """How many addresses one cluster's Services have, while it is decided who gets which; a shared one counts once."""

    def __init__(self, room: Room | None, standing: Iterable[str]) -> None:
        """``standing`` are the addresses that Services have now, of each one; without a ``room``, there is no end."""
        self._room = room
        self._count = Counter(standing)
        self._before = len(self._count)

    def hold(self, address: str) -> None:
        """Count an address of one more Service."""
        self._count[address] += 1

    def let_go(self, address: str) -> None:
        """Count an address of one Service less."""
        self._count[address] -= 1
        if not self._count[address]:
            del self._count[address]

    def has_room(self, *, moves: bool) -> bool:
        """Say whether there may be one more; whoever ``moves`` brings along the room of what it leaves."""
        if self._room is None:
            return True
        after = self._room.others + len(self._count) + 1
        return after <= max(self._room.most, self._room.others + self._before if moves else 0)

    def full(self) -> str:
        """Return in words that there is no more room."""
        return self._room.full(len(self._count), words="addresses", option="--addresses") if self._room else ""


@dataclass(frozen=True)
class Wish:
    """The slots that a Service wants to listen at, and those where it does already."""

    service: str
    slots: frozenset[Slot]
    served: frozenset[Slot]


def without_room(wishes: Sequence[Wish], room: Room | None) -> tuple[Mapping[str, frozenset[Slot]], str]:
    """Return for which slots of Services there is no room, and that in words; who comes first is asked first.

    Nobody loses a slot. Of those that come, the lowest are served.
    """
    if room is None:
        return {}, ""
    own = sum(len(wish.slots & wish.served) for wish in wishes)
    result = {}
    for wish in wishes:
        coming = sorted(wish.slots - wish.served)
        fitting = min(len(coming), max(0, room.most - room.others - own))
        own += fitting
        if coming[fitting:]:
            result[wish.service] = frozenset(coming[fitting:])
    return result, room.full(own, words="listeners", option="--listeners")
