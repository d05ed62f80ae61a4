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
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

_WRITES: Final = "haneul_writes"
_OWNER_ONLY: Final = 0o600
#: The advisory lock of PostgreSQL that one migration at a time holds: the letters of our name.
_MIGRATING: Final = int.from_bytes(b"haneul", "big")
#: Of PostgreSQL: nothing waits or holds locks for ever, and each statement sees what was committed before it.
_SESSION: Final = {
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "default_transaction_isolation": r"read\ committed",
}
#: For libpq ("Parameter Key Words"): a server that does not answer is given up. Seconds, and the last milliseconds.
_CONNECTING: Final = {
    "application_name": "haneul",
    "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "tcp_user_timeout": 20_000,
}
_POOL_SECONDS: Final = 10


def open_database(url: str | URL) -> AsyncEngine:
    """Return an engine. SQLite's file is its owner's alone; it waits for locks and checks foreign keys."""
    engine = create_async_engine(url, **_arguments(url, 1))
    _prepare(engine.sync_engine)
    return engine


def open_blocking_database(url: str | URL, *, connections: int = 1) -> Engine:
    """Return an engine for threads, like :func:`open_database`; with at most so many connections to PostgreSQL."""
    engine = create_engine(url, **_arguments(url, connections))
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
        if connection.dialect.name == "postgresql":
            # Where SQLite lets one transaction write at a time, two starting processes would make the same tables.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
        command.upgrade(config, "head")

    async with writing(engine) as connection:
        await connection.run_sync(upgrade)


def _arguments(url: str | URL, connections: int) -> dict[str, Any]:
    if make_url(url).get_backend_name() != "postgresql":
        return {}
    limits = {"pool_size": connections, "max_overflow": 0, "pool_timeout": _POOL_SECONDS}
    return {**limits, "connect_args": _CONNECTING}


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
