"""Mirrored manifests, and the history of upstreams' tags, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.d2hub.model import ManifestPush, TagChange
from haneul.d2hub.tables import upstream_tags
from haneul.kernel.database import aware


class SqlMirrorRecords:
    """What came from upstreams, in the tables of one database."""

    def __init__(self, database: SqlDatabase, metadata: SqlMetadata) -> None:
        self.database, self._metadata = database, metadata

    @writes
    def keep(self, connection: Connection, change: ManifestPush) -> bool:
        """Write the manifest, its tag and the tag's history in one transaction."""
        self._metadata.take(connection, change, incomplete=True)
        if not change.tag:
            return False
        mine = _of(change.repository, change.tag).limit(1)
        latest = connection.execute(mine).one_or_none()
        seen = connection.execute(mine.where(upstream_tags.c.digest.is_not(None))).one_or_none()
        if latest is None or latest.digest != change.digest:
            _note(connection, change.repository, change.tag, change.digest, change.now)
        return seen is not None and seen.digest != change.digest

    async def note(self, repository: str, tag: str, digest: str | None, *, now: datetime) -> bool:
        """Write an entry, unless the latest says the same, which is looked at before anything is written."""
        latest = await self.history(repository, tag, limit=1)
        if latest and latest[0].digest == digest:
            return False
        await self.database.write(lambda connection: _note(connection, repository, tag, digest, now))
        return True

    @reads
    def history(
        self, connection: Connection, repository: str, tag: str, *, before: int | None = None, limit: int
    ) -> Sequence[TagChange]:
        """List entries."""
        query = _of(repository, tag).limit(limit)
        if before is not None:
            query = query.where(upstream_tags.c.id < before)
        return [TagChange(row.id, row.digest, aware(row.since)) for row in connection.execute(query)]


def _of(repository: str, tag: str) -> Select[Any]:
    return (
        select(upstream_tags.c.id, upstream_tags.c.digest, upstream_tags.c.since)
        .where(upstream_tags.c.repository == repository, upstream_tags.c.name == tag)
        .order_by(upstream_tags.c.id.desc())
    )


def _note(connection: Connection, repository: str, tag: str, digest: str | None, now: datetime) -> None:
    values = {"repository": repository, "name": tag, "digest": digest, "since": now}
    connection.execute(upstream_tags.insert().values(values))
