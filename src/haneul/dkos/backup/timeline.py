"""Which parts of a backup make the state of a moment, what is missing, and what need not be kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from haneul.dkos.backup.names import Contents, Mark, Segment, Snapshot, milliseconds, moment_of
from haneul.kernel.errors import BackupIncompleteError

_HINT: Final = "'haneul cluster backup list NAME' shows what can be restored"
_DAY: Final = 24 * 3600 * 1000


@dataclass(frozen=True)
class Wish:
    """What is to be restored: the state at a revision, or the last one before a moment; with neither, the newest.

    ``least`` is a revision that the backup is known to have reached by then: if it has not, a part of it is gone.
    """

    revision: int = 0
    moment: datetime | None = None
    least: int = 0

    @property
    def is_newest(self) -> bool:
        """Say whether the newest state is wanted."""
        return not self.revision and self.moment is None


@dataclass(frozen=True)
class Stretch:
    """A snapshot and the segments that come after it, without a gap."""

    snapshot: Snapshot
    segments: tuple[Segment, ...] = ()

    @property
    def reaches(self) -> int:
        """Return the last revision in it."""
        return max((segment.last for segment in self.segments), default=self.snapshot.revision)


@dataclass(frozen=True)
class Window:
    """Moments between which every state can be restored; of a snapshot that stands alone, its own moment twice."""

    generation: str
    begin: datetime
    end: datetime
    first: int
    last: int


@dataclass(frozen=True)
class Retention:
    """How long what is kept: every state for some hours, then one snapshot a day."""

    every_state: timedelta = timedelta(hours=24)
    daily: timedelta = timedelta(days=7)
    deleted: timedelta = timedelta(days=7)


def chain(snapshot: Snapshot, segments: Sequence[Segment]) -> Stretch:
    """Return the snapshot with the segments that follow it up to the first gap.

    Where several have the next revision, the one that reaches farthest counts: parts that were put together stay beside
    the whole until they are deleted.
    """
    own = sorted(segment for segment in segments if segment.generation == snapshot.generation)
    chosen: list[Segment] = []
    reached, place = snapshot.revision, 0
    while True:
        best: Segment | None = None
        while place < len(own) and own[place].first <= reached + 1:
            if own[place].last > (best.last if best is not None else reached):
                best = own[place]
            place += 1
        if best is None:
            return Stretch(snapshot, tuple(chosen))
        chosen.append(best)
        reached = best.last


def up_to(snapshot: Snapshot, contents: Contents, revision: int) -> Stretch:
    """Return the snapshot with what follows it up to a revision. Raises BackupIncompleteError."""
    whole = chain(snapshot, contents.segments)
    if whole.reaches < revision:
        raise BackupIncompleteError(
            f"changes after revision {whole.reaches} are missing, and revision {revision} is needed", hint=_HINT
        )
    return Stretch(snapshot, tuple(segment for segment in whole.segments if segment.first <= revision))


def stretch_for(contents: Contents, wish: Wish) -> Stretch:
    """Return what has to be read for a wish. Raises BackupIncompleteError, saying what is not there."""
    snapshot = _snapshot_for(contents, wish)
    if wish.is_newest:
        # What is newest may lie behind a gap; then nothing older is given for it.
        last = max((one.last for one in contents.segments if one.generation == snapshot.generation), default=0)
        up_to(snapshot, contents, max(wish.least, last))
        return chain(snapshot, contents.segments)
    if wish.moment is None:
        return up_to(snapshot, contents, max(wish.revision, wish.least))
    # Of what came by then nothing may be left out: the last segment that begins by then has to be in the chain.
    limit = milliseconds(wish.moment)
    own = [one for one in contents.segments if one.generation == snapshot.generation and one.begin <= limit]
    whole = up_to(snapshot, contents, max((wish.least, *(one.first for one in own))))
    return Stretch(snapshot, tuple(segment for segment in whole.segments if segment.begin <= limit))


def at_least(wish: Wish, mark: Mark | None) -> Wish:
    """Return the wish with what its generation had reached by that moment, as the generation's own mark says."""
    is_later = wish.is_newest or (
        wish.moment is not None and mark is not None and milliseconds(wish.moment) >= mark.complete
    )
    if mark is None or not is_later:
        return wish
    return replace(wish, least=max(wish.least, mark.revision))


def _snapshot_for(contents: Contents, wish: Wish) -> Snapshot:
    limit = None if wish.moment is None else milliseconds(wish.moment)
    fitting = [
        snapshot
        for snapshot in contents.snapshots
        if wish.is_newest or (snapshot.revision <= wish.revision if limit is None else snapshot.taken <= limit)
    ]
    if not fitting:
        revision = f"revision {wish.revision}" if wish.revision else "any moment"
        wanted = revision if wish.moment is None else f"{wish.moment:%Y-%m-%d %H:%M:%S} UTC"
        first = min((snapshot.taken for snapshot in contents.snapshots), default=None)
        since = "there is no snapshot at all" if first is None else f"it begins at {moment_of(first):%Y-%m-%d %H:%M:%S}"
        raise BackupIncompleteError(f"the backup does not go back to {wanted}: {since}", hint=_HINT)
    # A later generation goes on with higher revisions, but one that began anew after a loss has lower ones: of those
    # that fit, the newest generation in which the revision can be reached counts.
    newest = max(fitting, key=lambda snapshot: (snapshot.generation, snapshot.revision))
    if limit is not None or wish.is_newest:
        return newest
    for name in sorted({snapshot.generation for snapshot in fitting}, reverse=True):
        best = max((one for one in fitting if one.generation == name), key=lambda snapshot: snapshot.revision)
        reached = max((one.last for one in contents.segments if one.generation == name), default=0)
        if max(reached, best.revision) >= wish.revision:
            return best
    return newest


def windows(contents: Contents, marks: Mapping[str, Mark] = MappingProxyType({})) -> tuple[Window, ...]:
    """Return from when to when every state can be restored, oldest first; ``marks`` by generation.

    Nothing comes for a while when nothing happens; until its mark, the last state of a generation holds. Interruptions
    part moments, though not revisions.
    """
    found: list[Window] = []
    for snapshot in contents.snapshots:
        last = found[-1] if found else None
        if last is not None and last.generation == snapshot.generation and snapshot.revision <= last.last:
            continue
        whole = chain(snapshot, contents.segments)
        end = max((segment.end for segment in whole.segments), default=snapshot.taken)
        mark = marks.get(snapshot.generation)
        if mark is not None and mark.revision <= whole.reaches:
            end = max(end, mark.complete)
        begin, end = min(snapshot.taken, end), max(snapshot.taken, end)
        first = snapshot.revision
        for one in mark.interruptions if mark is not None else ():
            if first <= one.revision < whole.reaches:
                until = max(begin, one.since)
                found.append(Window(snapshot.generation, moment_of(begin), moment_of(until), first, one.revision))
                begin, first = one.until, one.revision + 1
        end = max(begin, end)
        found.append(Window(snapshot.generation, moment_of(begin), moment_of(end), first, whole.reaches))
    return tuple(found)


def gaps(contents: Contents) -> tuple[tuple[int, int], ...]:
    """Return the first and last revision of each gap within what should be without one.

    Snapshots that outlived their segments are no gap: after a gap there are segments again, in the same generation.
    """
    found = []
    for name in contents.generations:
        own = [segment for segment in contents.segments if segment.generation == name]
        reached = None
        for segment in sorted(own):
            if reached is not None and segment.first > reached + 1:
                found.append((reached + 1, segment.first - 1))
            reached = max(reached or 0, segment.last)
    return tuple(found)


def outlived(contents: Contents, retention: Retention, now: datetime) -> tuple[str, ...]:
    """Return the names of the objects that need not be kept, in the order in which they are deleted.

    Every state of the last hours stays possible, which takes the newest snapshot before them too; before that, the
    last snapshot of each day is kept alone. The newest snapshot of all is always kept, with what came after it; so is
    what is newer and has yet to get its first snapshot.
    """
    moment = milliseconds(now)
    begin = moment - int(retention.every_state.total_seconds() * 1000)
    oldest_day = moment - int(retention.daily.total_seconds() * 1000)
    snapshots = sorted(contents.snapshots, key=lambda snapshot: (snapshot.generation, snapshot.revision))
    before = [snapshot for snapshot in snapshots if snapshot.taken < begin]
    needed = {snapshot for snapshot in snapshots if snapshot.taken >= begin}
    base = before[-1] if before else None
    if base is not None:
        needed.add(base)
    daily = {snapshot.taken // _DAY: snapshot for snapshot in before if snapshot.taken >= oldest_day}
    kept = needed | set(daily.values())
    gone: list[str] = []
    newest = max((snapshot.generation for snapshot in snapshots), default="")
    for segment in contents.segments:
        if segment.generation > newest:
            continue
        same = [snapshot.revision for snapshot in needed if snapshot.generation == segment.generation]
        # With the snapshots goes what only led on from them.
        if not same or segment.last <= min(same):
            gone.append(segment.key)
    for snapshot in snapshots:
        if snapshot not in kept:
            if (snapshot.generation, snapshot.revision) in contents.proofs:
                gone.append(snapshot.proof_key)
            gone.append(snapshot.key)
    return tuple(gone)
