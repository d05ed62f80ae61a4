"""What a collection decides in SQL. The collector removes only what nobody relied on for a while, and asks in the
statement that removes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, select

from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.adapters.sql_metadata import counted, referenced
from haneul.d2hub.model import Collected, StoredBlob
from haneul.d2hub.tables import blobs, deleted_tags, links, manifests, references, repositories, tags


class SqlKeeping:
    """Collections of one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    @writes
    def purge_deleted(self, connection: Connection, *, before: datetime) -> int:
        """Remove manifests with their references; deleted tags that named them go along."""
        connection.execute(delete(deleted_tags).where(deleted_tags.c.deleted < before))
        purged = connection.execute(delete(manifests).where(_purgeable(before)))
        return purged.rowcount

    @writes
    def unlink_unreferenced(self, connection: Connection, *, untouched_since: datetime, limit: int) -> int:
        """Remove links, and then repositories in which nothing is left."""
        found = connection.execute(_unreferenced(untouched_since).limit(limit)).all()
        removed = 0
        for row in found:
            mine = and_(links.c.repository == row.repository, links.c.digest == row.digest)
            # Asked again where it is removed: in PostgreSQL somebody may have touched it since.
            gone = delete(links).where(mine, _removable_link(untouched_since))
            removed += connection.execute(gone).rowcount
        connection.execute(delete(repositories).where(_empty(untouched_since)))
        return removed

    @writes
    def drop_unlinked(self, connection: Connection, *, untouched_since: datetime, limit: int) -> Sequence[StoredBlob]:
        """Remove rows of content that no repository links."""
        some = select(blobs.c.digest).where(_unlinked(untouched_since)).limit(limit)
        gone = (
            delete(blobs)
            .where(blobs.c.digest.in_(some), _unlinked(untouched_since))
            .returning(blobs.c.digest, blobs.c.key, blobs.c.size)
        )
        rows = connection.execute(gone).all()
        return [StoredBlob(row.digest, row.key, row.size) for row in rows]

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


def _purgeable(before: datetime) -> ColumnElement[bool]:
    """Deleted long enough ago; not while another manifest, deleted later, needs it for its own undo."""
    user = manifests.alias("user_manifests")
    needed = (
        exists()
        .where(references.c.repository == manifests.c.repository, references.c.target == manifests.c.digest)
        .where(user.c.repository == references.c.repository, user.c.digest == references.c.manifest)
        .where(user.c.deleted.is_(None) | (user.c.deleted >= before))
    )
    return and_(manifests.c.deleted < before, ~needed)


def _removable_link(untouched_since: datetime) -> ColumnElement[bool]:
    return and_(links.c.touched < untouched_since, ~referenced(links.c.digest, links.c.repository))


def _removable_after(deleted_before: datetime, untouched_since: datetime) -> ColumnElement[bool]:
    """Say what will be removable once deleted manifests are purged."""
    keeper = manifests.alias("keepers")
    kept = (
        exists()
        .where(references.c.repository == links.c.repository, references.c.target == links.c.digest)
        .where(keeper.c.repository == references.c.repository, keeper.c.digest == references.c.manifest)
        .where(keeper.c.deleted.is_(None) | (keeper.c.deleted >= deleted_before))
    )
    return and_(links.c.touched < untouched_since, ~kept)


def _unreferenced(untouched_since: datetime) -> Select[Any]:
    return select(links.c.repository, links.c.digest).where(_removable_link(untouched_since))


def _unlinked(untouched_since: datetime) -> ColumnElement[bool]:
    return and_(blobs.c.touched < untouched_since, ~exists().where(links.c.digest == blobs.c.digest))


def _empty(untouched_since: datetime) -> ColumnElement[bool]:
    return and_(
        repositories.c.created < untouched_since,
        ~exists().where(links.c.repository == repositories.c.id),
        ~exists().where(manifests.c.repository == repositories.c.id),
        ~exists().where(tags.c.repository == repositories.c.id),
    )
