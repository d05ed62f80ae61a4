"""What balancing needs of a load balancer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from haneul.balancer.model import Abilities, Change, Frontends, Listener, Member, MemberHealth


class LoadBalancer(Protocol):
    """A load balancer outside of the clusters; several clusters' controllers may use one at once.

    It keeps with each frontend whose it is, and all of it outlives whoever wrote it: it serves what it was told last.
    An address is one owner's alone, as long as that one has a listener there. Members come and go without a word to
    clients: one that is taken away gets nothing new from then on, and what it has may go on for the frontend's
    ``drain`` seconds. Connections survive other changes. All methods raise UnavailableError when the balancer does not
    answer.
    """

    @property
    def name(self) -> str:
        """Return what people know the balancer by."""
        ...

    @property
    def abilities(self) -> Abilities:
        """Return what it can do."""
        ...

    async def read(self) -> Frontends:
        """Return all frontends that are served, whosever they are."""
        ...

    async def apply(self, owner: str, changes: Sequence[Change]) -> None:
        """Do all changes, or none; when this returns, the balancer serves them.

        Each frontend that a change finds must be just as its ``before`` says and be the owner's; where that is None
        there must be none, nor one of somebody else at its address: else FrontendsChangedError. ListenerRefusedError
        says that one among them is where the balancer cannot listen. After either, nothing is changed.
        """
        ...

    async def tend(self) -> None:
        """End what is due: connections of members whose time to leave is over. Called every second or so."""
        ...

    async def health(self) -> Mapping[Listener, Mapping[Member, MemberHealth]]:
        """Return how members are, those that are leaving too."""
        ...

    async def close(self) -> None:
        """Let go of it; it goes on serving."""
        ...
