"""Usage over time: spans from sightings, sums from spans, whatever the clock and the processes do."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.usage.accounting import Look, advance, amount_of, cutoff_of, look_at, roll_up, totals, trimmed
from haneul.usage.model import Amount, DayUse, Shape, Sighting, Span

T0 = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SMALL, LARGE = Shape(1, 2100, 2560), Shape(3, 6100, 6656)
HOUR = timedelta(hours=1)


def sighting(shape: Shape = SMALL, generation: int = 1, created: datetime = T0, uid: str = "u1") -> Sighting:
    return Sighting(uid, "shop", "web", created, generation, shape)


def span(started: datetime, ended: datetime, shape: Shape = SMALL, uid: str = "u1", project: str = "shop") -> Span:
    return Span(uid, project, "web", 1, shape, started, ended)


class Record:
    """Spans as the database keeps them."""

    def __init__(self) -> None:
        self.spans: dict[tuple[str, datetime], Span] = {}
        self.last: datetime | None = None

    def look(self, now: datetime, *seen: Sighting, measured: timedelta | None = None) -> None:
        if self.last is not None and now < self.last:
            cut, gone = trimmed(list(self.spans.values()), now)
            self.spans = {
                key: kept
                for key, kept in {**self.spans, **{(s.uid, s.started): s for s in cut}}.items()
                if kept not in gone
            }
            self.last = now
        latest: dict[str, Span] = {}
        for kept in sorted(self.spans.values(), key=lambda entry: entry.started):
            latest[kept.uid] = kept
        for written in advance(latest, seen, look_at(self.last, now, measured)):
            self.spans[(written.uid, written.started)] = written
        self.last = now

    def hours(self, since: datetime = T0 - HOUR, until: datetime = T0 + timedelta(days=4000)) -> tuple[float, float]:
        found = totals(self.spans.values(), [], since=since, until=until)
        return sum(entry.cluster_hours for entry in found), sum(entry.node_hours for entry in found)


def test_time_is_counted_from_creation_to_the_last_look() -> None:
    record = Record()
    record.look(T0 + timedelta(seconds=20), sighting())
    record.look(T0 + HOUR, sighting(), measured=HOUR)
    record.look(T0 + 2 * HOUR, measured=HOUR)
    assert record.hours() == (1.0, 1.0)


def test_a_change_counts_from_when_it_was_seen() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + HOUR, sighting(LARGE, 2))
    record.look(T0 + 3 * HOUR, sighting(LARGE, 2))
    assert record.hours() == (3.0, 1.0 + 2 * 3.0)
    assert record.hours(T0 + 2 * HOUR, T0 + 2.5 * HOUR) == (0.5, 1.5)


def test_a_change_that_alters_nothing_of_the_shape_goes_on_in_one_span() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + HOUR, sighting(SMALL, 2))
    assert [entry.generation for entry in record.spans.values()] == [2]


def test_a_shape_that_never_lasted_leaves_nothing() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0, sighting(LARGE, 2))
    assert [entry.shape for entry in record.spans.values()] == [LARGE]


def test_looks_may_be_repeated_and_outdated_ones_are_not_taken() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + HOUR, sighting(LARGE, 2))
    before = dict(record.spans)
    record.look(T0 + HOUR, sighting(LARGE, 2))
    record.look(T0 + HOUR, sighting(SMALL, 1))
    assert record.spans == before


def test_a_cluster_seen_for_the_first_time_counts_as_far_back_as_is_certain() -> None:
    old = T0 - timedelta(days=9)
    for generation, last, began in (
        (1, None, old),
        (1, T0 - HOUR, old),
        (4, None, T0),
        (4, T0 - HOUR, T0),
        (4, old - HOUR, old),
    ):
        written = advance({}, [sighting(generation=generation, created=old)], Look(last, T0, T0))
        assert [entry.started for entry in written] == [began]
    early = advance({}, [sighting(created=T0 + HOUR)], Look(None, T0, T0))
    assert [(entry.started, entry.ended) for entry in early] == [(T0, T0)]


def test_nobody_recording_for_some_hours_loses_nothing() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + 20 * HOUR, sighting())
    assert record.hours() == (20.0, 20.0)


def test_nobody_recording_for_long_counts_a_day() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + timedelta(days=400), sighting())
    record.look(T0 + timedelta(days=400) + HOUR, sighting(), measured=HOUR)
    assert record.hours() == (25.0, 25.0)


def test_a_clock_that_jumps_forward_counts_what_was_measured() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + timedelta(days=3650), sighting(), measured=HOUR)
    assert record.hours() == (1.0, 1.0)
    record.look(T0 + 2 * HOUR, sighting(), measured=HOUR)
    record.look(T0 + 3 * HOUR, sighting(), measured=HOUR)
    assert record.hours() == (3.0, 3.0)


def test_a_clock_that_goes_back_counts_nothing_twice() -> None:
    record = Record()
    record.look(T0, sighting())
    record.look(T0 + 10 * HOUR, sighting())
    record.look(T0 + 4 * HOUR, sighting())
    record.look(T0 + 5 * HOUR, sighting())
    assert record.hours() == (5.0, 5.0)


@given(
    steps=st.lists(
        st.tuples(st.integers(-7200, 7200), st.sampled_from([SMALL, LARGE]), st.booleans()), min_size=1, max_size=30
    )
)
def test_spans_never_overlap_and_never_reach_beyond_the_last_look(steps: list[tuple[int, Shape, bool]]) -> None:
    record, now, generation, shape = Record(), T0, 1, SMALL
    for seconds, wanted, there in steps:
        now += timedelta(seconds=seconds)
        if wanted != shape:
            generation, shape = generation + 1, wanted
        seen = [sighting(shape, generation, created=T0 - HOUR)] if there else []
        record.look(now, *seen, measured=timedelta(seconds=max(0, seconds)))
        spans = sorted(record.spans.values(), key=lambda entry: entry.started)
        assert all(entry.started <= entry.ended <= now for entry in spans)
        assert all(before.ended <= after.started for before, after in itertools.pairwise(spans))


@given(cuts=st.lists(st.integers(0, 10 * 86400), min_size=2, max_size=8), cutoff=st.integers(0, 10))
def test_rolling_up_keeps_every_second(cuts: list[int], cutoff: int) -> None:
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=cut) for cut in sorted(cuts)]
    shapes = [SMALL, LARGE] * 4
    spans = [span(start, end, shape) for start, end, shape in zip(moments[:-1], moments[1:], shapes, strict=False)]
    midnight = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=cutoff)
    days, kept = roll_up(spans, midnight)
    far = timedelta(days=100)

    def together(spans: list[Span], days: list[DayUse]) -> Amount:
        amount = Amount()
        for entry in spans:
            amount = amount + amount_of(entry, moments[0] - far, moments[-1] + far)
        for day in days:
            amount = amount + day.amount
        return amount

    assert together(kept, days) == together(spans, [])
    assert all(entry.started >= midnight for entry in kept)
    assert all(day.day < midnight.date() for day in days)
    assert len({day.day for day in days}) == len(days)
    assert roll_up(kept, midnight) == ([], kept)


def test_sums_are_by_cluster_or_by_project_and_only_of_what_may_be_seen() -> None:
    spans = [
        span(T0, T0 + HOUR, uid="u1"),
        span(T0, T0 + 2 * HOUR, uid="u2"),
        span(T0, T0 + HOUR, LARGE, uid="u3", project="other"),
    ]
    days = [DayUse("u0", "shop", "old", date(2026, 11, 23), Amount(3600, 7200, 3_600_000, 3600 * 1024))]
    until, since = T0 + 9 * HOUR, T0 - timedelta(days=3)
    by_cluster = totals(spans, days, since=since, until=until)
    assert [(entry.project, entry.uid, entry.cluster_hours) for entry in by_cluster] == [
        ("other", "u3", 1.0),
        ("shop", "u0", 1.0),
        ("shop", "u1", 1.0),
        ("shop", "u2", 2.0),
    ]
    assert (by_cluster[0].node_hours, by_cluster[0].cpu_core_hours, by_cluster[0].memory_gib_hours) == (3.0, 6.1, 6.5)
    mine = totals(spans, days, since=since, until=until, visible={"shop": T0 + HOUR}, by_project=True)
    assert [(entry.project, entry.cluster, entry.cluster_hours) for entry in mine] == [("shop", "", 1.0)]


def test_the_cutoff_is_a_midnight() -> None:
    assert cutoff_of(T0, 90) == datetime(2026, 8, 26, tzinfo=UTC)


@pytest.mark.parametrize("measured", [None, timedelta(seconds=30)])
def test_a_look_at_the_same_moment_passes_no_time(measured: timedelta | None) -> None:
    assert look_at(T0, T0, measured) == Look(T0, T0, T0)
