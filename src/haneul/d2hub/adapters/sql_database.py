"""The database, worked with in threads: one change of threads for a transaction, not several for a statement.

SQLite lets one transaction write at a time. So one thread writes, and takes what waits into one transaction: each
piece of work is whole or not at all by itself (a savepoint), and all of them wait for the disk once. A full or failing
disk may make SQLite end the whole transaction with the piece that met it; then each piece is done again by itself. In
PostgreSQL each piece of work is a transaction of its own, in one of several threads.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import sqlite3
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from haneul.d2hub.errors import StorageFullError
from haneul.kernel.database import writing_blocking

P = ParamSpec("P")
T = TypeVar("T")
_READERS: Final = 4
_WRITERS: Final = 8
#: Pieces of work in one transaction.
_MOST_AT_ONCE: Final = 64
#: A piece of work, and what becomes of it.
_Waiting: TypeAlias = tuple[Callable[[Connection], Any], Future[Any]]
#: SQLite's extended codes have the primary code in their lowest byte.
_PRIMARY_CODE: Final = 0xFF


class _EndedError(Exception):
    """SQLite ended a transaction by itself: nothing of it is written (its documentation, "Transactions", 2.3)."""


class SqlDatabase:
    """One database and the threads that work with it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._one_writes = engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-reads")
        self._writers = ThreadPoolExecutor(1 if self._one_writes else _WRITERS, thread_name_prefix="database-writes")
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()

    def close(self) -> None:
        """Let threads end and close connections."""
        self._readers.shutdown()
        self._writers.shutdown()
        self.engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do some work that only reads."""

        def reading() -> T:
            with self.engine.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, reading)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do some work that writes, in a transaction: when this returns it is on the disk, and nothing if it raises."""
        future: Future[T] = Future()
        self._waiting.put((work, future))
        self._writers.submit(self._write_waiting if self._one_writes else self._write_one)
        return await asyncio.wrap_future(future)

    def insert(self, table: Table) -> Any:
        """Return an insert that may say what happens on a conflict; both databases use the same words for it."""
        return sqlite.insert(table) if self._one_writes else postgresql.insert(table)

    def _write_one(self) -> None:
        work, future = self._waiting.get()
        if future.set_running_or_notify_cancel():
            self._write_alone(work, future)

    def _write_alone(self, work: Callable[[Connection], Any], future: Future[Any]) -> None:
        try:
            with writing_blocking(self.engine) as connection:
                result = work(connection)
        except BaseException as error:  # noqa: BLE001, RUF100 - whoever waits gets it
            future.set_exception(_translated(error))
        else:
            future.set_result(result)

    def _write_waiting(self) -> None:
        """Do everything that waits, which may be nothing: earlier turns took it."""
        taken: list[_Waiting] = []
        while len(taken) < _MOST_AT_ONCE and not self._waiting.empty():
            work, future = self._waiting.get()
            if future.set_running_or_notify_cancel():
                taken.append((work, future))
        if len(taken) <= 1:
            for work, future in taken:
                self._write_alone(work, future)
            return
        try:
            done = self._done_together(taken)
        except _EndedError:
            for work, future in taken:
                self._write_alone(work, future)
            return
        except BaseException as error:  # noqa: BLE001, RUF100 - nothing of this transaction is written
            for _, future in taken:
                future.set_exception(_translated(error))
            return
        for future, result, failure in done:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(_translated(failure))

    def _done_together(self, taken: list[_Waiting]) -> list[tuple[Future[Any], Any, BaseException | None]]:
        """Return what became of each piece, all written. Raises _EndedError, and what the database fails with."""
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        with writing_blocking(self.engine) as connection:
            for work, future in taken:
                done.append((future, *_tried(connection, work)))
                # The next savepoint would begin a transaction of its own, and what came before would be missing.
                if not _in_transaction(connection):
                    raise _EndedError
        return done


def _tried(connection: Connection, work: Callable[[Connection], T]) -> tuple[T | None, BaseException | None]:
    """Return what became of a piece of work; if it failed, nothing of it stays."""
    try:
        with connection.begin_nested():
            return work(connection), None
    except BaseException as error:  # noqa: BLE001, RUF100 - of this piece of work alone
        return None, error


def _in_transaction(connection: Connection) -> bool:
    driver: Any = connection.connection.dbapi_connection
    return bool(driver.in_transaction)


def _translated(error: BaseException) -> BaseException:
    """Return what to tell of an error: a disk that is full is nobody's mistake."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)
        if code & _PRIMARY_CODE == sqlite3.SQLITE_FULL:
            return StorageFullError(
                "the disk of the registry's database is full", hint="tell whoever runs it; then push again"
            )
    return error


class _OnDatabase(Protocol):
    database: SqlDatabase


S = TypeVar("S", bound=_OnDatabase)


def reads(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method that is given a connection one that is awaited, and reads."""

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.database.read(lambda connection: method(self, connection, *args, **kwargs))

    return call


def writes(
    method: Callable[Concatenate[S, Connection, P], T],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Make a method that is given a connection one that is awaited, and writes in one transaction."""

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.database.write(lambda connection: method(self, connection, *args, **kwargs))

    return call
