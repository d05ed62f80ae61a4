"""Many pieces of work in one transaction: what is told to be written is written, whatever befalls the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, LargeBinary, MetaData, String, Table, event, select

from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.errors import StorageFullError
from haneul.kernel.database import open_blocking_database

things = Table("things", MetaData(), Column("name", String(10), primary_key=True), Column("content", LargeBinary))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    database = SqlDatabase(open_blocking_database(f"sqlite:///{tmp_path}/hub.db"))
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
