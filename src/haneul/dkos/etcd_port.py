"""What DKOS needs of a cluster's etcd: its member list, and to change it. A port; adapters are beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from haneul.dkos.etcd_plan import Membership
from haneul.kernel.errors import ConflictError


class NotInSyncError(ConflictError):
    """The learner has not got all data yet; ask again in a moment."""

    code = "etcd-member-not-in-sync"
    title = "The etcd member has not caught up yet"


@dataclass(frozen=True)
class EtcdAccess:
    """Where the members that vote answer, the likeliest first, and how to be let in; PEM, URLs."""

    urls: tuple[str, ...]
    authority: bytes
    client_certificate: bytes
    client_key: bytes = field(repr=False)


class EtcdMembers(Protocol):
    """The members of one etcd. Every method raises UnavailableError if no majority answers.

    What was done already is done again without harm.
    """

    async def membership(self) -> Membership:
        """Return the member list as a majority agrees on it, and who leads."""
        ...

    async def add_learner(self, peer_url: str) -> str:
        """Make a member known that does not vote; return its id in hexadecimal."""
        ...

    async def promote(self, member: str) -> None:
        """Let a learner vote. Raises NotInSyncError while it has not caught up."""
        ...

    async def remove(self, member: str) -> None:
        """Take a member out of the list."""
        ...

    async def transfer(self, leader_url: str, member: str) -> None:
        """Have the leader, which answers at ``leader_url``, let another one lead."""
        ...


class ConnectEtcd(Protocol):
    """Opens a connection to an etcd."""

    def __call__(self, access: EtcdAccess) -> AbstractAsyncContextManager[EtcdMembers]:
        """Return the connection, to be entered."""
        ...


def peer_address(urls: Sequence[str]) -> str:
    """Return the address in a member's first peer URL (``https://ADDRESS:PORT``)."""
    return urls[0].partition("://")[2].rpartition(":")[0] if urls else ""
