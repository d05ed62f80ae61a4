"""etcd's members kept in memory: for simulations and tests of controllers.

Neighbours: :mod:`haneul.dkos.etcd_port` has the port. Kept are the list, who leads, and etcd's own refusals: of a
second learner, of a vote for one that has not started, and of a change that nobody could agree to.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from haneul.dkos.etcd_plan import Member, Membership
from haneul.dkos.etcd_port import EtcdAccess, EtcdMembers, NotInSyncError, peer_address
from haneul.kernel.errors import ConflictError, UnavailableError


class MemoryEtcd:
    """One etcd. ``works`` says of a member whether its program runs, by its address."""

    def __init__(self, works: Callable[[str], bool] = lambda _: True) -> None:
        self.members: list[Member] = []
        self.leader = ""
        self._works = works
        self._ids = itertools.count(0xA1)

    @contextlib.asynccontextmanager
    async def connect(self, access: EtcdAccess) -> AsyncIterator[EtcdMembers]:
        """Be asked; who asks first names the founder."""
        if not self.members:
            self.members = [Member(f"{next(self._ids):x}", peer_address(access.urls))]
        yield self

    async def membership(self) -> Membership:
        """Return the member list and who leads."""
        self._agree()
        self.members = [
            replace(member, started=member.started or self._works(member.address)) for member in self.members
        ]
        return Membership(tuple(self.members), self.leader)

    async def add_learner(self, peer_url: str) -> str:
        """Make a learner known."""
        self._agree()
        for member in self.members:
            if member.address == peer_address([peer_url]):
                return member.id
        if any(member.learner for member in self.members):
            raise ConflictError("etcd refused: too many learner members in cluster", hint="it is asked again")
        added = Member(f"{next(self._ids):x}", peer_address([peer_url]), learner=True, started=False)
        self.members.append(added)
        return added.id

    async def promote(self, member: str) -> None:
        """Let a learner vote."""
        self._agree()
        found = self._find(member)
        if found is not None and found.learner:
            if not self._works(found.address):
                raise NotInSyncError("it has not started")
            self.members[self.members.index(found)] = replace(found, learner=False)

    async def remove(self, member: str) -> None:
        """Take a member out."""
        self._agree()
        found = self._find(member)
        if found is not None:
            self.members.remove(found)
            self.leader = "" if self.leader == member else self.leader

    async def transfer(self, leader_url: str, member: str) -> None:
        """Let another member lead."""
        self._agree()
        leader = self._find(self.leader)
        if leader is None or leader.address != peer_address([leader_url]):
            raise ConflictError("etcd refused: not the leader", hint="it is asked again")
        self.leader = member

    def _find(self, member: str) -> Member | None:
        return next((found for found in self.members if found.id == member), None)

    def _agree(self) -> None:
        """Raise unless a majority works; then somebody of it leads."""
        voters = [member for member in self.members if not member.learner]
        working = [member.id for member in voters if self._works(member.address)]
        if len(working) <= len(voters) // 2:
            raise UnavailableError("etcd has no majority")
        if self.leader not in working:
            self.leader = working[0]
