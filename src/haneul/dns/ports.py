"""What publishing needs of a DNS server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from haneul.dns.model import Acknowledgement, Change, ZoneState


class DnsProvider(Protocol):
    """A DNS server that takes records, in zones that somebody made there.

    It keeps a mark of the owner with each record set that it writes, in a way of its own, so that whoever comes later,
    with no memory of what it wrote, knows what is its own. Both methods raise UnavailableError when the server does not
    answer, or answers that it cannot now; ForbiddenError when it does not take the key; NotFoundError when it has no
    such zone.
    """

    @property
    def server(self) -> str:
        """Return what people know the server by."""
        ...

    @property
    def zones(self) -> Sequence[str]:
        """Return the zones that may be written to, as absolute names."""
        ...

    async def read(self, zone: str) -> ZoneState:
        """Return all that the zone has, whosever it is."""
        ...

    async def apply(self, zone: str, owner: str, changes: Sequence[Change]) -> Acknowledgement:
        """Do all changes, or none; when this returns, the server answers with them.

        Each set that a change finds must be just as its ``before`` says and bear the owner's mark, and where that is
        None there must be none, nor one of a kind that cannot be beside it: else ZoneChangedError, and nothing is
        changed. RecordsRefusedError says that a set among them is none that the server takes.
        """
        ...

    async def close(self) -> None:
        """End connections."""
        ...
