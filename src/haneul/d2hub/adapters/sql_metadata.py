"""What repositories have, in SQL: SQLite alone on a machine, PostgreSQL for several processes, with the same words.

In SQLite one transaction writes at a time. In PostgreSQL the same promises rest on rows: whoever relies on a blob
writes its row (``touched``), whoever removes it asks for that very value in the same statement, so one of the two sees
the other; whoever relies on a manifest, or deletes it, locks its row first.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Table, and_, bindparam, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from haneul.d2hub.digests import is_digest
from haneul.d2hub.errors import ManifestBlobUnknownError, TagImmutableError, UnsupportedError
from haneul.d2hub.model import LinkedBlob, ManifestPush, StoredBlob, StoredManifest
from haneul.d2hub.names import project_of
from haneul.d2hub.tables import blobs, deleted_tags, links, manifests, references, repositories, tags
from haneul.kernel.database import writing

#: Values in one statement; SQLite takes 32,766, PostgreSQL's protocol 65,535.
_MOST_VALUES: Final = 500


class SqlMetadata:
    """Blobs, manifests and tags of repositories, in one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        # SQLite's own wait for its turn is a sleep that knows nothing of who came first.
        self._turn: asyncio.Lock | None = asyncio.Lock() if engine.dialect.name == "sqlite" else None

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes."""
        if self._turn is None:
            async with writing(self.engine) as connection:
                yield connection
            return
        async with self._turn, writing(self.engine) as connection:
            yield connection

    def insert(self, table: Table) -> Any:
        """Return an insert that may say what happens on a conflict; both databases use the same words for it."""
        return sqlite.insert(table) if self._turn is not None else postgresql.insert(table)

    async def blob(self, repository: str, digest: str) -> LinkedBlob | None:
        """Look a blob up."""
        query = (
            select(blobs.c.key, blobs.c.size, links.c.touched)
            .join(links, links.c.digest == blobs.c.digest)
            .join(repositories, repositories.c.id == links.c.repository)
            .where(repositories.c.name == repository, links.c.digest == digest, links.c.deleted.is_(None))
        )
        async with self.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else LinkedBlob(StoredBlob(digest, row.key, row.size), aware(row.touched))

    async def link_blob(self, repository: str, stored: StoredBlob, *, now: datetime) -> StoredBlob:
        """Write content down if it is new, and the repository's link to it."""
        new = self.insert(blobs).values(digest=stored.digest, key=stored.key, size=stored.size, touched=now)
        kept = new.on_conflict_do_update(index_elements=[blobs.c.digest], set_={"touched": now})
        async with self.writing() as connection:
            row = (await connection.execute(kept.returning(blobs.c.key, blobs.c.size))).one()
            await self._link(connection, await self._repository(connection, repository, now), stored.digest, now)
        return StoredBlob(stored.digest, row.key, row.size)

    async def mount_blob(self, digest: str, *, source: str, target: str, now: datetime) -> bool:
        """Touch the content, so that it stays, then link it."""
        linked = (
            select(links.c.digest)
            .join(repositories, repositories.c.id == links.c.repository)
            .where(repositories.c.name == source, links.c.digest == digest, links.c.deleted.is_(None))
        )
        async with self.writing() as connection:
            touched = await connection.execute(update(blobs).where(blobs.c.digest == digest).values(touched=now))
            if not touched.rowcount or (await connection.execute(linked)).one_or_none() is None:
                return False
            await self._link(connection, await self._repository(connection, target, now), digest, now)
        return True

    async def touch_blob(self, repository: str, digest: str, *, now: datetime) -> bool:
        """Touch a link."""
        mine = links.c.repository == _id_of(repository)
        change = update(links).where(mine, links.c.digest == digest, links.c.deleted.is_(None)).values(touched=now)
        async with self.writing() as connection:
            return bool((await connection.execute(change)).rowcount)

    async def delete_blob(self, repository: str, digest: str, *, now: datetime) -> bool:
        """Mark a link as deleted; content goes with a collection."""
        async with self.writing() as connection:
            found = await _find(connection, repository)
            if found is None:
                return False
            mine = and_(links.c.repository == found, links.c.digest == digest, links.c.deleted.is_(None))
            # The change first: it holds the row that a push of a manifest has to touch.
            if not (await connection.execute(update(links).where(mine).values(deleted=now, touched=now))).rowcount:
                return False
            if (user := await _live_user(connection, found, digest)) is not None:
                raise UnsupportedError(f"the manifest {user} needs the blob {digest}", hint="delete the manifest first")
        return True

    async def manifest(self, repository: str, reference: str) -> StoredManifest | None:
        """Look a manifest up by its digest or a tag."""
        query = (
            select(manifests.c.digest, manifests.c.media_type, manifests.c.content, manifests.c.subject)
            .join(repositories, repositories.c.id == manifests.c.repository)
            .where(repositories.c.name == repository, manifests.c.deleted.is_(None))
        )
        if is_digest(reference):
            query = query.where(manifests.c.digest == reference)
        else:
            named = and_(tags.c.repository == manifests.c.repository, tags.c.digest == manifests.c.digest)
            query = query.join(tags, named).where(tags.c.name == reference)
        async with self.engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else StoredManifest(row.digest, row.media_type, row.content, row.subject)

    async def put_manifest(self, change: ManifestPush) -> None:
        """Check that everything is there, hold it, and write the manifest and its tag."""
        async with self.writing() as connection:
            found = await self._repository(connection, change.repository, change.now)
            before = await _tagged(connection, found, change.tag) if change.tag else None
            if change.immutable and before not in (None, change.digest):
                raise TagImmutableError(
                    f"{change.repository}:{change.tag} names {before} and stays so", hint="push under another tag"
                )
            await _hold_references(connection, found, change)
            await self._write_manifest(connection, found, change)
            if change.tag:
                await self._write_tag(connection, found, change, before)

    async def delete(self, repository: str, reference: str, *, now: datetime, by: str) -> bool:
        """Delete a tag or a manifest."""
        async with self.writing() as connection:
            found = await _find(connection, repository)
            if found is None:
                return False
            if not is_digest(reference):
                return await _delete_tags(connection, found, tags.c.name == reference, now, by) > 0
            return await _delete_manifest(connection, found, reference, now, by)

    async def _repository(self, connection: AsyncConnection, name: str, now: datetime) -> int:
        found = await _find(connection, name)
        if found is not None:
            return found
        values = {"name": name, "project": project_of(name), "created": now}
        await connection.execute(self.insert(repositories).values(values).on_conflict_do_nothing())
        made = await _find(connection, name)
        if made is None:
            raise AssertionError(f"the repository {name} was just made")
        return made

    async def _link(self, connection: AsyncConnection, repository: int, digest: str, now: datetime) -> None:
        new = self.insert(links).values(repository=repository, digest=digest, touched=now)
        keys = [links.c.repository, links.c.digest]
        await connection.execute(new.on_conflict_do_update(index_elements=keys, set_={"touched": now, "deleted": None}))

    async def _write_manifest(self, connection: AsyncConnection, repository: int, change: ManifestPush) -> None:
        parsed = change.manifest
        said = {"media_type": parsed.media_type, "pushed": change.now, "deleted": None, "deleted_by": None}
        new = self.insert(manifests).values(
            repository=repository,
            digest=change.digest,
            content=change.content,
            size=len(change.content),
            content_size=parsed.content_size,
            subject=parsed.subject,
            artifact_type=parsed.artifact_type,
            annotations=json.dumps(dict(parsed.annotations)),
            **said,
        )
        keys = [manifests.c.repository, manifests.c.digest]
        await connection.execute(new.on_conflict_do_update(index_elements=keys, set_=said))
        for part in _parts(parsed.references):
            rows = [{"repository": repository, "manifest": change.digest, "target": target} for target in part]
            await connection.execute(self.insert(references).values(rows).on_conflict_do_nothing())

    async def _write_tag(
        self, connection: AsyncConnection, repository: int, change: ManifestPush, before: str | None
    ) -> None:
        if before is not None and before != change.digest:
            gone = {"repository": repository, "name": change.tag, "digest": before}
            gone |= {"deleted": change.now, "deleted_by": change.by}
            await connection.execute(self.insert(deleted_tags).values(gone))
        new = self.insert(tags).values(repository=repository, name=change.tag, digest=change.digest, updated=change.now)
        keys = [tags.c.repository, tags.c.name]
        await connection.execute(
            new.on_conflict_do_update(index_elements=keys, set_={"digest": change.digest, "updated": change.now})
        )


async def _hold_references(connection: AsyncConnection, repository: int, change: ManifestPush) -> None:
    """Make sure that everything a manifest refers to is there and stays. Raises ManifestBlobUnknownError."""
    missing: list[str] = []
    for part in _parts(change.manifest.blobs):
        mine = and_(links.c.repository == repository, links.c.digest.in_(part), links.c.deleted.is_(None))
        held = await connection.execute(update(links).where(mine).values(touched=change.now))
        if held.rowcount != len(part):
            there = set((await connection.execute(select(links.c.digest).where(mine))).scalars())
            missing += [digest for digest in part if digest not in there]
    for part in _parts(change.manifest.manifests):
        children = select(manifests.c.digest).where(
            manifests.c.repository == repository, manifests.c.digest.in_(part), manifests.c.deleted.is_(None)
        )
        there = set((await connection.execute(children.with_for_update())).scalars())
        missing += [digest for digest in part if digest not in there]
    if missing:
        raise ManifestBlobUnknownError(
            f"{change.repository} does not have {', '.join(missing[:10])}",
            hint="push what a manifest refers to before the manifest",
        )


async def _delete_tags(
    connection: AsyncConnection, repository: int, which: ColumnElement[bool], now: datetime, by: str
) -> int:
    """Delete tags and note what they named; return how many."""
    gone = delete(tags).where(tags.c.repository == repository, which).returning(tags.c.name, tags.c.digest)
    rows = [
        {"repository": repository, "name": row.name, "digest": row.digest, "deleted": now, "deleted_by": by}
        for row in await connection.execute(gone)
    ]
    if rows:
        await connection.execute(deleted_tags.insert(), rows)
    return len(rows)


async def _delete_manifest(connection: AsyncConnection, repository: int, digest: str, now: datetime, by: str) -> bool:
    """Mark a manifest as deleted, and delete the tags that name it."""
    mine = and_(manifests.c.repository == repository, manifests.c.digest == digest, manifests.c.deleted.is_(None))
    if (await connection.execute(select(manifests.c.digest).where(mine).with_for_update())).one_or_none() is None:
        return False
    if (user := await _live_user(connection, repository, digest)) is not None:
        raise UnsupportedError(f"the index {user} refers to {digest}", hint="delete the index first")
    await _delete_tags(connection, repository, tags.c.digest == digest, now, by)
    await connection.execute(update(manifests).where(mine).values(deleted=now, deleted_by=by))
    return True


async def _live_user(connection: AsyncConnection, repository: int, target: str) -> str | None:
    """Return a manifest, not deleted, that refers to ``target``."""
    query = (
        select(references.c.manifest)
        .join(
            manifests,
            and_(manifests.c.repository == references.c.repository, manifests.c.digest == references.c.manifest),
        )
        .where(references.c.repository == repository, references.c.target == target, manifests.c.deleted.is_(None))
        .limit(1)
    )
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def _find(connection: AsyncConnection, name: str) -> int | None:
    query = _FIND
    found: int | None = (await connection.execute(query, {"name": name})).scalar_one_or_none()
    return found


_FIND: Final = select(repositories.c.id).where(repositories.c.name == bindparam("name"))


async def _tagged(connection: AsyncConnection, repository: int, tag: str) -> str | None:
    query = select(tags.c.digest).where(tags.c.repository == repository, tags.c.name == tag).with_for_update()
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


def _id_of(repository: str) -> Any:
    return select(repositories.c.id).where(repositories.c.name == repository).scalar_subquery()


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _MOST_VALUES):
        yield values[start : start + _MOST_VALUES]


def referenced(target: ColumnElement[str], repository: ColumnElement[int]) -> ColumnElement[bool]:
    """Say whether a manifest of the repository, deleted or not, refers to something."""
    return exists().where(references.c.repository == repository, references.c.target == target)


def counted(query: Select[Any]) -> Select[tuple[int]]:
    """Return how many rows a query has."""
    return select(func.count()).select_from(query.subquery())


def aware(moment: datetime) -> datetime:
    """Return a moment of the database in UTC; SQLite keeps no time zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
