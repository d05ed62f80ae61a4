"""Databases for the behaviour suites: a file of SQLite, and a PostgreSQL that is started once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from haneul.app.d2hub_database import migrated
from haneul.d2hub.adapters.sql_database import CONNECTIONS, SqlDatabase
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


@pytest.fixture
def shared(postgres: Postgres, migrated_postgres: str) -> URL:
    """Return the address of a database that several processes may share, with all tables."""
    return postgres.url(postgres.make(migrated_postgres))


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    if request.param == "sqlite":
        await migrated(f"sqlite+aiosqlite:///{tmp_path}/hub.db")
        database = SqlDatabase(open_blocking_database(f"sqlite:///{tmp_path}/hub.db"))
    else:
        database = SqlDatabase(open_blocking_database(request.getfixturevalue("shared"), connections=CONNECTIONS))
    yield database
    database.close()
