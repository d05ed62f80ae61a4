"""The contents of a segment: a line of JSON for each revision, compressed. Pure.

A line says the revision, when its changes came, the changes as etcd's gateway tells them (keys and values in base 64),
and how long leases live that it attaches. Compressed segments that follow each other can be put together as they are.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from haneul.kernel.errors import BackupDamagedError


@dataclass(frozen=True)
class Change:
    """One key's change; key and value in base 64."""

    key: str
    value: str = ""
    lease: str = "0"
    deleted: bool = False


@dataclass(frozen=True)
class Revision:
    """All changes of one revision, and when they came, in milliseconds since 1970."""

    number: int
    time: int
    changes: tuple[Change, ...]
    leases: Mapping[str, int] = field(default_factory=dict)


def line(revision: Revision) -> bytes:
    """Return a revision as a line, which is what ``etcd-replay`` reads too."""
    events = [
        {"key": change.key, "delete": True}
        if change.deleted
        else {"key": change.key, "value": change.value, "lease": change.lease}
        for change in revision.changes
    ]
    # Without what it does not have, for most have no lease.
    document: dict[str, Any] = {"revision": revision.number, "time": revision.time, "events": events}
    if revision.leases:
        document["leases"] = dict(revision.leases)
    for event in events:
        if event.get("lease") == "0":
            del event["lease"]
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def pack(revisions: Sequence[Revision]) -> bytes:
    """Return the contents of a segment."""
    return gzip.compress(b"".join(map(line, revisions)), compresslevel=3, mtime=0)


def unpack(content: bytes, name: str) -> Iterator[Revision]:
    """Yield the revisions of a segment. Raises BackupDamagedError."""
    try:
        for text in gzip.decompress(content).splitlines():
            document = json.loads(text)
            changes = tuple(
                Change(
                    event["key"], event.get("value", ""), event.get("lease", "0"), deleted=event.get("delete", False)
                )
                for event in document["events"]
            )
            yield Revision(document["revision"], document["time"], changes, document.get("leases", {}))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise BackupDamagedError(f"{name} cannot be read: {error}", hint="restore another moment") from error
