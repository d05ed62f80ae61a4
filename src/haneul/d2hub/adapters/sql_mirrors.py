"""Mirrored manifests, and the history of upstreams' tags, in SQL.

Each change holds its repository first, so of several processes one is done after the other and sees what that wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, select

from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.adapters.sql_metadata import SqlMetadata, held_repository, tagged
from haneul.d2hub.model import ManifestPush, TagChange
from haneul.d2hub.tables import upstream_tags
from haneul.kernel.database import aware


class SqlMirrorRecords:
    """What came from upstreams, in the tables of one database."""

    def __init__(self, database: SqlDatabase, metadata: SqlMetadata) -> None:
        self.database, self._metadata = database, metadata

    @writes
    def keep(self, connection: Connection, change: ManifestPush, *, seen: str) -> bool:
        """Write the manifest, its tag and the tag's history in one transaction."""
        if change.tag and _held(connection, change.repository, change.tag) != seen:
            change = replace(change, tag="")
        self._metadata.take(connection, change, incomplete=True)
        if not change.tag:
            return False
        mine = _of(change.repository, change.tag).limit(1)
        latest = connection.execute(mine).one_or_none()
        named = connection.execute(mine.where(upstream_tags.c.digest.is_not(None))).one_or_none()
        if latest is None or latest.digest != change.digest:
            _note(connection, change.repository, change.tag, change.digest, change.now)
        return named is not None and named.digest != change.digest

    @writes
    def note(
        self, connection: Connection, repository: str, tag: str, digest: str | None, *, seen: str, now: datetime
    ) -> bool:
        """Write an entry, unless the latest says the same."""
        if _held(connection, repository, tag) != seen:
            return False
        latest = connection.execute(_of(repository, tag).limit(1)).one_or_none()
        if latest is not None and latest.digest == digest:
            return False
        _note(connection, repository, tag, digest, now)
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


def _held(connection: Connection, repository: str, tag: str) -> str:
    """Hold a repository and return what its tag names, which stays so until the transaction ends."""
    found = held_repository(connection, repository)
    return (tagged(connection, found, tag) or "") if found is not None else ""


def _of(repository: str, tag: str) -> Select[Any]:
    return (
        select(upstream_tags.c.id, upstream_tags.c.digest, upstream_tags.c.since)
        .where(upstream_tags.c.repository == repository, upstream_tags.c.name == tag)
        .order_by(upstream_tags.c.id.desc())
    )


def _note(connection: Connection, repository: str, tag: str, digest: str | None, now: datetime) -> None:
    values = {"repository": repository, "name": tag, "digest": digest, "since": now}
    connection.execute(upstream_tags.insert().values(values))
