"""What has to change in a zone, decided purely from what is wanted and what is there.

Each record set is ours, another owner's, or nobody's, by its mark (see :mod:`haneul.dns.ports`):

===========  ==================  ======================================================
wanted       there               then
===========  ==================  ======================================================
no           ours                it goes
no           another's, nobody's it stays
yes          nothing             it comes
yes          ours, the same      nothing
yes          ours, another       it is replaced
yes          another's, nobody's conflict: nothing is changed, and it is said whose it is
===========  ==================  ======================================================

A CNAME is alone at its name (RFC 1034 section 3.6.2), so one that is wanted beside somebody else's records, or records
beside somebody else's CNAME, are conflicts too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from haneul.dns.model import CNAME, Change, Key, Present, RecordSet


@dataclass(frozen=True)
class Conflict:
    """A wanted set that cannot be because of what is there, and whose that is; nobody's is the empty text."""

    key: Key
    there: Key
    owner: str

    def __str__(self) -> str:
        whose = f"{self.owner!r}" if self.owner else "nobody that it is marked with"
        return f"{self.key.name} {self.key.type}: there is a {self.there.type} record of {whose}"


@dataclass(frozen=True)
class Plan:
    """What is to be done, in order, and what cannot be."""

    changes: tuple[Change, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


def plan(wanted: Mapping[Key, RecordSet], present: Mapping[Key, Present], owner: str) -> Plan:
    """Compare what ``owner`` wants with what is there; both of one zone."""
    changes, conflicts = [], []
    neighbours: dict[str, list[Present]] = defaultdict(list)
    for there in present.values():
        neighbours[there.records.name].append(there)
    for key, there in present.items():
        if there.owner == owner and key not in wanted:
            changes.append(Change(there.records, None))
    for key, records in wanted.items():
        if foreign := _in_the_way(key, neighbours[key.name], owner):
            conflicts.append(Conflict(key, foreign.records.key, foreign.owner))
        elif key not in present:
            changes.append(Change(None, records))
        elif present[key].records != records:
            changes.append(Change(present[key].records, records))
    # What goes comes first at each name: a CNAME cannot come before the addresses went.
    changes.sort(key=lambda change: (change.key.name, change.after is not None, change.key.type))
    return Plan(tuple(changes), tuple(sorted(conflicts, key=lambda conflict: conflict.key)))


def batches(changes: Iterable[Change], size: int) -> list[list[Change]]:
    """Divide changes into batches of about ``size`` records; those of one name stay together, whatever it takes."""
    result: list[list[Change]] = []
    filled = 0
    for together in _by_name(changes):
        weight = sum(change.size for change in together)
        if not result or filled + weight > size:
            result.append([])
            filled = 0
        result[-1].extend(together)
        filled += weight
    return result


def _in_the_way(key: Key, there: Sequence[Present], owner: str) -> Present | None:
    for neighbour in there:
        if neighbour.owner == owner:
            continue
        if neighbour.records.type == key.type or CNAME in (neighbour.records.type, key.type):
            return neighbour
    return None


def _by_name(changes: Iterable[Change]) -> list[list[Change]]:
    groups: dict[str, list[Change]] = {}
    for change in changes:
        groups.setdefault(change.key.name, []).append(change)
    return list(groups.values())
