"""A chain of records: each carries the hash of the one before, so that none can be changed or left out unseen.

A record is a flat JSON object with ``id`` (1, 2, 3, …), ``previous`` (the hash of the record before, 64 zeros for the
first) and ``hash``: the SHA-256, in hexadecimal digits, of the canonical JSON of everything but ``hash``. Canonical is
RFC 8785 for what records hold, which are strings, whole numbers, truth values and null, under names in ASCII.

A chain cannot tell by itself that its end was cut off. Whoever noted an anchor (a record's number and hash) elsewhere
can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

GENESIS: Final = "0" * 64


@dataclass(frozen=True)
class Anchor:
    """The number and hash of one record; of an empty chain, 0 and :data:`GENESIS`."""

    id: int
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What checking a chain found: its last good record, and what is wrong behind it, if anything is."""

    last: Anchor
    fault: str = ""


def canonical(record: Mapping[str, Any]) -> bytes:
    """Return a record as canonical JSON (RFC 8785). Raises TypeError for what records do not hold."""
    for name, value in record.items():
        if not name.isascii() or not (value is None or isinstance(value, str | bool | int)):
            raise TypeError(f"{name!r} cannot be part of a chained record")
    return json.dumps(dict(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def record_hash(record: Mapping[str, Any]) -> str:
    """Return the hash of a record, whose own ``hash`` does not count."""
    return hashlib.sha256(canonical({name: record[name] for name in record if name != "hash"})).hexdigest()


def chained(record: Mapping[str, Any], last: Anchor) -> dict[str, Any]:
    """Return a record as the successor of ``last``, with its id, ``previous`` and ``hash``."""
    linked = {**record, "id": last.id + 1, "previous": last.hash}
    return {**linked, "hash": record_hash(linked)}


def verify(records: Iterable[Mapping[str, Any]], *, anchors: Iterable[Anchor] = ()) -> Verdict:
    """Check records, oldest first, and that the anchors lie on their chain. Names the first record that is wrong."""
    wanted = {anchor.id: anchor.hash for anchor in anchors}
    last = Anchor(0, GENESIS)
    for record in records:
        if fault := _fault(record, last, wanted):
            return Verdict(last, fault)
        last = Anchor(record["id"], record["hash"])
    beyond = sorted(number for number in wanted if number > last.id)
    if beyond:
        return Verdict(last, f"the records after {last.id} are missing: an anchor was noted at {beyond[0]}")
    return Verdict(last)


def _fault(record: Mapping[str, Any], last: Anchor, wanted: Mapping[int, str]) -> str:
    number = last.id + 1
    if record.get("id") != number:
        return f"record {number} is missing: after {last.id} comes {record.get('id')}"
    try:
        expected = record_hash(record)
    except (TypeError, UnicodeEncodeError) as error:
        return f"record {number} is not of a record's form: {error}"
    if expected != record.get("hash"):
        return f"record {number} was changed: its hash is not that of what it says"
    if record.get("previous") != last.hash:
        return f"record {number} does not follow record {last.id}: one of them was replaced"
    if wanted.get(number, expected) != expected:
        return f"record {number} is not the one that an anchor was noted for: the chain was written anew"
    return ""
