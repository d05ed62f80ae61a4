"""The audit chain in the database: several processes, tampering, and records from before there was a chain."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, delete, text, update
from sqlalchemy.exc import IntegrityError

from haneul.app.api import MIGRATIONS
from haneul.identity import tables
from haneul.identity.audit import AuditLog
from haneul.identity.model import AuditQuery, Origin
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import migrate, open_database, writing
from haneul.kernel.hash_chain import Anchor, verify

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ORIGIN = Origin(person="alice", source="192.0.2.1", agent="test")


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/haneul.db"


async def records(log: AuditLog) -> list[dict[str, object]]:
    found = await log.list(AuditQuery(oldest_first=True, limit=1000))
    return [record.model_dump(mode="json", by_alias=True) for record in found]


async def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    engines = [open_database(url(tmp_path)) for _ in range(3)]
    await migrate(engines[0], MIGRATIONS)
    logs = [AuditLog(engine, clock=VirtualClock(NOW)) for engine in engines]
    await asyncio.gather(*(log.record(ORIGIN, "thing.make", str(number)) for number in range(10) for log in logs))
    chain = await records(logs[0])
    assert [record["id"] for record in chain] == list(range(1, 31))
    assert verify(chain, anchors=[await logs[1].head()]).fault == ""
    for engine in engines:
        await engine.dispose()


async def test_a_change_that_fails_leaves_neither_record_nor_gap(tmp_path: Path) -> None:
    engine = open_database(url(tmp_path))
    await migrate(engine, MIGRATIONS)
    log = AuditLog(engine, clock=VirtualClock(NOW))
    with pytest.raises(RuntimeError):
        async with log.change(ORIGIN, "thing.make", "one"):
            raise RuntimeError
    await log.record(ORIGIN, "thing.make", "two")
    assert [(record["id"], record["object"]) for record in await records(log)] == [(1, "two")]
    await engine.dispose()


async def test_the_database_refuses_to_change_a_record_and_the_chain_shows_who_forced_it(tmp_path: Path) -> None:
    engine = open_database(url(tmp_path))
    await migrate(engine, MIGRATIONS)
    log = AuditLog(engine, clock=VirtualClock(NOW))
    for name in ("one", "two", "three"):
        await log.record(ORIGIN, "thing.make", name)
    anchor = await log.head()
    for statement in (update(tables.audit).values(person="eve"), delete(tables.audit)):
        with pytest.raises(IntegrityError, match="only ever added to"):
            async with writing(engine) as connection:
                await connection.execute(statement)
    async with writing(engine) as connection:
        await connection.execute(text("DROP TRIGGER audit_no_update"))
        await connection.execute(text("DROP TRIGGER audit_no_delete"))
        await connection.execute(delete(tables.audit).where(tables.audit.c.id == 3))
    assert verify(await records(log)).fault == ""
    assert "after 2 are missing" in verify(await records(log), anchors=[anchor]).fault
    async with writing(engine) as connection:
        await connection.execute(update(tables.audit).where(tables.audit.c.id == 2).values(source="192.0.2.9"))
    assert verify(await records(log)).last.id == 1
    await engine.dispose()


async def test_older_records_and_administrators_are_taken_along(tmp_path: Path) -> None:
    engine = open_database(url(tmp_path))

    def first_schema(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with writing(engine) as connection:
        await connection.run_sync(first_schema)
        for name, admin in (("root", True), ("alice", False)):
            await connection.execute(
                text("INSERT INTO people VALUES (:name, '', '', :admin, false, '2026-11-24')"),
                {"name": name, "admin": admin},
            )
        for number in (1, 2, 5):
            await connection.execute(
                text(
                    "INSERT INTO audit VALUES (:id, '2026-11-24 09:00:00.5', 'root', 'a.b', 'ö', '', '', 'done', 'r')"
                ),
                {"id": number},
            )
    await migrate(engine, MIGRATIONS)
    log = AuditLog(engine, clock=VirtualClock(NOW))
    await log.record(ORIGIN, "thing.make", "new")
    chain = await records(log)
    assert [record["id"] for record in chain] == [1, 2, 3, 4]
    assert verify(chain, anchors=[await log.head()]).fault == ""
    await engine.dispose()
    with sqlite3.connect(tmp_path / "haneul.db") as plain:
        assert plain.execute("SELECT person, role FROM platform_roles").fetchall() == [("root", "admin")]
    plain.close()


async def test_the_head_of_nothing_is_the_beginning(tmp_path: Path) -> None:
    engine = open_database(url(tmp_path))
    await migrate(engine, MIGRATIONS)
    assert await AuditLog(engine, clock=VirtualClock(NOW)).head() == Anchor(0, "0" * 64)
    await engine.dispose()
