"""The tables of the firewall gate, which are only ever added to. The migrations make them; a test compares."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, DateTime, Integer, MetaData, String, Table, Text

metadata = MetaData()

_Number = BigInteger().with_variant(Integer, "sqlite")

askers = Table(
    "firewall_askers",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("moment", DateTime(timezone=True), nullable=False),
    Column("project", String(64), nullable=False, index=True),
    Column("cluster", String(64), nullable=False),
    Column("pool", String(64), nullable=False),
    Column("asked", String(64), nullable=False),
    Column("person", String(64), nullable=False),
    Column("behind", Boolean, nullable=False),
)

decisions = Table(
    "firewall_decisions",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("moment", DateTime(timezone=True), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("person", String(64), nullable=False),
    Column("why", Text, nullable=False),
    Column("source", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("way_id", String(64), nullable=False, index=True),
    Column("project", String(64), nullable=False, index=True),
    Column("way", JSON, nullable=False),
)
