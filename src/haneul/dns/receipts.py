"""What a Service is told of its records: a condition in its status. Pure.

``dns.haneul.dev/Published`` is True once a server acknowledged every record set of the Service, with the server's name,
its zone's serial and the time since the change was seen; False while one is in conflict with somebody else's record or
not acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from haneul.dns.changes import Conflict
from haneul.dns.model import Acknowledgement
from haneul.kernel.kube import Manifest

CONDITION: Final = "dns.haneul.dev/Published"
ACKNOWLEDGED, CONFLICT, NOTHING = "Acknowledged", "Conflict", "NothingToPublish"
NOT_ACKNOWLEDGED, REFUSED = "NotAcknowledged", "Refused"
_LONGEST_MESSAGE: Final = 1000


@dataclass(frozen=True)
class Receipt:
    """What is known of one Service's records; ``news`` is False if it only says that nothing had to be done."""

    status: bool
    reason: str
    message: str
    news: bool = True


def acknowledged(words: Sequence[Acknowledgement], sets: int, outside: int, seconds: float | None) -> Receipt:
    """Return the receipt of a Service, all of whose ``sets`` are in the zones; ``outside`` more lie in none of them.

    ``seconds`` is how long it took since the last change was seen, or None if they were there before anybody looked.
    """
    if not sets:
        return Receipt(True, NOTHING, "there is nothing to publish now")
    server = ", ".join(sorted({word.server for word in words}))
    serials = ", ".join(sorted({f"{word.zone} serial {word.serial}" for word in words}))
    text = f"{server} acknowledged {sets} record sets ({serials})"
    text += "; they were there already" if seconds is None else f" after {seconds:.2f} s"
    if outside:
        text += f"; {outside} more are in no zone that is published to"
    return Receipt(True, ACKNOWLEDGED, text, news=seconds is not None)


def in_conflict(conflicts: Sequence[Conflict]) -> Receipt:
    """Return the receipt of a Service that somebody else's records are in the way of."""
    return Receipt(False, CONFLICT, "; ".join(map(str, conflicts))[:_LONGEST_MESSAGE])


def refused(details: Sequence[str]) -> Receipt:
    """Return the receipt of a Service some of whose records the server does not take."""
    return Receipt(False, REFUSED, "; ".join(details)[:_LONGEST_MESSAGE])


def not_acknowledged(detail: str) -> Receipt:
    """Return the receipt of a Service whose records no server has acknowledged yet."""
    return Receipt(False, NOT_ACKNOWLEDGED, f"it is tried again: {detail}"[:_LONGEST_MESSAGE])


def condition(receipt: Receipt, service: Manifest, now: datetime) -> Manifest | None:
    """Return the condition to write into a Service's status; None if what stands there says all that matters."""
    status = "True" if receipt.status else "False"
    standing = (service.get("status") or {}).get("conditions") or []
    before = next((entry for entry in standing if entry["type"] == CONDITION), None)
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    if before and before["status"] == status:
        if before.get("message") == receipt.message or (before.get("reason") == receipt.reason and not receipt.news):
            return None
        moment = before["lastTransitionTime"]
    return {
        "type": CONDITION,
        "status": status,
        "reason": receipt.reason,
        "message": receipt.message,
        "lastTransitionTime": moment,
    }
