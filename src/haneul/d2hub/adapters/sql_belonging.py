"""Which folder's content a database is of: with another one's, a collection would take every file for a stray."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, select

from haneul.d2hub.adapters.sql_database import SqlDatabase
from haneul.d2hub.tables import belonging
from haneul.kernel.errors import ConflictError

_THE_ROW: Final = 1


async def claim(database: SqlDatabase, folder: str, *, empty: bool) -> None:
    """Write down the folder's mark in a new database, or see that it is there; a folder with content has its own.

    Raises ConflictError.
    """

    def claimed(connection: Connection) -> str | None:
        known = select(belonging.c.folder).where(belonging.c.id == _THE_ROW)
        if empty:
            row = {"id": _THE_ROW, "folder": folder}
            connection.execute(database.insert(belonging).values(row).on_conflict_do_nothing())
        found: str | None = connection.execute(known).scalar_one_or_none()
        return found

    found = await database.write(claimed)
    if found is None:
        raise ConflictError(
            "the database is new, but the folder has content already",
            hint="name the database that knows this content, or restore it from a backup",
        )
    if found != folder:
        raise ConflictError("the database knows the content of another folder", hint="name that folder with --data")
