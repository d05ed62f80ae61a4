"""Which parts of a backup make the state of a moment, what is missing, and what need not be kept."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.backup.names import Contents, Entry, Segment, Snapshot, contents_of, milliseconds, moment_of
from haneul.dkos.backup.timeline import Retention, Wish, chain, gaps, outlived, stretch_for, windows
from haneul.kernel.errors import BackupIncompleteError

BEGIN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FIRST, SECOND = f"{milliseconds(BEGIN):013d}-00000000000000aa", f"{milliseconds(BEGIN) + 9000:013d}-00000000000000bb"


def at(seconds: float) -> int:
    return milliseconds(BEGIN) + int(seconds * 1000)


def snapshot(revision: int, seconds: float, generation: str = FIRST) -> Snapshot:
    return Snapshot("uid", generation, revision, at(seconds))


def segment(first: int, last: int, begin: float, end: float, generation: str = FIRST) -> Segment:
    return Segment("uid", generation, first, last, at(begin), at(end))


def contents(*parts: Snapshot | Segment) -> Contents:
    return contents_of("uid", [Entry(part.key, 10) for part in parts])


def names(segments: Iterable[Segment]) -> list[tuple[int, int]]:
    return [(one.first, one.last) for one in segments]


def test_names_hold_all_that_a_catalogue_needs() -> None:
    parts = (snapshot(10, 0), segment(11, 20, 1, 2), snapshot(15, 1.5))
    entries = [Entry(part.key, 7) for part in parts]
    strangers = [Entry("uid/facts", 1), Entry("uid/else/what", 1), Entry(parts[0].key.replace("uid/", "other/"), 1)]
    found = contents_of("uid", [*entries, *strangers, Entry(parts[0].proof_key, 3)])
    assert [(one.revision, one.taken, one.size) for one in found.snapshots] == [(10, at(0), 7), (15, at(1.5), 7)]
    assert names(found.segments) == [(11, 20)]
    assert found.proofs == {(FIRST, 10)}
    assert found.size == 21


def test_a_revision_takes_the_last_snapshot_before_it_and_what_follows() -> None:
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2), segment(21, 30, 3, 4), snapshot(25, 3.5))
    assert stretch_for(whole, Wish(revision=22)).snapshot.revision == 10
    assert names(stretch_for(whole, Wish(revision=22)).segments) == [(11, 20), (21, 30)]
    # A snapshot may be taken in the middle of a segment; replaying passes over what it has.
    found = stretch_for(whole, Wish(revision=28))
    assert (found.snapshot.revision, names(found.segments)) == (25, [(21, 30)])
    assert stretch_for(whole, Wish(revision=10)).segments == ()


def test_a_moment_takes_all_that_had_begun_by_then() -> None:
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2), segment(21, 30, 3, 4))
    assert names(stretch_for(whole, Wish(moment=moment_of(at(0.5)))).segments) == []
    assert names(stretch_for(whole, Wish(moment=moment_of(at(2.5)))).segments) == [(11, 20)]
    assert names(stretch_for(whole, Wish(moment=moment_of(at(3.5)))).segments) == [(11, 20), (21, 30)]
    assert names(stretch_for(whole, Wish(moment=moment_of(at(99)))).segments) == [(11, 20), (21, 30)]


def test_a_gap_is_an_error_for_what_lies_behind_it_and_for_nothing_else() -> None:
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2), segment(31, 40, 5, 6))
    assert stretch_for(whole, Wish(revision=20)).reaches == 20
    assert stretch_for(whole, Wish(moment=moment_of(at(4)))).reaches == 20
    assert gaps(whole) == ((21, 30),)
    for wish in (Wish(revision=21), Wish(revision=35), Wish(moment=moment_of(at(5.5)))):
        with pytest.raises(BackupIncompleteError, match="changes after revision 20 are missing"):
            stretch_for(whole, wish)


def test_an_end_that_is_gone_is_an_error_if_it_was_known() -> None:
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2))
    assert stretch_for(whole, Wish(moment=moment_of(at(60)))).reaches == 20
    with pytest.raises(BackupIncompleteError, match="revision 33 is needed"):
        stretch_for(whole, Wish(moment=moment_of(at(60)), least=33))


@pytest.mark.parametrize("wish", [Wish(revision=9), Wish(moment=BEGIN - timedelta(seconds=1))])
def test_before_the_first_snapshot_there_is_nothing(wish: Wish) -> None:
    with pytest.raises(BackupIncompleteError, match="does not go back to"):
        stretch_for(contents(snapshot(10, 0), segment(11, 20, 1, 2)), wish)
    with pytest.raises(BackupIncompleteError, match="no snapshot at all"):
        stretch_for(contents(segment(11, 20, 1, 2)), wish)


def test_parts_that_were_put_together_count_once() -> None:
    parts = [segment(11, 15, 1, 2), segment(16, 20, 3, 4), segment(21, 25, 5, 6)]
    merged = segment(11, 20, 1, 4)
    assert names(chain(snapshot(10, 0), [*parts, merged]).segments) == [(11, 20), (21, 25)]
    assert names(chain(snapshot(10, 0), [merged, parts[1], parts[2]]).segments) == [(11, 20), (21, 25)]
    assert names(chain(snapshot(12, 0), [merged, parts[2]]).segments) == [(11, 20), (21, 25)]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12)), max_size=14))
def test_a_chain_covers_every_revision_up_to_where_it_reaches_and_not_the_next(spans: list[tuple[int, int]]) -> None:
    segments = [segment(first, first + length, 1, 2) for first, length in spans]
    covered = {number for first, length in spans for number in range(first, first + length + 1)}
    reached = 10
    while reached + 1 in covered:
        reached += 1
    assert chain(snapshot(10, 0), segments).reaches == reached


def test_a_revision_that_two_histories_have_is_the_newer_ones() -> None:
    lost = (snapshot(10, 0), segment(11, 50, 1, 5))
    # The disk was lost and an etcd began anew with low revisions.
    anew = (snapshot(3, 9, SECOND), segment(4, 20, 10, 12, SECOND))
    whole = contents(*lost, *anew)
    assert stretch_for(whole, Wish(revision=15)).snapshot.generation == SECOND
    assert stretch_for(whole, Wish(revision=45)).snapshot.generation == FIRST
    assert stretch_for(whole, Wish(moment=moment_of(at(4)))).snapshot.generation == FIRST
    assert stretch_for(whole, Wish(moment=moment_of(at(11)))).snapshot.generation == SECOND


def test_windows_say_between_which_moments_all_can_be_restored() -> None:
    whole = contents(
        snapshot(2, -90000),
        snapshot(10, 0),
        segment(11, 20, 1, 2),
        snapshot(15, 1.5),
        segment(31, 40, 5, 6),
        snapshot(35, 5.5),
        snapshot(3, 9, SECOND),
    )
    found = [(one.first, one.last, milliseconds(one.begin), milliseconds(one.end)) for one in windows(whole)]
    assert found == [
        (2, 2, at(-90000), at(-90000)),
        (10, 20, at(0), at(2)),
        (35, 40, at(5.5), at(6)),
        (3, 3, at(9), at(9)),
    ]


def hours(*numbers: float) -> list[Snapshot]:
    return [snapshot(int(number * 100) + 1, number * 3600) for number in numbers]


def test_of_the_last_hours_every_state_is_kept_then_one_snapshot_a_day() -> None:
    taken = hours(0, 6, 11, 30, 40, 58, 60, 71, 72)
    between = [
        segment(before.revision + 1, after.revision, (before.taken - at(0)) / 1000 + 1, (after.taken - at(0)) / 1000)
        for before, after in pairwise(taken)
    ]
    retention = Retention(timedelta(hours=24), timedelta(days=2), timedelta(days=1))
    gone = outlived(contents(*taken, *between), retention, BEGIN + timedelta(hours=72))
    keys = [*(one.key for one in taken), *(one.key for one in between)]
    left = contents_of("uid", [Entry(key, 1) for key in keys if key not in gone])
    # With 40 the states from hour 48 on begin; 30 is the last of the day before; what is older than two days goes.
    assert [(one.revision - 1) / 100 for one in left.snapshots] == [30, 40, 58, 60, 71, 72]
    assert all(stretch_for(left, Wish(revision=revision)) for revision in range(4001, 7202, 50))
    assert not any(one.last <= 4001 for one in left.segments)
    assert outlived(left, retention, BEGIN + timedelta(hours=72)) == ()


def test_the_newest_snapshot_stays_however_old_it_is() -> None:
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2), snapshot(20, 2), segment(21, 30, 3, 4))
    left = set(outlived(whole, Retention(), BEGIN + timedelta(days=400)))
    assert left == {snapshot(10, 0).key, segment(11, 20, 1, 2).key}


def test_proofs_go_with_their_snapshots() -> None:
    old, new = snapshot(10, 0), snapshot(20, 86400 * 30)
    entries = [Entry(old.key, 1), Entry(old.proof_key, 1), Entry(new.key, 1), Entry(new.proof_key, 1)]
    gone = outlived(contents_of("uid", entries), Retention(), BEGIN + timedelta(days=31, hours=1))
    assert gone == (old.proof_key, old.key)


def test_segments_of_a_history_without_a_snapshot_are_of_no_use() -> None:
    orphan = segment(5, 9, 1, 2, FIRST)
    whole = contents(orphan, snapshot(20, 10, SECOND), segment(21, 30, 11, 12, SECOND))
    assert outlived(whole, Retention(), BEGIN + timedelta(minutes=1)) == (orphan.key,)


def test_segments_that_came_before_their_first_snapshot_stay() -> None:
    young = segment(21, 30, 11, 12, SECOND)
    whole = contents(snapshot(10, 0), segment(11, 20, 1, 2), young)
    assert outlived(whole, Retention(), BEGIN + timedelta(minutes=1)) == ()
    assert outlived(contents(young), Retention(), BEGIN + timedelta(days=9)) == ()
