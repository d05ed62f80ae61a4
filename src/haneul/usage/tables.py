"""The tables of usage. The migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, DateTime, Double, Integer, MetaData, String, Table

metadata = MetaData()

#: One row: when all clusters were looked at last. Whoever writes holds it, so that there is one writer at a time.
looks = Table(
    "usage_looks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("moment", DateTime(timezone=True)),
)

spans = Table(
    "usage_spans",
    metadata,
    Column("uid", String(64), primary_key=True),
    Column("started", DateTime(timezone=True), primary_key=True),
    Column("ended", DateTime(timezone=True), nullable=False, index=True),
    Column("project", String(64), nullable=False, index=True),
    Column("cluster", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("nodes", Integer, nullable=False),
    Column("millicores", BigInteger, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
)

days = Table(
    "usage_days",
    metadata,
    Column("uid", String(64), primary_key=True),
    Column("day", Date, primary_key=True, index=True),
    Column("project", String(64), nullable=False, index=True),
    Column("cluster", String(64), nullable=False),
    Column("cluster_seconds", Double, nullable=False),
    Column("node_seconds", Double, nullable=False),
    Column("millicore_seconds", Double, nullable=False),
    Column("mib_seconds", Double, nullable=False),
)
