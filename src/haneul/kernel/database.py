"""SQL for SQLite and PostgreSQL alike: engines, writing transactions, and schema migrations at start.

Several processes may use one SQLite file: the API, and whoever makes the administrator's token beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

_WRITES: Final = "haneul_writes"
_OWNER_ONLY: Final = 0o600


def open_database(url: str) -> AsyncEngine:
    """Return an engine. SQLite's file is its owner's alone; it waits for locks and checks foreign keys."""
    engine = create_async_engine(url)
    _prepare(engine.sync_engine)
    return engine


def open_blocking_database(url: str) -> Engine:
    """Return an engine for threads, like :func:`open_database`."""
    engine = create_engine(url)
    _prepare(engine)
    return engine


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a transaction that writes, and commit it; an exception rolls it back.

    In SQLite it waits for its turn at the beginning. One that began by reading could not wait: what it has read may be
    outdated by then, so it would fail.
    """
    async with engine.connect() as connection:
        await connection.execution_options(**{_WRITES: True})
        async with connection.begin():
            yield connection


@contextmanager
def writing_blocking(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that writes, like :func:`writing`, in a thread."""
    with engine.connect() as connection:
        connection.execution_options(**{_WRITES: True})
        with connection.begin():
            yield connection


async def migrate(engine: AsyncEngine, migrations: Path) -> None:
    """Bring the schema to its newest version with Alembic's scripts in ``migrations``."""

    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(migrations))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with writing(engine) as connection:
        await connection.run_sync(upgrade)


def _keep_private(path: Path) -> None:
    """SQLite gives its write-ahead log the rights of the file, so the file is made first, with the right ones."""
    path.touch(_OWNER_ONLY)
    if path.stat().st_mode & 0o077:
        path.chmod(_OWNER_ONLY)


def _prepare(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        if engine.url.database and engine.url.database != ":memory:":
            _keep_private(Path(engine.url.database))
        _configure_sqlite(engine)


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        # Python's driver would begin transactions late, before the first change and never before a table is made.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def aware(moment: datetime) -> datetime:
    """Return a moment of the database in UTC. SQLite keeps no time zone; all are written in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
