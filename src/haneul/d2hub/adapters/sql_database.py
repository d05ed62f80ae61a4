"""The database, worked with in threads: one change of threads for a transaction, not several for a statement.

SQLite lets one transaction write at a time. So one thread writes, and takes what waits into one transaction: each
piece of work is whole or not at all by itself (a savepoint), and all of them wait for the disk once. A full or failing
disk may make SQLite end the whole transaction with the piece that met it; then each piece is done again by itself.

In PostgreSQL each piece of work is a transaction of its own, in one of several threads. It is done again, a few times,
if it met another one or the connection was lost before its end. What only reads needs no transaction there: at the
isolation that is used each statement sees what was committed before it, with or without.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from haneul.d2hub.adapters.sql_errors import away, may_pass, silent, translated
from haneul.kernel.database import writing_blocking

P = ParamSpec("P")
T = TypeVar("T")
_READERS: Final = 4
_WRITERS: Final = 8
#: Connections of one process to PostgreSQL, besides one that a collection holds.
CONNECTIONS: Final = _READERS + _WRITERS
#: Of PostgreSQL: longer than the server lets a statement run, so for one that hangs.
_LONGEST_ATTEMPT: Final = 70.0
#: The longest waits in seconds before a piece of work is done again. Each is random below its bound, so that those
#: who met do not meet again; after the last there is none.
_BACK_OFF: Final = (0.05, 0.1, 0.2, 0.4, 0.8, None)
#: Pieces of work in one transaction.
_MOST_AT_ONCE: Final = 64
#: A piece of work, and what becomes of it.
_Waiting: TypeAlias = tuple[Callable[[Connection], Any], Future[Any]]


class _EndedError(Exception):
    """SQLite ended a transaction by itself: nothing of it is written (its documentation, "Transactions", 2.3)."""


class SqlDatabase:
    """One database and the threads that work with it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: Whether one transaction writes at a time.
        self.one_writes = engine.dialect.name == "sqlite"
        self._reading = engine if self.one_writes else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-reads")
        self._writers = ThreadPoolExecutor(1 if self.one_writes else _WRITERS, thread_name_prefix="database-writes")
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()

    def close(self) -> None:
        """Let threads end and close connections."""
        self._readers.shutdown()
        self._writers.shutdown()
        self.engine.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do some work that only reads."""

        def reading() -> T:
            with self._reading.connect() as connection:
                return work(connection)

        return await self._patiently(lambda: asyncio.get_running_loop().run_in_executor(self._readers, reading))

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do some work that writes, in a transaction: when this returns it is on the disk.

        If it raises, nothing is written; except that UnavailableError may say that nobody knows. The work may be done
        several times, the last of which counts.
        """
        if not self.one_writes:
            loop = asyncio.get_running_loop()
            return await self._patiently(lambda: loop.run_in_executor(self._writers, self._written, work))
        future: Future[T] = Future()
        self._waiting.put((work, future))
        self._writers.submit(self._write_waiting)
        return await asyncio.wrap_future(future)

    @contextlib.asynccontextmanager
    async def exclusively(self, key: int) -> AsyncIterator[bool]:
        """Hold a lock that all processes of the database share, if it is free; yields whether it was.

        It ends with its connection. A loss of that is not noticed: what is held off may then begin elsewhere.
        """
        if self.one_writes:
            yield True
            return
        loop = asyncio.get_running_loop()

        def take() -> tuple[Connection, bool]:
            connection = self._reading.connect()
            # Not to be used by others afterwards: the lock goes with the connection, however this ends.
            connection.detach()
            try:
                return connection, bool(connection.execute(select(func.pg_try_advisory_lock(key))).scalar_one())
            except BaseException:
                connection.close()
                raise

        connection, free = await self._patiently(lambda: loop.run_in_executor(self._readers, take))
        try:
            yield free
        finally:
            await asyncio.shield(loop.run_in_executor(self._readers, connection.close))

    def insert(self, table: Table) -> Any:
        """Return an insert that may say what happens on a conflict; both databases use the same words for it."""
        return sqlite.insert(table) if self.one_writes else postgresql.insert(table)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try something, again if it may pass. No thread is held while waiting in between."""
        for longest in _BACK_OFF:
            try:
                if self.one_writes:
                    return await attempt()
                async with asyncio.timeout(_LONGEST_ATTEMPT):
                    return await attempt()
            except TimeoutError as error:
                raise silent() from error
            except Exception as error:
                if longest is None or not may_pass(error):
                    if (told := translated(error)) is error:
                        raise
                    raise told from error
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - chance, no secret
        raise AssertionError("the last attempt returns or raises")

    def _written(self, work: Callable[[Connection], T]) -> T:
        """Do some work in a transaction of its own. Raises what the database fails with."""
        ending = False
        try:
            with writing_blocking(self.engine) as connection:
                result = work(connection)
                ending = True
        except DBAPIError as error:
            if ending and away(error):
                raise translated(error, ending=True) from error
            raise
        return result

    def _write_alone(self, work: Callable[[Connection], Any], future: Future[Any]) -> None:
        try:
            result = self._written(work)
        except BaseException as error:  # noqa: BLE001, RUF100 - whoever waits gets it
            future.set_exception(translated(error))
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
                future.set_exception(translated(error))
            return
        for future, result, failure in done:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(translated(failure))

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
