"""Deliveries in SQL: whose turn it is, who holds it, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, and_, delete, func, literal, or_, select, tuple_, update

from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.deliveries import Backlog, Delivery, DeliveryState, Head, Outcome
from haneul.d2hub.tables import deliveries
from haneul.kernel.database import aware

_LONGEST_ANSWER: Final = 200
_WAITS: Final = deliveries.c.state == str(DeliveryState.WAITING)
#: What is in order with itself. The index has these columns, and the number behind them.
_QUEUE: Final[tuple[Column[Any], ...]] = (deliveries.c.project, deliveries.c.receiver, deliveries.c.repository)
_FIRST: Final = (
    select(deliveries.c.id, *_QUEUE, deliveries.c.due, deliveries.c.held)
    .where(_WAITS)
    .order_by(*_QUEUE, deliveries.c.id)
    .limit(1)
)


class SqlOutbox:
    """Deliveries of one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    @reads
    def heads(self, connection: Connection, *, now: datetime, project: str = "", receiver: str = "") -> Sequence[Head]:
        """Go from one queue's first to the next queue's: however many wait, one row of each queue is read."""
        query, queue = _FIRST, _QUEUE
        if receiver:
            # Compared with all three, SQLite would read everything of the receiver that waits.
            query = query.where(deliveries.c.project == project, deliveries.c.receiver == receiver)
            queue = _QUEUE[2:]
        found: list[Head] = []
        row = connection.execute(query).one_or_none()
        while row is not None:
            if aware(row.due) <= now and (row.held is None or aware(row.held) <= now):
                found.append(Head(row.id, row.project, row.receiver))
            last = (row.project, row.receiver, row.repository)[-len(queue) :]
            behind = tuple_(*queue) > tuple_(*map(literal, last))
            row = connection.execute(query.where(behind)).one_or_none()
        return sorted(found, key=lambda head: head.number)

    @writes
    def take(self, connection: Connection, number: int, *, now: datetime, until: datetime) -> Delivery | None:
        """Hold a delivery, in one statement: of two who try, the second finds it held."""
        change = (
            update(deliveries)
            .where(deliveries.c.id == number, _WAITS, deliveries.c.due <= now, _free(now))
            .values(held=until, attempts=deliveries.c.attempts + 1)
            .returning(deliveries)
        )
        row = connection.execute(change).one_or_none()
        return None if row is None else _delivery(row)

    @writes
    def settle(self, connection: Connection, number: int, outcome: Outcome, *, attempts: int) -> None:
        """Let go of a delivery."""
        ended = outcome.state is not DeliveryState.WAITING
        moment = {"ended": outcome.at} if ended else {"due": outcome.at}
        values = {"state": str(outcome.state), "answer": outcome.answer[:_LONGEST_ANSWER], "held": None, **moment}
        mine = and_(deliveries.c.id == number, deliveries.c.attempts == attempts, _WAITS)
        connection.execute(update(deliveries).where(mine).values(values))

    @reads
    def listed(
        self,
        connection: Connection,
        project: str,
        *,
        state: DeliveryState | None,
        before: int = 0,
        limit: int,
    ) -> Sequence[Delivery]:
        """List deliveries backwards."""
        query = select(deliveries).where(deliveries.c.project == project)
        if state is not None:
            query = query.where(deliveries.c.state == str(state))
        if before:
            query = query.where(deliveries.c.id < before)
        rows = connection.execute(query.order_by(deliveries.c.id.desc()).limit(limit)).all()
        return [_delivery(row) for row in rows]

    @writes
    def again(self, connection: Connection, project: str, number: int, *, now: datetime) -> bool:
        """Let a failed delivery wait again."""
        failed = deliveries.c.state == str(DeliveryState.FAILED)
        change = (
            update(deliveries)
            .where(deliveries.c.id == number, deliveries.c.project == project, failed)
            .values(state=str(DeliveryState.WAITING), attempts=0, due=now, ended=None)
        )
        return bool(connection.execute(change).rowcount)

    @reads
    def backlog(self, connection: Connection) -> Backlog:
        """Count what waits."""
        query = select(func.count(), func.min(deliveries.c.id)).where(_WAITS)
        waiting, first = connection.execute(query).one()
        made = select(deliveries.c.created).where(deliveries.c.id == first)
        oldest = None if first is None else connection.execute(made).scalar_one_or_none()
        return Backlog(waiting, None if oldest is None else aware(oldest))

    @writes
    def purge(self, connection: Connection, *, before: datetime, limit: int) -> int:
        """Remove those that ended first."""
        first = select(deliveries.c.id).where(deliveries.c.ended < before).order_by(deliveries.c.ended).limit(limit)
        gone = delete(deliveries).where(deliveries.c.id.in_(first), deliveries.c.ended < before)
        return connection.execute(gone).rowcount


def _free(now: datetime) -> Any:
    return or_(deliveries.c.held.is_(None), deliveries.c.held <= now)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        row.id,
        row.identity,
        row.project,
        row.repository,
        row.receiver,
        row.event,
        aware(row.created),
        DeliveryState(row.state),
        row.attempts,
        aware(row.due),
        row.answer,
        None if row.ended is None else aware(row.ended),
    )
