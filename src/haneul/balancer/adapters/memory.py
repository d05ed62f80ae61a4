"""A balancer in memory: for simulations and for the behaviour suite, which it keeps as every balancer does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from haneul.balancer.changes import carried_out
from haneul.balancer.model import Abilities, Change, Frontends, Listener, Member, MemberHealth, MemberState, Present


class MemoryBalancer:
    """A balancer that remembers what it is told, and thinks that every member is well."""

    def __init__(self, abilities: Abilities | None = None) -> None:
        self._abilities = abilities or Abilities()
        self._frontends: dict[Listener, Present] = {}

    @property
    def name(self) -> str:
        """Return its name."""
        return "memory"

    @property
    def abilities(self) -> Abilities:
        """Return what it can do; everything if nothing else was said."""
        return self._abilities

    async def read(self) -> Frontends:
        """Return what is there."""
        await asyncio.sleep(0)
        return dict(self._frontends)

    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        """Change a copy, and take it if all of it could be done."""
        await asyncio.sleep(0)
        self._frontends = carried_out(self._frontends, owner, changes)

    async def tend(self) -> None:
        """Nothing is ever due."""

    async def health(self) -> Mapping[Listener, Mapping[Member, MemberHealth]]:
        """Return that all are well."""
        await asyncio.sleep(0)
        well = MemberHealth(MemberState.UP, 0)
        return {listener: dict.fromkeys(there.frontend.members, well) for listener, there in self._frontends.items()}

    async def close(self) -> None:
        """Nothing is open."""
