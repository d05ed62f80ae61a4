"""Turning sightings of clusters into spans of time, and spans into sums. Pure.

Spans are exact where somebody looked at each change, as the platform's API does for its own; a change that nobody saw
is taken to have happened when it was seen. Nothing is ever counted twice, and no moment that has not come yet:

=====================================  ==============================================================================
the clock went back                    spans are cut at the present; what was recorded of the future is taken away
it went forward by more than measured  only the measured time is counted; counting begins anew at the present
nobody recorded for up to a day        clusters that kept their generation are counted through
nobody recorded for longer             counted for one day, then from when somebody looks again
a cluster is gone                      counted until it was seen last
=====================================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta

from haneul.usage.model import HOUR_SECONDS, Amount, DayUse, Sighting, Span, Usage

_LONGEST_GAP = timedelta(days=1)
#: By how much the clock may run ahead of the measured time: it is corrected in small steps all the time.
_TOLERANCE = timedelta(seconds=60)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Look:
    """One look at all clusters: when the one before was, until when time is believed to have passed, and when it is."""

    last: datetime | None
    until: datetime
    now: datetime


def look_at(last: datetime | None, now: datetime, measured: timedelta | None) -> Look:
    """Return how far time is believed to have passed between the look before and ``now``.

    ``measured`` is how long ago this process looked before, by a clock that never jumps; None after its start.
    """
    if last is None or now <= last:
        return Look(last, now, now)
    most = _LONGEST_GAP if measured is None else min(_LONGEST_GAP, measured + _TOLERANCE)
    if now - last <= most:
        return Look(last, now, now)
    return Look(last, last + (_LONGEST_GAP if measured is None else min(_LONGEST_GAP, measured)), now)


def advance(
    latest: Mapping[str, Span], seen: Iterable[Sighting], look: Look, rolled_up: Collection[str] = ()
) -> list[Span]:
    """Return the spans to write, in order, after a look at all clusters.

    ``latest`` holds each cluster's newest span by uid; of those in ``rolled_up`` only days are kept. Repeating a look
    changes nothing; one that is older than what is known already, which another process saw, is not taken.
    """
    written: list[Span] = []
    for cluster in seen:
        before = latest.get(cluster.uid)
        if before is None:
            began = look.now if cluster.uid in rolled_up else _began(cluster, look)
            written.append(_span(cluster, began, look.now))
        elif cluster.generation >= before.generation:
            written += _continued(before, cluster, look)
    return written


def _continued(before: Span, cluster: Sighting, look: Look) -> list[Span]:
    kept = replace(before, ended=max(before.ended, look.until))
    if cluster.shape == before.shape and look.until == look.now:
        return [replace(kept, generation=cluster.generation)]
    if before.started == look.now:
        # It never lasted: what follows takes its place.
        return [_span(cluster, look.now, look.now)]
    return [kept, _span(cluster, look.now, look.now)]


def _began(cluster: Sighting, look: Look) -> datetime:
    """Return from when a cluster that was never seen counts: as far back as nothing can have changed unseen."""
    if cluster.generation == 1 or (look.last is not None and look.last <= cluster.created):
        return min(cluster.created, look.now)
    return look.now


def _span(cluster: Sighting, started: datetime, ended: datetime) -> Span:
    return Span(cluster.uid, cluster.project, cluster.cluster, cluster.generation, cluster.shape, started, ended)


def amount_of(span: Span, since: datetime, until: datetime) -> Amount:
    """Return what a span amounts to between two moments."""
    seconds = max(0.0, (min(span.ended, until) - max(span.started, since)).total_seconds())
    shape = span.shape
    return Amount(seconds, seconds * shape.nodes, seconds * shape.millicores, seconds * shape.memory_mib)


def roll_up(spans: Iterable[Span], cutoff: datetime) -> tuple[list[DayUse], list[Span]]:
    """Return what the spans amount to on each day before ``cutoff`` (a midnight, UTC), and what stays of them."""
    days: dict[tuple[str, datetime], DayUse] = {}
    kept = []
    for span in spans:
        morning = datetime.combine(span.started.date(), time(), UTC)
        while morning < min(span.ended, cutoff):
            amount = amount_of(span, morning, min(morning + _DAY, cutoff))
            before = days.get((span.uid, morning))
            together = amount if before is None else before.amount + amount
            days[(span.uid, morning)] = DayUse(span.uid, span.project, span.cluster, morning.date(), together)
            morning += _DAY
        if span.ended > cutoff:
            kept.append(replace(span, started=max(span.started, cutoff)))
    return list(days.values()), kept


def totals(
    spans: Iterable[Span],
    days: Iterable[DayUse],
    *,
    since: datetime,
    until: datetime,
    visible: Mapping[str, datetime] | None = None,
    by_project: bool = False,
) -> list[Usage]:
    """Return what each cluster, or each project, had between two moments, by project and name.

    ``visible`` are the projects to count, each from a moment on; None counts all. A day that is kept as one counts
    whole if it begins in that time.
    """
    sums: dict[tuple[str, str, str], Amount] = {}

    def add(project: str, cluster: str, uid: str, amount: Amount) -> None:
        key = (project, "", "") if by_project else (project, cluster, uid)
        sums[key] = sums.get(key, Amount()) + amount

    def first(project: str) -> datetime | None:
        if visible is None:
            return since
        return max(since, visible[project]) if project in visible else None

    for span in spans:
        start = first(span.project)
        if start is not None and span.ended >= start and span.started < until:
            add(span.project, span.cluster, span.uid, amount_of(span, start, until))
    for day in days:
        start, morning = first(day.project), datetime.combine(day.day, time(), UTC)
        if start is not None and start <= morning < until:
            add(day.project, day.cluster, day.uid, day.amount)
    return [_usage(*key, sums[key]) for key in sorted(sums)]


def _usage(project: str, cluster: str, uid: str, amount: Amount) -> Usage:
    return Usage(
        project=project,
        cluster=cluster,
        uid=uid,
        cluster_hours=_rounded(amount.cluster_seconds / HOUR_SECONDS),
        node_hours=_rounded(amount.node_seconds / HOUR_SECONDS),
        cpu_core_hours=_rounded(amount.millicore_seconds / HOUR_SECONDS / 1000),
        memory_gib_hours=_rounded(amount.mib_seconds / HOUR_SECONDS / 1024),
    )


def _rounded(hours: float) -> float:
    """A ten-thousandth of an hour is a third of a second."""
    return round(hours, 4)


def cutoff_of(now: datetime, kept_days: int) -> datetime:
    """Return the midnight (UTC) before which only whole days are kept."""
    return datetime.combine(now.astimezone(UTC).date(), time(), UTC) - timedelta(days=kept_days)


def trimmed(spans: Sequence[Span], now: datetime) -> tuple[list[Span], list[Span]]:
    """Return the spans that reach into the future, cut at the present, and those that lie in it altogether."""
    cut = [replace(span, ended=now) for span in spans if span.started <= now < span.ended]
    return cut, [span for span in spans if span.started > now]
