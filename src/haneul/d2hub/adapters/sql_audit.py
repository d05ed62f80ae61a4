"""The audit record in SQL, and how a change's own transaction writes it, with the deliveries that tell of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, DateTime, and_, delete, literal, or_, select
from sqlalchemy.exc import DataError

from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.deliveries import DeliveryState
from haneul.d2hub.happenings import AuditEntry, Happening, event_of
from haneul.d2hub.record_ports import Span
from haneul.d2hub.tables import audit, deliveries
from haneul.kernel.database import aware
from haneul.kernel.errors import InvalidInputError

_ADD: Final = audit.insert()
_ENQUEUE: Final = deliveries.insert()


def write_down(
    connection: Connection, entries: Sequence[AuditEntry], *, receivers: Sequence[str] = (), media_type: str = ""
) -> None:
    """Write records into the transaction of what they tell, and a delivery of each for each receiver."""
    if not entries:
        return
    connection.execute(_ADD, [_row(entry) for entry in entries])
    if receivers:
        connection.execute(_ENQUEUE, [row for entry in entries for row in _waiting(entry, receivers, media_type)])


class SqlAudit:
    """Audit records of one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database
        self._add_new = database.insert(audit).on_conflict_do_nothing(index_elements=[audit.c.identity])

    async def add(self, entries: Sequence[AuditEntry]) -> None:
        """Write records of what needed no transaction of its own."""
        try:
            await self._add(entries)
        except (DataError, UnicodeError) as error:
            # Such as a zero byte, which SQLite takes and PostgreSQL does not.
            raise InvalidInputError("the database takes no such record") from error

    @writes
    def _add(self, connection: Connection, entries: Sequence[AuditEntry]) -> None:
        connection.execute(self._add_new, [_row(entry) for entry in entries])

    @reads
    def entries(
        self, connection: Connection, project: str, span: Span, *, before: str = "", limit: int
    ) -> tuple[Sequence[AuditEntry], str]:
        """List records of a project along its index, backwards."""
        query = select(audit).where(audit.c.project == project)
        if span.since is not None:
            query = query.where(audit.c.at >= span.since)
        if span.until is not None:
            query = query.where(audit.c.at < span.until)
        if before:
            at, number = _place(before)
            moment = literal(at, DateTime(timezone=True))
            query = query.where(audit.c.at <= moment, or_(audit.c.at < moment, audit.c.id < number))
        rows = connection.execute(query.order_by(audit.c.at.desc(), audit.c.id.desc()).limit(limit)).all()
        found = [
            AuditEntry(
                aware(row.at),
                Happening(row.happening),
                row.repository,
                row.reference,
                row.digest,
                row.account,
                row.address,
                row.result,
                row.weight,
            )
            for row in rows
        ]
        return found, f"{found[-1].at.isoformat()}/{rows[-1].id}" if len(rows) == limit else ""

    @writes
    def purge(self, connection: Connection, *, before: datetime, limit: int) -> int:
        """Remove the oldest."""
        oldest = select(audit.c.id).where(audit.c.at < before).order_by(audit.c.at).limit(limit)
        return connection.execute(delete(audit).where(and_(audit.c.id.in_(oldest), audit.c.at < before))).rowcount


def _row(entry: AuditEntry) -> dict[str, object]:
    return {
        "at": entry.at,
        "project": entry.project,
        "repository": entry.repository,
        "happening": str(entry.happening),
        "reference": entry.reference,
        "digest": entry.digest,
        "account": entry.account,
        "address": entry.address,
        "result": entry.result,
        "weight": entry.weight,
        "identity": entry.identity or None,
    }


def _waiting(entry: AuditEntry, receivers: Sequence[str], media_type: str) -> list[dict[str, object]]:
    identity = f"evt_{uuid.uuid4().hex}"
    row = {
        "identity": identity,
        "project": entry.project,
        "repository": entry.repository,
        "event": json.dumps(event_of(entry, identity=identity, media_type=media_type)),
        "created": entry.at,
        "state": str(DeliveryState.WAITING),
        "attempts": 0,
        "due": entry.at,
        "answer": "",
    }
    return [{**row, "receiver": receiver} for receiver in receivers]


def _place(text: str) -> tuple[datetime, int]:
    moment, _, number = text.partition("/")
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), int(number)
    except ValueError as error:
        raise InvalidInputError("'continue' is nothing that was given out", hint="begin again without it") from error
