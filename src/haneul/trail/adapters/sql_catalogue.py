"""The port ``Catalogue`` on SQLite, in one file for each cluster.

Texts that repeat have a table of their own; clients and request ids, which seldom do, are kept as numbers made of them,
and whoever reads the record sees whether it is the one. The table of entries lies in the order of time. The standard
library's driver is used as it is: this is a cache of a fixed shape that is thrown away rather than migrated, and rows
come in by the hundred thousand.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from haneul.kernel.errors import UnavailableError
from haneul.trail.chunks import ChunkName, Index
from haneul.trail.ports import Hit, Question, status_range

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE chunk (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, content TEXT NOT NULL);
CREATE TABLE block (chunk INTEGER, number INTEGER, start INTEGER, length INTEGER,
    PRIMARY KEY (chunk, number)) WITHOUT ROWID;
CREATE TABLE host (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE path (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE entry (started INTEGER, chunk INTEGER, block INTEGER, line INTEGER,
    status INTEGER, client INTEGER, request INTEGER, host INTEGER, path INTEGER,
    PRIMARY KEY (started, chunk, block, line)) WITHOUT ROWID;
CREATE INDEX entry_status ON entry (status);
CREATE INDEX entry_client ON entry (client);
CREATE INDEX entry_request ON entry (request);
CREATE INDEX entry_host ON entry (host, started, status, path, client);
CREATE INDEX entry_path ON entry (path);
"""
#: Up to so many entries are looked at one by one and sorted.
_FEW: Final = 20_000
#: Entries are not counted further than to so many.
_MANY: Final = 500_000


class SqlCatalogue:
    """``file`` is made if it is not there, for its owner alone; one of another shape is made anew."""

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._open() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            for end in ("", "-wal", "-shm"):
                file.with_name(file.name + end).unlink(missing_ok=True)
        with self._writing() as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    def chunks(self) -> set[str]:
        """Return the keys of the indexes that it has."""
        with self._open() as connection:
            return {name for (name,) in connection.execute("SELECT name FROM chunk")}

    def add(self, name: ChunkName, index: Index) -> None:
        """Take in a chunk's index."""
        with self._writing() as connection:
            made = connection.execute(
                "INSERT OR IGNORE INTO chunk (name, content) VALUES (?, ?) RETURNING id", (name.index, name.content)
            ).fetchone()
            if made is None:
                return
            chunk = made[0]
            connection.executemany(
                "INSERT INTO block VALUES (?, ?, ?, ?)",
                [(chunk, number, start, length) for number, (start, length) in enumerate(index.blocks)],
            )
            hosts = _numbered(connection, "host", {entry.host for entry in index.entries})
            paths = _numbered(connection, "path", {entry.path for entry in index.entries})
            connection.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        entry.started,
                        chunk,
                        entry.block,
                        entry.line,
                        entry.status,
                        _number(entry.client),
                        _number(entry.request_id),
                        hosts[_text(entry.host)],
                        paths[_text(entry.path)],
                    )
                    for entry in index.entries
                ],
            )

    def forget(self, keys: Sequence[str]) -> None:
        """Take out chunks."""
        with self._writing() as connection:
            for key in keys:
                found = connection.execute("DELETE FROM chunk WHERE name = ? RETURNING id", (key,)).fetchone()
                if found:
                    connection.execute("DELETE FROM block WHERE chunk = ?", found)
                    connection.execute("DELETE FROM entry WHERE chunk = ?", found)

    def find(self, question: Question) -> list[Hit]:
        """Return what answers, the newest first."""
        with self._open() as connection:
            terms = list(_terms(question))
            chosen = _chosen(connection, question, terms)
            where = ["started BETWEEN ? AND ?"]
            values: list[Any] = [question.since, question.until]
            for term in terms:
                # A plus keeps SQLite from another index than the one that was chosen.
                where.append(f"{'' if term.column == chosen else '+'}{term.text}")
                values += term.values
            index = f"INDEXED BY entry_{chosen}" if chosen else ""
            # The words are this module's own; values are bound.
            sql = (
                f"SELECT started, chunk, block, line FROM entry {index} WHERE {' AND '.join(where)} "  # noqa: S608
                "ORDER BY started DESC, chunk DESC, block DESC, line DESC LIMIT ?"
            )
            rows = connection.execute(sql, [*values, question.limit]).fetchall()
            return [_hit(connection, *row) for row in rows]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file.touch(0o600)
            with contextlib.closing(sqlite3.connect(self._file, timeout=30.0, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                # It can be made anew, so a crash of the machine may cost the last entries.
                connection.execute("PRAGMA synchronous=NORMAL")
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"the catalogue {self._file} cannot be used: {error}",
                hint="its owner alone may; if it is broken, remove it, and the next search makes it anew",
            ) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


class _Term:
    """One condition: its text, its values, and the column whose index finds it.

    That index is in the order of time where the condition is of ``one`` value.
    """

    def __init__(self, column: str, text: str, *values: Any, one: bool = True) -> None:
        self.column, self.text, self.values, self.one = column, text, values, one


def _terms(question: Question) -> Iterator[_Term]:
    if question.request_id:
        yield _Term("request", "request = ?", _number(question.request_id))
    if question.client:
        yield _Term("client", "client = ?", _number(question.client))
    if question.status:
        first, last = status_range(question.status)
        if first == last:
            yield _Term("status", "status = ?", first)
        else:
            yield _Term("status", "status BETWEEN ? AND ?", first, last, one=False)
    if question.host:
        yield _Term("host", "host = (SELECT id FROM host WHERE name = ?)", _text(question.host))
    if question.path.endswith("*"):
        begin = _text(question.path[:-1])
        one = "path IN (SELECT id FROM path WHERE name >= ? AND name < ?)"
        yield _Term("path", one, begin, begin + "\U0010ffff", one=False)
    elif question.path:
        yield _Term("path", "path = (SELECT id FROM path WHERE name = ?)", _text(question.path))


def _chosen(connection: sqlite3.Connection, question: Question, terms: Sequence[_Term]) -> str:
    """Return the column whose index is used: that of the rarest condition; none where time's own order is better."""
    best, chosen = _MANY, ""
    for term in terms:
        count = _count(connection, question, term, min(best, _MANY if term.one else _FEW))
        if count < best and (term.one or count < _FEW):
            best, chosen = count, term.column
    if not chosen and any(term.one and term.column == "host" for term in terms):
        # Its index has what other conditions ask for, too.
        return "host"
    return chosen


def _count(connection: sqlite3.Connection, question: Question, term: _Term, most: int) -> int:
    """Return how many entries have it, but no more than ``most``."""
    sql = (
        f"SELECT count(*) FROM (SELECT 1 FROM entry INDEXED BY entry_{term.column} "  # noqa: S608 - as above
        f"WHERE {term.text} AND started BETWEEN ? AND ? LIMIT ?)"
    )
    found = connection.execute(sql, [*term.values, question.since, question.until, most]).fetchone()
    return int(found[0])


def _hit(connection: sqlite3.Connection, started: int, chunk: int, block: int, line: int) -> Hit:
    sql = "SELECT content, start, length FROM chunk JOIN block ON chunk = id WHERE id = ? AND number = ?"
    key, start, length = connection.execute(sql, (chunk, block)).fetchone()
    return Hit(key, start, length, line, started)


def _numbered(connection: sqlite3.Connection, table: str, names: set[str]) -> dict[str, int]:
    texts = sorted(map(_text, names))
    connection.executemany(
        f"INSERT OR IGNORE INTO {table} (name) VALUES (?)",  # noqa: S608 - one of two tables
        [(text,) for text in texts],
    )
    return {
        text: connection.execute(f"SELECT id FROM {table} WHERE name = ?", (text,)).fetchone()[0]  # noqa: S608
        for text in texts
    }


def _text(text: str) -> str:
    """Return a text as a database keeps it: bytes that are no UTF-8 are written out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _number(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
