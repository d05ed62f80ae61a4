"""The audit record: a chain that is only ever added to.

A change of identity's own and its record are written in one transaction: there is never one without the other. The
transaction holds the chain's head from its beginning, so records have one order, also with several processes, and
changes happen one after the other: what a change has read is still so when it is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from sqlalchemy import String, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.identity import tables
from haneul.identity.model import AuditQuery, AuditRecord, Origin
from haneul.identity.rows import all_rows
from haneul.kernel.clock import Clock
from haneul.kernel.database import aware, writing
from haneul.kernel.hash_chain import Anchor, chained

_log = structlog.get_logger(__name__)
DONE: Final = "done"
#: A change of another product is about to begin; a second record says how it ended.
ASKED: Final = "asked"
_ANNOUNCE_SECONDS: Final = 600.0
_HEAD: Final = "audit"


class AuditLog:
    """Who did what to which object, from where, and with what result."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._announced: float | None = None

    @asynccontextmanager
    async def change(
        self, origin: Origin, action: str, target: str, project: str = ""
    ) -> AsyncIterator[AsyncConnection]:
        """Open the transaction of a change and of its record."""
        async with writing(self._engine) as connection:
            head = await self._hold_head(connection)
            yield connection
            made = await self._append(connection, head, origin, action, target, project, DONE)
        self._announce(made)

    async def record(self, origin: Origin, action: str, target: str, project: str = "", result: str = DONE) -> None:
        """Append what is no change of identity's own: another product's change, or a refusal."""
        async with writing(self._engine) as connection:
            head = await self._hold_head(connection)
            made = await self._append(connection, head, origin, action, target, project, result)
        self._announce(made)

    async def list(self, query: AuditQuery) -> list[AuditRecord]:
        """Return the records that a query asks for."""
        table = tables.audit
        found = select(table).limit(query.limit)
        found = found.order_by(table.c.id if query.oldest_first else table.c.id.desc())
        if query.behind is not None:
            found = found.where(table.c.id > query.behind if query.oldest_first else table.c.id < query.behind)
        if query.project:
            found = found.where(table.c.project == query.project)
        if query.since is not None:
            found = found.where(table.c.moment >= query.since)
        if query.person:
            found = found.where(table.c.person == query.person)
        rows = await all_rows(self._engine, found)
        return [AuditRecord.model_validate({**row, "moment": aware(row["moment"])}) for row in rows]

    async def head(self) -> Anchor:
        """Return the newest record's number and hash, to be noted elsewhere as an anchor."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(tables.audit_head))).mappings().one()
        return Anchor(row["id"], row["hash"])

    async def _hold_head(self, connection: AsyncConnection) -> Anchor:
        held = select(tables.audit_head).where(tables.audit_head.c.name == _HEAD).with_for_update()
        row = (await connection.execute(held)).mappings().one()
        return Anchor(row["id"], row["hash"])

    async def _append(
        self,
        connection: AsyncConnection,
        head: Anchor,
        origin: Origin,
        action: str,
        target: str,
        project: str,
        result: str,
    ) -> Anchor:
        said = {**origin.model_dump(), "action": action, "object": target, "project": project, "result": result}
        fitting = {name: _fitting(name, text) for name, text in said.items()}
        record = AuditRecord(**fitting, id=head.id + 1, moment=self._clock.now(), previous="", hash="")
        linked = chained(record.model_dump(by_alias=True), head)
        values: dict[str, Any] = {**fitting, "id": linked["id"], "moment": record.moment}
        values |= {"previous": linked["previous"], "hash": linked["hash"]}
        await connection.execute(insert(tables.audit).values(**values))
        await connection.execute(
            update(tables.audit_head)
            .where(tables.audit_head.c.name == _HEAD)
            .values(id=linked["id"], hash=linked["hash"])
        )
        return Anchor(linked["id"], linked["hash"])

    def _announce(self, head: Anchor) -> None:
        """Write the head into the process's log now and then: logs are carried elsewhere, and show a cut-off end."""
        now = self._clock.monotonic()
        if self._announced is None or now - self._announced >= _ANNOUNCE_SECONDS:
            self._announced = now
            _log.info("audit anchor", id=head.id, hash=head.hash)


def _fitting(column: str, text: str) -> str:
    """Return a caller's text as the column holds it: no longer, without half characters and control characters."""
    whole = text.encode("utf-8", "replace").decode()
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in whole)
    kept = tables.audit.c[column].type
    return shown[: kept.length] if isinstance(kept, String) else shown
