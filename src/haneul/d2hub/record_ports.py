"""What D2Hub needs of others to keep its audit record, to tell receivers, and to know which images run where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from haneul.d2hub.deliveries import Backlog, Delivery, DeliveryState, Head, Outcome
from haneul.d2hub.happenings import AuditEntry
from haneul.d2hub.inventory import Report, Reported, Use
from haneul.d2hub.receivers import Receiver


@dataclass(frozen=True)
class Span:
    """A stretch of time: from ``since`` on, before ``until``."""

    since: datetime | None = None
    until: datetime | None = None


class Audit(Protocol):
    """Keeps audit records. Those of changes are written by the change's own transaction, not here."""

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        """Write records, in one transaction; those that are written already, by their identities, are passed over.

        Raises InvalidInputError if one of them can never be written.
        """
        ...

    async def entries(
        self, project: str, span: Span, *, before: str = "", limit: int
    ) -> tuple[Sequence[AuditEntry], str]:
        """Return records of a project, the latest first, and what to give as ``before`` for the next; "" at the end.

        Raises InvalidInputError if ``before`` is nothing that was returned here.
        """
        ...

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Remove records older than that, at most ``limit`` of them; return how many."""
        ...


class Outbox(Protocol):
    """Keeps deliveries. They are enqueued by the transaction of the change that they tell of."""

    async def heads(self, *, now: datetime, project: str = "", receiver: str = "") -> Sequence[Head]:
        """Return the deliveries whose turn it is: due, held by nobody, none of the same repository before them.

        Those of one receiver, if it is named; the longest waiting first.
        """
        ...

    async def take(self, number: int, *, now: datetime, until: datetime) -> Delivery | None:
        """Hold a delivery for an attempt, which is counted; None if somebody else does, or it waits no more."""
        ...

    async def settle(self, number: int, outcome: Outcome, *, attempts: int) -> None:
        """Write down what became of the attempt with that number, unless another one was begun since."""
        ...

    async def listed(
        self, project: str, *, state: DeliveryState | None, before: int = 0, limit: int
    ) -> Sequence[Delivery]:
        """Return deliveries of a project, the latest first; with ``before``, those with smaller numbers."""
        ...

    async def again(self, project: str, number: int, *, now: datetime) -> bool:
        """Have a failed delivery made again, from the first attempt on; False if there is none."""
        ...

    async def backlog(self) -> Backlog:
        """Return what waits."""
        ...

    async def purge(self, *, before: datetime, limit: int) -> int:
        """Remove deliveries that ended before that, at most ``limit`` of them; return how many."""
        ...


class Inventory(Protocol):
    """Keeps what clusters reported last."""

    async def replace(self, report: Report, *, now: datetime) -> None:
        """Take a whole report in the place of the cluster's last one."""
        ...

    async def in_use(self, digests: Sequence[str], *, first: str = "", limit: int) -> Sequence[Use]:
        """Return who runs one of some images, at most ``limit`` of them; clusters of project ``first`` come first."""
        ...

    async def running(self, digests: Sequence[str]) -> frozenset[str]:
        """Return which of some images run anywhere."""
        ...

    async def reports(self) -> Sequence[Reported]:
        """Return the clusters that reported, in the order of their names."""
        ...

    async def forget(self, cluster: str, *, now: datetime, by: str, address: str) -> bool:
        """Let a cluster's report count no more, and write that down; False if there is none."""
        ...


class Sender(Protocol):
    """Sends signed requests to receivers."""

    async def send(self, receiver: Receiver, headers: Mapping[str, str], body: bytes) -> int:
        """Return the status of the answer, whatever it is. No redirect is followed.

        Raises UnavailableError if there is none in time, ForbiddenError if the address is refused.
        """
        ...
