"""What a collection decides in SQL: only what nobody relied on for a while goes.

Candidates are looked for while others write, and removed by their keys, a few in a transaction, with the condition
asked again in the statement that removes. So whoever pushes waits for a few rows, however much there is.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence, Set
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    delete,
    exists,
    func,
    literal,
    select,
    tuple_,
    update,
)

from haneul.d2hub.adapters.sql_audit import write_down
from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.adapters.sql_inventory import runs_somewhere
from haneul.d2hub.adapters.sql_metadata import counted, referenced
from haneul.d2hub.happenings import UNKNOWN, AuditEntry, Happening, Origin
from haneul.d2hub.model import Collected, StoredBlob
from haneul.d2hub.tables import blobs, deleted_tags, links, manifests, references, repositories, tags
from haneul.kernel.errors import ConflictError

#: Who deleted what nobody did: no user has such a name.
_UNTAGGED: Final = "(untagged)"
#: The lock of PostgreSQL that one collection at a time holds. No repository is locked by such a number.
_COLLECTING: Final = int.from_bytes(b"d2hub gc", "big")
#: In their order: two who lock several never wait for each other.
_HOLD_REPOSITORIES: Final = select(repositories.c.id).order_by(repositories.c.id).with_for_update(key_share=True)
_COLLECTION: Final = "(collection)"


class SqlKeeping:
    """Collections of one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold a lock of the database; two at once would only do the same work twice."""
        async with self.database.exclusively(_COLLECTING) as free:
            if not free:
                raise ConflictError("another process collects now", hint="ask again when it is done")
            yield

    async def delete_untagged(
        self, project: str, *, released_before: datetime, now: datetime, limit: int, origin: Origin = UNKNOWN
    ) -> AsyncIterator[Sequence[str]]:
        """Mark manifests as deleted, as if somebody had."""
        mine = manifests.c.repository.in_(select(repositories.c.id).where(repositories.c.project == project))
        unused = _unused(released_before)
        async for rows in self._pages(select(manifests.c.repository, manifests.c.digest).where(mine, unused), limit):
            yield await self._mark(rows, unused, now, origin)

    async def purge_deleted(self, *, before: datetime, now: datetime, limit: int) -> int:
        """Remove manifests with their references; deleted tags that named them go along."""
        removable = and_(deleted_tags.c.deleted < before, ~runs_somewhere(deleted_tags.c.digest))
        async for rows in self._pages(select(deleted_tags.c.id).where(removable), limit):
            await self._remove(deleted_tags, [deleted_tags.c.id], rows, removable)
        purged = 0
        purgeable = select(manifests.c.repository, manifests.c.digest).where(_purgeable(before))
        async for rows in self._pages(purgeable, limit):
            purged += await self._purge(rows, _purgeable(before), now)
        return purged

    async def unlink_unreferenced(self, *, untouched_since: datetime, limit: int) -> AsyncIterator[int]:
        """Remove links."""
        removable = _removable_link(untouched_since)
        keys = [links.c.repository, links.c.digest]
        async for rows in self._pages(select(*keys).where(removable), limit):
            yield await self._remove(links, keys, rows, removable)

    async def drop_unlinked(self, *, untouched_since: datetime, limit: int) -> AsyncIterator[Sequence[StoredBlob]]:
        """Remove rows of content that no repository links."""
        unlinked = _unlinked(untouched_since)
        async for rows in self._pages(select(blobs.c.digest).where(unlinked), limit):
            yield await self._drop([row.digest for row in rows], unlinked)

    async def drop_empty(self, *, untouched_since: datetime, limit: int) -> int:
        """Remove rows of repositories."""
        empty = _empty(untouched_since)
        dropped = 0
        async for rows in self._pages(select(repositories.c.id).where(empty), limit):
            dropped += await self._remove(repositories, [repositories.c.id], rows, empty)
        return dropped

    @reads
    def unknown(self, connection: Connection, keys: Sequence[str]) -> Sequence[str]:
        """Compare keys with what is written down."""
        known: set[str] = set()
        for start in range(0, len(keys), 500):
            query = select(blobs.c.key).where(blobs.c.key.in_(keys[start : start + 500]))
            known.update(connection.execute(query).scalars())
        return [key for key in keys if key not in known]

    @reads
    def collectable(self, connection: Connection, *, deleted_before: datetime, untouched_since: datetime) -> Collected:
        """Count by the same conditions. What would only be free after the first step is not counted."""
        purgeable = select(manifests.c.digest).where(_purgeable(deleted_before))
        content = select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).where(
            blobs.c.touched < untouched_since,
            ~exists().where(links.c.digest == blobs.c.digest, ~_removable_after(deleted_before, untouched_since)),
        )
        purged = connection.execute(counted(purgeable)).scalar_one()
        unlinked = select(links.c.digest).where(_removable_after(deleted_before, untouched_since))
        removed = connection.execute(counted(unlinked)).scalar_one()
        count, size = connection.execute(content).one()
        return Collected(manifests=purged, links=removed, blobs=count, bytes=int(size))

    async def _pages(self, query: Select[Any], limit: int) -> AsyncIterator[Sequence[Row[Any]]]:
        """Yield what a query of keys finds, in their order: all pages together look at each row once."""
        keys = list(query.selected_columns)
        after: Sequence[Any] = ()
        while True:
            page = query.order_by(*keys).limit(limit)
            if after:
                page = page.where(tuple_(*keys) > tuple_(*(literal(*pair) for pair in _typed(after, keys))))
            rows = await self._found(page)
            if rows:
                yield rows
            if len(rows) < limit:
                return
            after = rows[-1]

    @reads
    def _found(self, connection: Connection, query: Select[Any]) -> Sequence[Row[Any]]:
        return connection.execute(query).all()

    @writes
    def _remove(
        self,
        connection: Connection,
        table: Table,
        keys: Sequence[ColumnElement[Any]],
        rows: Sequence[Row[Any]],
        removable: ColumnElement[bool],
    ) -> int:
        """Remove rows by their keys, for which the condition still holds: somebody may have relied on one since."""
        if table is not deleted_tags:
            self._hold(connection, {row[0] for row in rows})
        gone = 0
        for row in rows:
            mine = [key == value for key, value in zip(keys, row, strict=True)]
            gone += connection.execute(delete(table).where(*mine, removable)).rowcount
        return gone

    @writes
    def _purge(
        self, connection: Connection, rows: Sequence[Row[Any]], purgeable: ColumnElement[bool], now: datetime
    ) -> int:
        """Remove manifests for which the condition still holds, and write down which."""
        self._hold(connection, {row.repository for row in rows})
        gone: list[Row[Any]] = []
        for row in rows:
            mine = and_(manifests.c.repository == row.repository, manifests.c.digest == row.digest)
            if connection.execute(delete(manifests).where(mine, purgeable)).rowcount:
                gone.append(row)
        names = _names(connection, gone)
        write_down(
            connection,
            [AuditEntry(now, Happening.PURGE, names[row.repository], "", row.digest, _COLLECTION) for row in gone],
        )
        return len(gone)

    @writes
    def _mark(
        self,
        connection: Connection,
        rows: Sequence[Row[Any]],
        unused: ColumnElement[bool],
        now: datetime,
        origin: Origin,
    ) -> Sequence[str]:
        """Mark manifests for which the condition still holds as deleted; return their repositories."""
        self._hold(connection, {row.repository for row in rows})
        gone: list[Row[Any]] = []
        for row in rows:
            mine = and_(manifests.c.repository == row.repository, manifests.c.digest == row.digest)
            change = update(manifests).where(mine, unused).values(deleted=now, deleted_by=_UNTAGGED)
            if connection.execute(change).rowcount:
                gone.append(row)
        names = _names(connection, gone)
        entries = [
            AuditEntry(now, Happening.COLLECTION, names[row.repository], "", row.digest, _UNTAGGED) for row in gone
        ]
        write_down(connection, entries, receivers=origin.receivers)
        return list(names.values())

    @writes
    def _drop(
        self, connection: Connection, digests: Sequence[str], unlinked: ColumnElement[bool]
    ) -> Sequence[StoredBlob]:
        gone = (
            delete(blobs)
            .where(blobs.c.digest.in_(digests), unlinked)
            .returning(blobs.c.digest, blobs.c.key, blobs.c.size)
        )
        return [StoredBlob(row.digest, row.key, row.size) for row in connection.execute(gone)]

    def _hold(self, connection: Connection, chosen: Set[int]) -> None:
        """Keep others from changing manifests and tags of repositories, before a statement looks whether it may."""
        if not self.database.one_writes:
            mine = repositories.c.id.in_(chosen)
            connection.execute(_HOLD_REPOSITORIES.where(mine)).all()


def _names(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, str]:
    """Return the names of the repositories of manifests."""
    if not rows:
        return {}
    numbers = {row.repository for row in rows}
    query = select(repositories.c.id, repositories.c.name).where(repositories.c.id.in_(numbers))
    return {row.id: row.name for row in connection.execute(query)}


def _typed(values: Sequence[Any], keys: Sequence[ColumnElement[Any]]) -> list[tuple[Any, Any]]:
    return [(value, key.type) for value, key in zip(values, keys, strict=True)]


def _unused(released_before: datetime) -> ColumnElement[bool]:
    """Without a tag for long enough, and run by nobody; nothing that can be brought back needs it, or describes it."""
    subject = manifests.alias("subjects")
    return and_(
        manifests.c.deleted.is_(None),
        manifests.c.released < released_before,
        ~runs_somewhere(manifests.c.digest),
        ~exists().where(tags.c.repository == manifests.c.repository, tags.c.digest == manifests.c.digest),
        ~referenced(manifests.c.digest, manifests.c.repository),
        ~exists().where(subject.c.repository == manifests.c.repository, subject.c.digest == manifests.c.subject),
    )


def _purgeable(before: datetime) -> ColumnElement[bool]:
    """Deleted long enough ago; not while a cluster runs it, nor another manifest needs it for its own undo."""
    return and_(
        manifests.c.deleted < before,
        ~runs_somewhere(manifests.c.digest),
        ~_needed(manifests.c.digest, manifests.c.repository, before),
    )


def _removable_link(untouched_since: datetime) -> ColumnElement[bool]:
    return and_(links.c.touched < untouched_since, ~referenced(links.c.digest, links.c.repository))


def _removable_after(deleted_before: datetime, untouched_since: datetime) -> ColumnElement[bool]:
    """Say what will be removable once deleted manifests are purged."""
    return and_(links.c.touched < untouched_since, ~_needed(links.c.digest, links.c.repository, deleted_before))


def _needed(
    target: ColumnElement[str], repository: ColumnElement[int], deleted_before: datetime
) -> ColumnElement[bool]:
    """Say whether a manifest that is there, was deleted later than that, or is run by a cluster refers to something."""
    user = manifests.alias("user_manifests")
    return (
        exists()
        .where(references.c.repository == repository, references.c.target == target)
        .where(user.c.repository == references.c.repository, user.c.digest == references.c.manifest)
        .where(user.c.deleted.is_(None) | (user.c.deleted >= deleted_before) | runs_somewhere(user.c.digest))
    )


def _unlinked(untouched_since: datetime) -> ColumnElement[bool]:
    return and_(blobs.c.touched < untouched_since, ~exists().where(links.c.digest == blobs.c.digest))


def _empty(untouched_since: datetime) -> ColumnElement[bool]:
    return and_(
        repositories.c.created < untouched_since,
        ~exists().where(links.c.repository == repositories.c.id),
        ~exists().where(manifests.c.repository == repositories.c.id),
        ~exists().where(tags.c.repository == repositories.c.id),
    )
