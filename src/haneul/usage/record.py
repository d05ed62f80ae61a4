"""The record of usage in SQL: one look at a time is written, whole or not at all.

Several API processes share the database. A look locks the one row of ``usage_looks`` before anything else, so there is
one writer at a time; repeated and outdated looks change nothing, so it does not matter which process it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import RowMapping, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.kernel.clock import Clock
from haneul.kernel.database import writing
from haneul.usage import tables
from haneul.usage.accounting import advance, cutoff_of, look_at, roll_up, trimmed
from haneul.usage.model import Amount, DayUse, Shape, Sighting, Span

#: Days after which only sums of whole days are kept.
KEPT_DAYS: Final = 90


class UsageRecord:
    """Spans and days, in one database."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._looked: float | None = None

    async def note(self, seen: Sequence[Sighting]) -> None:
        """Write down a look at all clusters, which was just taken."""
        async with writing(self._engine) as connection:
            held = select(tables.looks.c.moment).where(tables.looks.c.id == 1).with_for_update()
            last = _aware((await connection.execute(held)).scalar_one())
            # Only now: waiting for the lock may have taken long.
            now, elapsed = self._clock.now(), self._clock.monotonic()
            measured = None if self._looked is None else timedelta(seconds=elapsed - self._looked)
            if last is not None and now < last:
                await _trim(connection, now)
                last = now
            look = look_at(last, now, measured)
            latest = await _latest(connection, [cluster.uid for cluster in seen])
            unknown = [cluster.uid for cluster in seen if cluster.uid not in latest]
            await _write(connection, advance(latest, seen, look, await _rolled_up(connection, unknown)))
            cutoff = cutoff_of(now, KEPT_DAYS)
            # Not by a clock that just jumped: what is rolled up cannot be taken back exactly.
            if last is not None and look.until == now and cutoff_of(last, KEPT_DAYS) < cutoff:
                await _roll_up(connection, cutoff)
            await connection.execute(update(tables.looks).where(tables.looks.c.id == 1).values(moment=now))
        self._looked = elapsed

    async def between(
        self, since: datetime, until: datetime, projects: Collection[str] | None = None
    ) -> tuple[list[Span], list[DayUse]]:
        """Return everything that reaches into a time, of some projects or of all."""
        spans = select(tables.spans).where(tables.spans.c.ended >= since, tables.spans.c.started < until)
        days = select(tables.days).where(tables.days.c.day >= since.date(), tables.days.c.day <= until.date())
        if projects is not None:
            spans = spans.where(tables.spans.c.project.in_(list(projects)))
            days = days.where(tables.days.c.project.in_(list(projects)))
        async with self._engine.connect() as connection:
            found = (await connection.execute(spans)).mappings().all()
            rolled = (await connection.execute(days)).mappings().all()
        return [_span(row) for row in found], [_day(row) for row in rolled]


async def _latest(connection: AsyncConnection, uids: Sequence[str]) -> dict[str, Span]:
    """Return each cluster's newest span."""
    newest = (
        select(tables.spans.c.uid, func.max(tables.spans.c.started).label("started"))
        .where(tables.spans.c.uid.in_(uids))
        .group_by(tables.spans.c.uid)
        .subquery()
    )
    query = select(tables.spans).join(
        newest, (tables.spans.c.uid == newest.c.uid) & (tables.spans.c.started == newest.c.started)
    )
    return {row["uid"]: _span(row) for row in (await connection.execute(query)).mappings()}


async def _rolled_up(connection: AsyncConnection, uids: Sequence[str]) -> set[str]:
    """Return the clusters of which days are kept."""
    query = select(tables.days.c.uid).where(tables.days.c.uid.in_(uids)).distinct()
    return set((await connection.execute(query)).scalars()) if uids else set()


async def _write(connection: AsyncConnection, spans: Sequence[Span]) -> None:
    """Write spans in place of those of the same clusters and starts."""
    await _remove(connection, spans)
    if spans:
        await connection.execute(insert(tables.spans), [_values(span) for span in spans])


async def _remove(connection: AsyncConnection, spans: Sequence[Span]) -> None:
    same = (tables.spans.c.uid == bindparam("of_uid")) & (tables.spans.c.started == bindparam("of_start"))
    if spans:
        named = [{"of_uid": span.uid, "of_start": span.started} for span in spans]
        await connection.execute(delete(tables.spans).where(same), named)


async def _trim(connection: AsyncConnection, now: datetime) -> None:
    query = select(tables.spans).where(tables.spans.c.ended > now)
    spans = [_span(row) for row in (await connection.execute(query)).mappings()]
    cut, gone = trimmed(spans, now)
    await _remove(connection, gone)
    await _write(connection, cut)
    await connection.execute(delete(tables.days).where(tables.days.c.day > now.date()))


async def _roll_up(connection: AsyncConnection, cutoff: datetime) -> None:
    query = select(tables.spans).where(tables.spans.c.started < cutoff)
    old = [_span(row) for row in (await connection.execute(query)).mappings()]
    days, kept = roll_up(old, cutoff)
    await _remove(connection, old)
    await _write(connection, kept)
    for day in days:
        same = (tables.days.c.uid == day.uid) & (tables.days.c.day == day.day)
        row = (await connection.execute(select(tables.days).where(same))).mappings().first()
        amount = day.amount if row is None else _day(row).amount + day.amount
        await connection.execute(delete(tables.days).where(same))
        values = {"uid": day.uid, "project": day.project, "cluster": day.cluster, "day": day.day}
        await connection.execute(insert(tables.days).values(**values, **asdict(amount)))


def _values(span: Span) -> dict[str, Any]:
    values = asdict(span)
    return {**values, **values.pop("shape")}


def _span(row: RowMapping) -> Span:
    started, ended = _aware(row["started"]), _aware(row["ended"])
    if started is None or ended is None:
        raise AssertionError("the columns are not null")
    shape = Shape(row["nodes"], row["millicores"], row["memory_mib"])
    return Span(row["uid"], row["project"], row["cluster"], row["generation"], shape, started, ended)


def _day(row: RowMapping) -> DayUse:
    amount = Amount(row["cluster_seconds"], row["node_seconds"], row["millicore_seconds"], row["mib_seconds"])
    day: date = row["day"]
    return DayUse(row["uid"], row["project"], row["cluster"], day, amount)


def _aware(moment: datetime | None) -> datetime | None:
    """SQLite forgets time zones; all moments are written in UTC."""
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
