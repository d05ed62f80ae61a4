"""Databases for the behaviour suites: a file of SQLite, and a PostgreSQL that is started once."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from haneul.app.d2hub_database import migrated
from haneul.d2hub.adapters.sql_database import CONNECTIONS, SqlDatabase
from haneul.d2hub.adapters.sql_metadata import SqlMetadata
from haneul.kernel.database import open_blocking_database
from tests.postgres import Postgres, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Postgres) -> str:
    """Return the name of a database with all tables, to be copied."""
    name = postgres.make()
    asyncio.run(migrated(postgres.url(name)))
    return name


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a database with all tables."""
    file = tmp_path_factory.mktemp("migrated") / "hub.db"
    asyncio.run(migrated(f"sqlite+aiosqlite:///{file}"))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.serialize()


@pytest.fixture
def shared(postgres: Postgres, migrated_postgres: str) -> URL:
    """Return the address of a database that several processes may share, with all tables."""
    return postgres.url(postgres.make(migrated_postgres))


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | URL:
    """Return where a database is: a new file, or one of a server."""
    if request.param == "sqlite":
        return tmp_path / "hub.db"
    shared: URL = request.getfixturevalue("shared")
    return shared


@pytest.fixture
async def database(place: Path | URL, migrated_sqlite: bytes) -> AsyncIterator[SqlDatabase]:
    if isinstance(place, Path):
        place.write_bytes(migrated_sqlite)
        database = SqlDatabase(open_blocking_database(f"sqlite:///{place}"))
    else:
        database = SqlDatabase(open_blocking_database(place, connections=CONNECTIONS))
    yield database
    database.close()


@pytest.fixture
def metadata(database: SqlDatabase) -> SqlMetadata:
    return SqlMetadata(database)
