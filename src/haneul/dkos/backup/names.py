"""What a backup consists of, by the names of its objects. Pure.

A cluster's backup is a row of *generations*: what one etcd went through without a break. A generation holds snapshots,
and segments with every change that came after its first snapshot. All that is needed to find a moment stands in the
names, so that a list of names is a catalogue, and a name that is missing is seen::

    <cluster's uid>/facts                                               what the cluster is, and its keys
    <cluster's uid>/<began>-<etcd's cluster>/snapshot-<revision>-<taken>
    <cluster's uid>/<began>-<etcd's cluster>/segment-<first revision>-<last revision>-<first event>-<last event>
    <cluster's uid>/<began>-<etcd's cluster>/proof-<revision>           what a drill on that snapshot found
    <cluster's uid>/<began>-<etcd's cluster>/mark                       until when it is complete, and at which revision

Revisions are numbers of 19 digits, moments are milliseconds since 1970 of 13 digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_GENERATION: Final = r"(?P<cluster>[a-z0-9-]+)/(?P<generation>(?P<began>[0-9]{13})-(?P<etcd>[0-9a-f]{16}))/"
_SNAPSHOT: Final = re.compile(_GENERATION + r"snapshot-(?P<revision>[0-9]{19})-(?P<taken>[0-9]{13})")
_SEGMENT: Final = re.compile(
    _GENERATION + r"segment-(?P<first>[0-9]{19})-(?P<last>[0-9]{19})-(?P<begin>[0-9]{13})-(?P<end>[0-9]{13})"
)
_PROOF: Final = re.compile(_GENERATION + r"proof-(?P<revision>[0-9]{19})")


def milliseconds(moment: datetime) -> int:
    """Return a moment as whole milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def moment_of(value: int) -> datetime:
    """Return the moment of milliseconds since 1970."""
    return datetime.fromtimestamp(value / 1000, UTC)


def facts_key(cluster: str) -> str:
    """Return the name of the object that says what a cluster is."""
    return f"{cluster}/facts"


def generation_name(began: datetime, etcd: int) -> str:
    """Return a generation's name; ``etcd`` is the number that etcd gave itself as a cluster of members."""
    return f"{milliseconds(began):013d}-{etcd:016x}"


def mark_key(cluster: str, generation: str) -> str:
    """Return the name of the object that says until when a generation is complete."""
    return f"{cluster}/{generation}/mark"


@dataclass(frozen=True)
class Interruption:
    """A time (in milliseconds) in which nobody saw changes come, the last ``revision`` before it.

    What came then is there, but not when it came.
    """

    since: int
    until: int
    revision: int


@dataclass(frozen=True)
class Mark:
    """Until which moment (in milliseconds) a generation is complete, and the revision that etcd had then."""

    complete: int
    revision: int
    interruptions: tuple[Interruption, ...] = ()


@dataclass(frozen=True, order=True)
class Snapshot:
    """The whole state at one revision; ``taken`` is right before it was asked for, in milliseconds."""

    cluster: str
    generation: str
    revision: int
    taken: int
    size: int = 0

    @property
    def key(self) -> str:
        """Return its object's name."""
        return f"{self.cluster}/{self.generation}/snapshot-{self.revision:019d}-{self.taken:013d}"

    @property
    def proof_key(self) -> str:
        """Return the name of the object with what a drill on it found."""
        return f"{self.cluster}/{self.generation}/proof-{self.revision:019d}"


@dataclass(frozen=True, order=True)
class Segment:
    """All changes from the revision ``first`` to ``last``, which came at ``begin`` to ``end``, in milliseconds."""

    cluster: str
    generation: str
    first: int
    last: int
    begin: int
    end: int
    size: int = 0

    @property
    def key(self) -> str:
        """Return its object's name."""
        name = f"segment-{self.first:019d}-{self.last:019d}-{self.begin:013d}-{self.end:013d}"
        return f"{self.cluster}/{self.generation}/{name}"


@dataclass(frozen=True)
class Entry:
    """An object in a store: its name and its size in bytes."""

    key: str
    size: int


@dataclass(frozen=True)
class Contents:
    """What a store holds of one cluster."""

    snapshots: tuple[Snapshot, ...] = ()
    segments: tuple[Segment, ...] = ()
    #: Generation and revision of the snapshots that a drill tried.
    proofs: frozenset[tuple[str, int]] = frozenset()

    @property
    def size(self) -> int:
        """Return how many bytes all of it has."""
        return sum(one.size for one in self.snapshots) + sum(one.size for one in self.segments)

    @property
    def generations(self) -> tuple[str, ...]:
        """Return the names of all generations, oldest first."""
        found = {one.generation for one in self.snapshots} | {one.generation for one in self.segments}
        return tuple(sorted(found))


def contents_of(cluster: str, entries: Iterable[Entry]) -> Contents:
    """Return what a store's entries are of a cluster; anything that has another kind of name is passed over."""
    snapshots, segments, proofs = [], [], set()
    for entry in entries:
        if (found := _SNAPSHOT.fullmatch(entry.key)) and found["cluster"] == cluster:
            revision, taken = int(found["revision"]), int(found["taken"])
            snapshots.append(Snapshot(cluster, found["generation"], revision, taken, entry.size))
        elif (found := _SEGMENT.fullmatch(entry.key)) and found["cluster"] == cluster:
            first, last, begin, end = (int(found[name]) for name in ("first", "last", "begin", "end"))
            segments.append(Segment(cluster, found["generation"], first, last, begin, end, entry.size))
        elif (found := _PROOF.fullmatch(entry.key)) and found["cluster"] == cluster:
            proofs.add((found["generation"], int(found["revision"])))
    return Contents(tuple(sorted(snapshots)), tuple(sorted(segments)), frozenset(proofs))
