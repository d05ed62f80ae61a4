"""Which images run where, in SQL. A report changes only the rows that are others than before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select, tuple_

from haneul.d2hub.adapters.sql_audit import write_down
from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.happenings import AuditEntry, Happening
from haneul.d2hub.inventory import Report, Reported, Running, Use
from haneul.d2hub.tables import inventory, reports
from haneul.kernel.database import aware

_ROWS_AT_ONCE: Final = 200
_DIGESTS_AT_ONCE: Final = 500
_KEYS: Final = (inventory.c.namespace, inventory.c.workload, inventory.c.digest)


class SqlInventory:
    """Reports of clusters in one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    @writes
    def replace(self, connection: Connection, report: Report, *, now: datetime) -> None:
        """Write the difference. The report's own row is written first, so that two of one cluster go in turn."""
        values = {"cluster": report.cluster, "reporter": report.reporter, "reported": now}
        insert = self.database.insert(reports).values(values)
        connection.execute(insert.on_conflict_do_update(index_elements=["cluster"], set_=values))
        mine = inventory.c.cluster == report.cluster
        before = {Running(*row) for row in connection.execute(select(*_KEYS).where(mine))}
        gone, new = sorted(before - report.running), sorted(report.running - before)
        for start in range(0, len(gone), _ROWS_AT_ONCE):
            rows = [(one.namespace, one.workload, one.digest) for one in gone[start : start + _ROWS_AT_ONCE]]
            connection.execute(delete(inventory).where(mine, tuple_(*_KEYS).in_(rows)))
        if new:
            connection.execute(inventory.insert(), [{"cluster": report.cluster, **vars(one)} for one in new])

    @reads
    def in_use(self, connection: Connection, digests: Sequence[str], *, first: str = "", limit: int) -> Sequence[Use]:
        """Look digests up."""
        return users_of(connection, digests, first=first, limit=limit)

    @reads
    def running(self, connection: Connection, digests: Sequence[str]) -> frozenset[str]:
        """Look digests up, without who runs them."""
        found: set[str] = set()
        for start in range(0, len(digests), _DIGESTS_AT_ONCE):
            part = inventory.c.digest.in_(digests[start : start + _DIGESTS_AT_ONCE])
            found.update(connection.execute(select(inventory.c.digest).where(part).distinct()).scalars())
        return frozenset(found)

    @reads
    def reports(self, connection: Connection) -> Sequence[Reported]:
        """List clusters."""
        entries = (
            select(func.count()).where(inventory.c.cluster == reports.c.cluster).scalar_subquery().label("entries")
        )
        query = select(reports.c.cluster, reports.c.reporter, reports.c.reported, entries).order_by(reports.c.cluster)
        return [
            Reported(row.cluster, row.reporter, aware(row.reported), row.entries) for row in connection.execute(query)
        ]

    @writes
    def forget(self, connection: Connection, cluster: str, *, now: datetime, by: str, address: str) -> bool:
        """Remove a cluster's rows, and write down who did."""
        if not connection.execute(delete(reports).where(reports.c.cluster == cluster)).rowcount:
            return False
        connection.execute(delete(inventory).where(inventory.c.cluster == cluster))
        write_down(connection, [AuditEntry(now, Happening.FORGET, cluster, "", "", by, address)])
        return True


def users_of(connection: Connection, digests: Sequence[str], *, first: str, limit: int) -> Sequence[Use]:
    """Return who runs one of some images: one project's clusters first, then in order of clusters and namespaces."""
    own = inventory.c.cluster.startswith(f"{first}/", autoescape=True)
    query = (
        select(inventory.c.cluster, *_KEYS, reports.c.reported)
        .join(reports, reports.c.cluster == inventory.c.cluster)
        .where(inventory.c.digest.in_(digests))
        .order_by(own.desc(), inventory.c.cluster, *_KEYS)
        .limit(limit)
    )
    return [
        Use(row.cluster, Running(row.namespace, row.workload, row.digest), aware(row.reported))
        for row in connection.execute(query)
    ]


def runs_somewhere(digest: ColumnElement[str]) -> ColumnElement[bool]:
    """Say whether a cluster runs an image."""
    return exists().where(inventory.c.digest == digest)
