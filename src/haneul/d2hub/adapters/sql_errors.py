"""What a database's errors mean for whoever asked. The codes are PostgreSQL's ("Appendix A. Error Codes").

Of those that may pass, nothing was written; except that a connection may be lost while a transaction ends, and then
nobody knows.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from haneul.d2hub.errors import StorageFullError
from haneul.kernel.errors import UnavailableError

#: Two met: a serialization failure, a deadlock, and a key that another transaction took away or made meanwhile.
_MET: Final = frozenset({"40001", "40P01", "23503", "23505"})
#: The server ends, starts, has no connection left, or is one that only reads until another takes over.
_AWAY: Final = frozenset({"57P01", "57P02", "57P03", "53300", "25006", "25P03"})
#: Somebody else held a lock, or the statement ran, for longer than is waited.
_SLOW: Final = frozenset({"55P03", "57014"})
_NO_CONNECTION: Final = "08"
_FULL: Final = "53100"
#: SQLite's extended codes have the primary code in their lowest byte.
_PRIMARY_CODE: Final = 0xFF


def away(error: BaseException) -> bool:
    """Say whether the database could not be reached, or was lost on the way."""
    if not isinstance(error, DBAPIError):
        return False
    state = _state(error)
    # Without a code the server said nothing.
    unsaid = state is None and isinstance(error, OperationalError | InterfaceError)
    return error.connection_invalidated or unsaid or bool(state and (state in _AWAY or state[:2] == _NO_CONNECTION))


def may_pass(error: BaseException) -> bool:
    """Say whether the same may work in a moment."""
    return away(error) or (isinstance(error, DBAPIError) and _state(error) in _MET)


def translated(error: BaseException, *, ending: bool = False) -> BaseException:
    """Return what to tell of an error: a disk that is full, or a database that is away, is nobody's mistake.

    ``ending`` says that it came while a transaction was being committed.
    """
    if away(error):
        detail = "the registry's database was lost at the end of a change, which may be written or not"
        return UnavailableError(
            detail if ending else "the registry's database does not answer", hint="try again in a few seconds"
        )
    if isinstance(error, PoolTimeoutError) or (isinstance(error, DBAPIError) and _state(error) in _SLOW):
        return UnavailableError("the registry's database is too busy", hint="try again in a few seconds")
    if isinstance(error, DBAPIError) and _is_full(error):
        return StorageFullError(
            "the disk of the registry's database is full", hint="tell whoever runs it; then push again"
        )
    return error


def silent() -> UnavailableError:
    """Return the error for a database that says nothing at all."""
    return UnavailableError(
        "the registry's database did not answer in time; a change may be written or not",
        hint="try again in a few seconds",
    )


def _state(error: DBAPIError) -> str | None:
    """Return PostgreSQL's code; nothing from SQLite, which has none, and None if the server did not say one."""
    state: str | None = getattr(error.orig, "sqlstate", "")
    return state


def _is_full(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY_CODE == sqlite3.SQLITE_FULL
    return _state(error) == _FULL
