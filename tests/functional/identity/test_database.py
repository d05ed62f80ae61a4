"""Identity's database: its schema, its file, and several processes at once."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from haneul.app.api import MIGRATIONS
from haneul.identity import tables
from haneul.identity.audit import AuditLog
from haneul.identity.model import Origin, Person, Role
from haneul.identity.secrets import SecretHasher
from haneul.identity.service import Identity
from haneul.kernel.clock import VirtualClock
from haneul.kernel.database import migrate, open_database, writing
from haneul.kernel.errors import ConflictError, NotFoundError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ORIGIN = Origin(person="admin")


def url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/haneul.db"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = open_database(url(tmp_path))
    await migrate(engine, MIGRATIONS)
    yield engine
    await engine.dispose()


@pytest.fixture
def identity(engine: AsyncEngine) -> Identity:
    clock = VirtualClock(NOW)
    return Identity(engine, audit=AuditLog(engine, clock=clock), hasher=SecretHasher(clock), clock=clock)


def person(name: str) -> Person:
    return Person(name=name, created=NOW)


def row(name: str) -> dict[str, Any]:
    return person(name).model_dump(exclude={"platform_roles"})


async def test_migrations_make_exactly_the_tables(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, tables.metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrating_again_changes_nothing(engine: AsyncEngine, identity: Identity) -> None:
    await identity.create_person(person("alice"), origin=ORIGIN)
    await migrate(engine, MIGRATIONS)
    assert [found.name for found in await identity.list_people()] == ["alice"]


async def test_the_files_are_their_owners_alone(tmp_path: Path) -> None:
    # A file that was made with wider rights is narrowed too.
    (tmp_path / "haneul.db").touch(0o644)
    engine = open_database(url(tmp_path))
    await migrate(engine, MIGRATIONS)
    async with engine.connect() as connection:
        await connection.execute(select(tables.people))
        rights = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    await engine.dispose()
    assert rights == dict.fromkeys(("haneul.db", "haneul.db-wal", "haneul.db-shm"), 0o600)


async def test_foreign_keys_are_kept(engine: AsyncEngine) -> None:
    with pytest.raises(IntegrityError):
        async with writing(engine) as connection:
            await connection.execute(insert(tables.members).values(project="none", person="nobody", role="viewer"))


async def test_what_fails_half_way_leaves_nothing(engine: AsyncEngine, identity: Identity) -> None:
    with pytest.raises(RuntimeError):
        async with writing(engine) as connection:
            await connection.execute(insert(tables.people).values(**row("alice")))
            raise RuntimeError
    assert await identity.list_people() == []


async def test_a_change_whose_record_cannot_be_written_is_undone(engine: AsyncEngine, identity: Identity) -> None:
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'x'); END"))
    with pytest.raises(ConflictError):
        await identity.create_person(person("alice"), origin=ORIGIN)
    assert await identity.list_people() == []


async def test_readers_do_not_wait_for_a_writer(engine: AsyncEngine, identity: Identity) -> None:
    async with writing(engine) as connection:
        await connection.execute(insert(tables.people).values(**row("alice")))
        assert await identity.list_people() == []
    assert len(await identity.list_people()) == 1


async def test_writers_wait_for_each_other_even_when_they_read_first(engine: AsyncEngine, tmp_path: Path) -> None:
    other = open_database(url(tmp_path))

    async def add(engine: AsyncEngine, name: str) -> int:
        async with writing(engine) as connection:
            there = len((await connection.execute(select(tables.people))).all())
            await connection.execute(insert(tables.people).values(**row(name)))
            return there

    counted = await asyncio.gather(*(add(at, f"p{number}") for number, at in enumerate([engine, other] * 10)))
    await other.dispose()
    # Each saw what all before it had done.
    assert sorted(counted) == list(range(20))


async def test_processes_may_start_at_once_on_a_new_database(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "haneul.app.main", "serve", "admin-token", "--database", url(tmp_path)]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        out, error = await process.communicate()
        assert (process.returncode, out.startswith(b"haneul_")) == (0, True), error.decode()
    with sqlite3.connect(tmp_path / "haneul.db") as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM tokens").fetchone() == (2,)
        assert connection.execute("SELECT action, person, source FROM audit").fetchone() == (
            "token.create",
            "admin",
            "host",
        )
    connection.close()


async def test_of_two_owners_who_leave_at_once_one_stays(identity: Identity) -> None:
    for name in ("admin", "alice", "bob"):
        await identity.create_person(person(name), origin=ORIGIN)
    await identity.create_project("shop", "", origin=Origin(person="alice"))
    await identity.set_member("shop", "bob", Role.OWNER, origin=ORIGIN)
    results = await asyncio.gather(
        *(identity.remove_member("shop", name, origin=ORIGIN) for name in ("alice", "bob")), return_exceptions=True
    )
    assert [type(result) for result in results if result] == [ConflictError]
    assert [member.role for member in await identity.list_members("shop")] == [Role.OWNER]


async def test_nobody_joins_a_project_that_is_gone(identity: Identity) -> None:
    await identity.create_person(person("alice"), origin=ORIGIN)
    with pytest.raises(NotFoundError):
        await identity.set_member("gone", "alice", Role.OWNER, origin=ORIGIN)
