"""D2Hub's database: a file in its folder, or a PostgreSQL that several processes share."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from haneul import d2hub as d2hub_package
from haneul.app.d2hub_folder import is_empty, mark_of
from haneul.d2hub.adapters.sql_belonging import claim
from haneul.d2hub.adapters.sql_database import CONNECTIONS, SqlDatabase
from haneul.kernel.database import migrate, open_blocking_database, open_database
from haneul.kernel.errors import ConflictError, InvalidInputError, UnavailableError
from haneul.kernel.files import NotPrivateError, read_private, write_atomically

MIGRATIONS: Final = Path(d2hub_package.__file__).parent / "migrations"
_PRIVATE: Final = 0o600


async def embedded_database(data: Path) -> SqlDatabase:
    """Open the database in a registry's own folder. Raises ConflictError if the folder has its database elsewhere."""
    if mark_of(data).exists():
        raise ConflictError(f"what {data} has is known to a database elsewhere", hint="name it with --database-file")
    file = data / "hub.db"
    await migrated(f"sqlite+aiosqlite:///{file}")
    return SqlDatabase(open_blocking_database(f"sqlite:///{file}"))


async def shared_database(data: Path, file: Path) -> SqlDatabase:
    """Open the database whose address a file has, if it is the folder's. Raises ConflictError, UnavailableError."""
    url = database_url(file)
    if (data / "hub.db").exists():
        raise ConflictError(f"what {data} has is known to its own hub.db", hint="name another folder with --data")
    await migrated(url)
    database = SqlDatabase(open_blocking_database(url, connections=CONNECTIONS))
    mark = mark_of(data)
    # The file first: a database with a mark that no folder has would be lost.
    made = write_atomically(mark, secrets.token_hex(16), mode=_PRIVATE) if not mark.exists() else False
    try:
        await claim(database, mark.read_text(), empty=is_empty(data))
    except ConflictError:
        if made:
            mark.unlink()
        database.close()
        raise
    except BaseException:
        database.close()
        raise
    return database


async def migrated(url: str | URL) -> None:
    """Bring a database's tables to their newest version. Raises UnavailableError."""
    engine = open_database(url)
    try:
        await migrate(engine, MIGRATIONS)
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        raise UnavailableError(
            f"the registry's database cannot be used: {said[:300]}", hint="look at its address and its log"
        ) from error
    finally:
        await engine.dispose()


def database_url(file: Path) -> URL:
    """Return the address in a file that only its owner reads, as it may have a password. Raises InvalidInputError."""
    try:
        text = read_private(file).strip()
    except NotPrivateError as error:
        raise InvalidInputError(f"others may read {file}", hint=f"chmod 600 {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read", hint="write the database's address into it") from error
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise _no_address(file) from error
    if url.drivername not in ("postgresql", "postgres"):
        raise _no_address(file)
    return url.set(drivername="postgresql+psycopg")


def _no_address(file: Path) -> InvalidInputError:
    # Not what stands there: it may have a password.
    return InvalidInputError(
        f"{file} has no address of a PostgreSQL database", hint="write postgresql://NAME:PASSWORD@HOST/DATABASE into it"
    )
