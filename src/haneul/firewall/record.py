"""The record of the firewall gate in SQL: who asked for gated pools, and every decision, kept for good.

Rows are only ever added; the database refuses everything else. A decision, what was read for it and its audit record
are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import RowMapping, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.firewall import tables
from haneul.firewall.model import Actor, Asker, Decision, DecisionKind, Way
from haneul.kernel.clock import Clock
from haneul.kernel.database import writing


class AuditedChanges(Protocol):
    """Opens transactions that end with their audit record."""

    def change(
        self, actor: Actor, action: str, target: str, project: str
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Open the transaction of a change and of its record; other changes wait meanwhile."""
        ...


#: Raises if a decision must not be taken, knowing who asked for the pool and the last decision on the way.
Check = Callable[[Sequence[Asker], Decision | None], None]


class FirewallRecord:
    """Askers and decisions in one database."""

    def __init__(self, engine: AsyncEngine, *, changes: AuditedChanges, clock: Clock) -> None:
        self._engine = engine
        self._changes = changes
        self._clock = clock

    async def note(
        self, project: str, cluster: str, pools: Iterable[tuple[str, str]], *, person: str, behind: Iterable[str]
    ) -> None:
        """Write down who asks for pools, given as pairs of name and digest, and who is behind them."""
        now = self._clock.now()
        people = [(person, False), *((name, True) for name in behind if name != person)]
        rows = [
            {
                "moment": now,
                "project": project,
                "cluster": cluster,
                "pool": pool,
                "asked": asked,
                "person": name,
                "behind": is_behind,
            }
            for pool, asked in pools
            for name, is_behind in people
        ]
        if rows:
            async with writing(self._engine) as connection:
                await connection.execute(insert(tables.askers), rows)

    async def askers(self, project: str) -> dict[tuple[str, str], list[Asker]]:
        """Return everybody who ever asked for a pool of a project, by cluster and pool."""
        query = select(tables.askers).where(tables.askers.c.project == project).order_by("number")
        found: dict[tuple[str, str], list[Asker]] = {}
        for row in await self._rows(query):
            found.setdefault((row["cluster"], row["pool"]), []).append(_asker(row))
        return found

    async def decide(self, kind: DecisionKind, way: Way, actor: Actor, why: str, check: Check) -> Decision:
        """Append a decision on a way, unless ``check`` refuses it by what is true at this moment."""
        action = f"firewall.{_VERBS[kind]}"
        async with self._changes.change(actor, action, way.shown, way.project) as connection:
            asked = tables.askers.c
            pool = (asked.project == way.project) & (asked.cluster == way.cluster) & (asked.pool == way.pool)
            askers = [_asker(row) for row in (await connection.execute(select(tables.askers).where(pool))).mappings()]
            newest = _latest().where(tables.decisions.c.way_id == way.id)
            row = (await connection.execute(newest)).mappings().first()
            check(askers, None if row is None else _decision(row))
            values: dict[str, Any] = {
                "moment": self._clock.now(),
                "kind": kind,
                "person": actor.person,
                "why": why,
                "source": actor.source,
                "request_id": actor.request_id,
                "way_id": way.id,
                "project": way.project,
                "way": way.model_dump(mode="json", by_alias=True),
            }
            made = await connection.execute(insert(tables.decisions).values(**values))
            number = made.inserted_primary_key
            assert number is not None  # noqa: S101 - every row gets a number
        return _made(values, way, number[0])

    async def latest(self) -> dict[str, Decision]:
        """Return the last decision on each way, by the way's id."""
        return {row["way_id"]: _decision(row) for row in await self._rows(_latest())}

    async def history(self, projects: Sequence[str] | None, *, before: int | None, limit: int) -> list[Decision]:
        """Return decisions, newest first, of some projects or of all, older than number ``before``."""
        query = select(tables.decisions).order_by(tables.decisions.c.number.desc()).limit(limit)
        if projects is not None:
            query = query.where(tables.decisions.c.project.in_(projects))
        if before is not None:
            query = query.where(tables.decisions.c.number < before)
        return [_decision(row) for row in await self._rows(query)]

    async def _rows(self, query: Any) -> list[RowMapping]:
        async with self._engine.connect() as connection:
            return list((await connection.execute(query)).mappings())


_VERBS = {
    DecisionKind.APPROVED: "approve",
    DecisionKind.DENIED: "deny",
    DecisionKind.REVOKED: "revoke",
    DecisionKind.LAPSED: "lapse",
}


def _latest() -> Any:
    newest = select(func.max(tables.decisions.c.number)).group_by(tables.decisions.c.way_id)
    return select(tables.decisions).where(tables.decisions.c.number.in_(newest))


def _asker(row: RowMapping) -> Asker:
    return Asker(person=row["person"], behind=row["behind"], asked=row["asked"])


def _made(values: dict[str, Any], way: Way, number: int) -> Decision:
    kept = {name: value for name, value in values.items() if name not in ("project", "way")}
    return Decision(**kept, way=way, number=number)


def _decision(row: RowMapping) -> Decision:
    moment: datetime = row["moment"]
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    kept = {name: value for name, value in row.items() if name not in ("project", "way", "moment")}
    return Decision(**kept, moment=aware, way=Way.model_validate(row["way"]))
