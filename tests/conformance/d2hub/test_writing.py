"""What is told to be written is written, whatever befalls: other pieces of work, the disk, the connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, event, select, text, update
from sqlalchemy.exc import DBAPIError

from haneul.d2hub.adapters.sql_database import CONNECTIONS, SqlDatabase
from haneul.d2hub.errors import StorageFullError
from haneul.kernel.database import open_blocking_database
from haneul.kernel.errors import UnavailableError
from tests.postgres import Postgres

things = Table("things", MetaData(), Column("name", String(10), primary_key=True), Column("content", LargeBinary))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    """SQLite, where many pieces of work are done in one transaction."""
    database = SqlDatabase(open_blocking_database(f"sqlite:///{tmp_path}/hub.db"))
    await database.write(things.create)
    yield database
    database.close()


@pytest.fixture
async def server(postgres: Postgres) -> AsyncIterator[SqlDatabase]:
    """PostgreSQL, where each is a transaction of its own."""
    database = SqlDatabase(open_blocking_database(postgres.url(postgres.make()), connections=CONNECTIONS))
    await database.write(things.create)
    yield database
    database.close()


def adding(name: str, size: int = 1) -> Callable[[Connection], None]:
    def add(connection: Connection) -> None:
        connection.execute(things.insert(), {"name": name, "content": b"x" * size})

    return add


async def together(
    database: SqlDatabase, *works: Callable[[Connection], None], limit: int = 0
) -> list[BaseException | None]:
    """Do pieces of work in one transaction: they wait while another piece is being done.

    ``limit`` is how many pages the database may have from then on.
    """
    begun, go_on = threading.Event(), threading.Event()

    def first(_: Connection) -> None:
        begun.set()
        assert go_on.wait(60)

    ahead = asyncio.ensure_future(database.write(first))
    await asyncio.to_thread(begun.wait, 60)
    waiting = [asyncio.ensure_future(database.write(work)) for work in works]
    await asyncio.sleep(0)
    if limit:
        event.listen(
            database.engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={limit}")
        )
    go_on.set()
    await ahead
    return await asyncio.gather(*waiting, return_exceptions=True)


async def names(database: SqlDatabase) -> list[str]:
    query = select(things.c.name).order_by(things.c.name)
    return await database.read(lambda connection: list(connection.execute(query).scalars()))


async def test_a_full_disk_fails_only_what_has_no_room(database: SqlDatabase) -> None:
    pages = await database.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    works = [adding("a"), adding("large", 1 << 20), adding("b"), adding("c")]
    results = await together(database, *works, limit=pages + 20)
    assert [isinstance(result, StorageFullError) for result in results] == [False, True, False, False]
    assert await names(database) == ["a", "b", "c"]


async def test_a_full_disk_is_told_of_a_piece_by_itself(database: SqlDatabase) -> None:
    event.listen(database.engine, "begin", lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=9"))
    with pytest.raises(StorageFullError):
        await database.write(adding("large", 1 << 20))
    await database.write(adding("a"))
    assert await names(database) == ["a"]


async def test_a_mistake_of_one_piece_is_its_own(database: SqlDatabase) -> None:
    def mistaken(connection: Connection) -> None:
        adding("gone")(connection)
        raise LookupError

    results = await together(database, adding("a"), mistaken, adding("b"))
    assert [type(result) for result in results] == [type(None), LookupError, type(None)]
    assert await names(database) == ["a", "b"]


async def test_pieces_that_wait_for_each_other_are_both_done(server: SqlDatabase) -> None:
    for name in ("a", "b"):
        await server.write(adding(name))
    met = threading.Barrier(2, timeout=60)
    tried: list[str] = []

    def locking(first: str, second: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            tried.append(first)
            for turn, name in enumerate((first, second)):
                if turn and tried.count(first) == 1:
                    met.wait()
                connection.execute(update(things).where(things.c.name == name).values(content=first.encode()))
            adding(f"by {first}")(connection)

        return work

    await asyncio.gather(server.write(locking("a", "b")), server.write(locking("b", "a")))
    # The database ends one of them, or both.
    assert len(tried) in (3, 4)
    assert await names(server) == ["a", "b", "by a", "by b"]


async def test_a_mistake_is_told_and_nothing_of_it_is_written(server: SqlDatabase) -> None:
    def mistaken(connection: Connection) -> None:
        adding("gone")(connection)
        connection.execute(text("SELECT 1/0"))

    with pytest.raises(DBAPIError):
        await server.write(mistaken)
    assert await names(server) == []


def lost(connection: Connection) -> None:
    """Cut a piece of work off from the server."""
    cut = text("SELECT pg_terminate_backend(:pid, 30000)")
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with connection.engine.connect() as other:
        other.execute(cut, {"pid": pid})


async def test_a_connection_that_is_lost_on_the_way_costs_nothing(server: SqlDatabase) -> None:
    turns: list[int] = []

    def work(connection: Connection) -> None:
        turns.append(1)
        adding("a")(connection)
        if len(turns) == 1:
            lost(connection)
        adding("b")(connection)

    await server.write(work)
    assert len(turns) == 2
    assert await names(server) == ["a", "b"]


async def test_a_connection_that_is_lost_at_the_end_is_told_not_tried_again(server: SqlDatabase) -> None:
    turns: list[int] = []

    def work(connection: Connection) -> None:
        turns.append(1)
        adding("a")(connection)

    event.listen(server.engine, "commit", lost)
    with pytest.raises(UnavailableError, match="written or not"):
        await server.write(work)
    event.remove(server.engine, "commit", lost)
    assert len(turns) == 1
    assert await names(server) == []


async def test_a_server_that_is_away_is_told_and_comes_back(postgres: Postgres, server: SqlDatabase) -> None:
    await server.write(adding("a"))
    postgres.stop()
    try:
        for asked in (names(server), server.write(adding("b"))):
            with pytest.raises(UnavailableError):
                await asked
    finally:
        postgres.start()
    assert await names(server) == ["a"]
    await server.write(adding("b"))
    assert await names(server) == ["a", "b"]


async def test_a_lock_is_one_process_and_goes_with_it(server: SqlDatabase) -> None:
    async with server.exclusively(7) as first, server.exclusively(7) as second, server.exclusively(8) as another:
        assert (first, second, another) == (True, False, True)
    async with server.exclusively(7) as again:
        assert again
