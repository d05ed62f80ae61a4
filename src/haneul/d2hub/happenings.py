"""What happens to images, as it is written down and told: the audit record, and the event that receivers get. Pure.

An image is pushed and pulled by its manifest; its layers are not written down one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from haneul.d2hub.names import project_of

#: Begins the types of events (CloudEvents 1.0, "type": the reverse of a name of whoever defines them).
_TYPE: Final = "dev.haneul.d2hub"
#: The result of what was done; of what was not, it is the error's code.
DONE: Final = "done"


class Happening(StrEnum):
    """What was done, or tried."""

    PUSH = "push"
    PULL = "pull"
    #: A manifest came from the registry that a project mirrors, or a tag was moved to it, as it was there.
    MIRROR = "mirror"
    DELETE = "delete"
    UNDELETE = "undelete"
    #: A tag went by the project's rules, because somebody asked for it.
    RETENTION = "retention"
    #: A manifest went because it had no tag for as long as the project's rules say.
    COLLECTION = "collection"
    #: What was deleted before went for good.
    PURGE = "purge"
    #: What a cluster reported counts no more, because an administrator said so.
    FORGET = "forget"


#: What receivers can be told. What is purged they were told when it was deleted; a cluster is no image.
TOLD: Final = tuple(one for one in Happening if one not in (Happening.PULL, Happening.PURGE, Happening.FORGET))


@dataclass(frozen=True)
class Origin:
    """Where a change comes from and who is told of it: what its transaction writes down besides it.

    ``happening`` is what the change is, where it is not what the method's name says. ``receivers`` are addresses.
    """

    address: str = ""
    receivers: tuple[str, ...] = ()
    happening: Happening | None = None


UNKNOWN: Final = Origin()


@dataclass(frozen=True)
class AuditEntry:
    """One record: who did what, where, from which address, and what came of it.

    ``reference`` is a tag, or empty if only a digest was named. Of pulls that are sampled each record stands for
    ``weight`` of them. A record with the ``identity`` of one that is written already is that one: whoever does not know
    whether it was written may write it again. Those of transactions need none.
    """

    at: datetime
    happening: Happening
    repository: str
    reference: str
    digest: str
    account: str
    address: str = ""
    result: str = DONE
    weight: int = 1
    identity: str = ""

    @property
    def project(self) -> str:
        """Return the project of the repository."""
        return project_of(self.repository)


#: Says which receivers of a repository's project are told of something.
Receivers = Callable[[str, Happening], tuple[str, ...]]


def event_of(entry: AuditEntry, *, identity: str, media_type: str = "") -> dict[str, Any]:
    """Return a record as an event (CloudEvents 1.0, JSON format) but for its source, which whoever sends it knows.

    It does not say from which address somebody came: that is for the audit record's readers.
    """
    name = f":{entry.reference}" if entry.reference else f"@{entry.digest}"
    data = {
        "action": str(entry.happening),
        "project": entry.project,
        "repository": entry.repository,
        "tag": entry.reference,
        "digest": entry.digest,
        "account": entry.account,
    }
    return {
        "specversion": "1.0",
        "id": identity,
        "type": f"{_TYPE}.{entry.happening}",
        "subject": f"{entry.repository}{name}",
        "time": entry.at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data | ({"mediaType": media_type} if media_type else {}),
    }
