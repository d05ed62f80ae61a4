"""What a run needs from outside: two clusters to break and to ask, and what breaks them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from haneul.chaos.faults import Asked, Fault

#: Says whether it was answered well; may raise what a failing network raises.
Question = Callable[[], Awaitable[bool]]


class Injection(Protocol):
    """One fault, aimed at what runs now. Each step may be repeated."""

    async def inject(self) -> None:
        """Break it; return when it is broken."""
        ...

    async def heal(self) -> None:
        """Take the fault back, if it is one that lasts; bring nothing back that must come back by itself."""
        ...

    async def gone(self) -> bool:
        """Say whether nothing is left of the fault, and what it struck runs again."""
        ...


class Breaker(Protocol):
    """Aims faults. What it does to the host it writes down first, so that a run that was killed can be cleared up."""

    async def aim(self, fault: Fault) -> Injection:
        """Find what the fault strikes; nothing is changed yet."""
        ...

    async def clear(self) -> list[str]:
        """Take back every fault of a run that was killed; return what there was, for people."""
        ...


class Ground(Protocol):
    """Two clusters with a workload each, the victim and the neighbour, on a platform."""

    async def prepare(self) -> None:
        """Make the clusters and their workloads, or take over what is there."""
        ...

    def questions(self) -> Mapping[Asked, Question]:
        """Return what is to be asked all the while."""
        ...

    async def trouble(self) -> str:
        """Return what is not as it should be, in words; nothing when all is whole."""
        ...

    async def write(self, cluster: str, number: int) -> None:
        """Write a number into a cluster; returning is its acknowledgement."""
        ...

    async def written(self, cluster: str) -> set[int]:
        """Return the numbers that a cluster has."""
        ...

    async def leave(self) -> None:
        """Delete the clusters."""
        ...

    async def leftovers(self) -> list[str]:
        """Return what is left on the host of clusters and faults, for people."""
        ...
