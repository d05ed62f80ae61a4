"""What projects keep, added up in SQL along the indexes of repositories, links and manifests."""

from __future__ import annotations

from sqlalchemy import Connection, func, or_, select

from haneul.d2hub.adapters.sql_database import SqlDatabase, reads
from haneul.d2hub.tables import blobs, links, manifests, repositories


class SqlMeter:
    """Sums of one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    @reads
    def used(self, connection: Connection, project: str) -> int:
        """Add up blobs and manifests."""
        kept = (
            select(blobs.c.digest, blobs.c.size)
            .join(links, links.c.digest == blobs.c.digest)
            .join(repositories, repositories.c.id == links.c.repository)
            .where(repositories.c.project == project)
            .distinct()
            .subquery()
        )
        said = (
            select(manifests.c.digest, manifests.c.size)
            .join(repositories, repositories.c.id == manifests.c.repository)
            .where(repositories.c.project == project)
            .distinct()
            .subquery()
        )
        sums = [connection.execute(select(func.sum(part.c.size))).scalar_one_or_none() for part in (kept, said)]
        return sum(int(value or 0) for value in sums)

    @reads
    def keeps(self, connection: Connection, project: str, digest: str) -> bool:
        """Look for content, also for what was deleted and still counts."""
        mine = repositories.c.project == project
        linked = select(links.c.digest).where(links.c.repository == repositories.c.id, links.c.digest == digest)
        said = select(manifests.c.digest).where(
            manifests.c.repository == repositories.c.id, manifests.c.digest == digest
        )
        query = select(repositories.c.id).where(mine, or_(linked.exists(), said.exists())).limit(1)
        return connection.execute(query).one_or_none() is not None
