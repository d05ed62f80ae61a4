"""What repositories have, in SQL that SQLite and PostgreSQL both understand.

In SQLite one transaction writes at a time. Where several do, the same promises rest on rows:

- Whoever changes manifests or tags, or deletes a blob, locks the repository's row first; so does a collection for
  those of which it removes something. Of one repository one is done after the other, and sees all of it.
- Whoever relies on a blob, on the way of a push, writes its row (``touched``). Whoever removes it asks for that very
  value in the same statement, so one of the two sees the other. Pushes of blobs need no lock but these rows.
- What remains are keys that somebody takes away while another one names them: a repository in which nothing was left.
  Then the database refuses one of the two, and it is done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, exists, func, select, update

from haneul.d2hub.adapters.sql_audit import write_down
from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.adapters.sql_inventory import users_of
from haneul.d2hub.digests import is_digest
from haneul.d2hub.errors import ImageInUseError, ManifestBlobUnknownError, TagImmutableError, UnsupportedError
from haneul.d2hub.happenings import UNKNOWN, AuditEntry, Happening, Origin
from haneul.d2hub.inventory import MOST_SHOWN, described
from haneul.d2hub.model import DeletionOrder, LinkedBlob, ManifestPush, StoredBlob, StoredManifest
from haneul.d2hub.names import project_of
from haneul.d2hub.tables import (
    blobs,
    deleted_tags,
    incomplete_manifests,
    links,
    manifests,
    references,
    repositories,
    tags,
)
from haneul.kernel.database import aware

#: Values in one statement; SQLite takes 32,766, PostgreSQL's protocol 65,535.
_MOST_VALUES: Final = 500
_FIND: Final = select(repositories.c.id).where(repositories.c.name == bindparam("name"))
#: Others may still name the row as theirs, with a new link, but not lock it like this. SQLite takes no such lock.
_HOLD_REPOSITORY: Final = _FIND.with_for_update(key_share=True)
_TAGGED: Final = select(tags.c.digest).where(
    tags.c.repository == bindparam("of_repository"), tags.c.name == bindparam("tag")
)
_SOME: Final = and_(
    links.c.repository == bindparam("of_repository"),
    links.c.digest.in_(bindparam("digests", expanding=True)),
    links.c.deleted.is_(None),
)
_HOLD: Final = update(links).where(_SOME)
_HELD: Final = select(links.c.digest).where(_SOME)
_COMPLETE: Final = delete(incomplete_manifests).where(
    incomplete_manifests.c.repository == bindparam("of_repository"),
    incomplete_manifests.c.digest == bindparam("of_digest"),
)


class SqlMetadata:
    """Blobs, manifests and tags of repositories, in one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database
        # Statements of every push are made once: to make one costs as much as to run it.
        new = database.insert(blobs)
        touched = {"touched": new.excluded.touched}
        self._keep = new.on_conflict_do_update(index_elements=[blobs.c.digest], set_=touched).returning(
            blobs.c.key, blobs.c.size
        )
        new = database.insert(links)
        again = {"touched": new.excluded.touched, "deleted": None}
        self._link_one = new.on_conflict_do_update(index_elements=[links.c.repository, links.c.digest], set_=again)
        new = database.insert(manifests)
        said = {name: new.excluded[name] for name in ("media_type", "pushed", "released")}
        self._write_one = new.on_conflict_do_update(
            index_elements=[manifests.c.repository, manifests.c.digest],
            set_={**said, "deleted": None, "deleted_by": None},
        )
        self._refer = database.insert(references).on_conflict_do_nothing()
        new = database.insert(tags)
        moved = {"digest": new.excluded.digest, "updated": new.excluded.updated}
        self._set_tag = new.on_conflict_do_update(index_elements=[tags.c.repository, tags.c.name], set_=moved)

    @reads
    def blob(self, connection: Connection, repository: str, digest: str) -> LinkedBlob | None:
        """Look a blob up."""
        query = (
            select(blobs.c.key, blobs.c.size, links.c.touched)
            .join(links, links.c.digest == blobs.c.digest)
            .join(repositories, repositories.c.id == links.c.repository)
            .where(repositories.c.name == repository, links.c.digest == digest, links.c.deleted.is_(None))
        )
        row = connection.execute(query).one_or_none()
        return None if row is None else LinkedBlob(StoredBlob(digest, row.key, row.size), aware(row.touched))

    @writes
    def link_blob(
        self, connection: Connection, repository: str, stored: StoredBlob, *, now: datetime, lost_key: str = ""
    ) -> StoredBlob:
        """Write content down if it is new or was lost, and the repository's link to it."""
        if lost_key:
            lost = and_(blobs.c.digest == stored.digest, blobs.c.key == lost_key)
            connection.execute(update(blobs).where(lost).values(key=stored.key, size=stored.size))
        values = {"digest": stored.digest, "key": stored.key, "size": stored.size, "touched": now}
        row = connection.execute(self._keep, values).one()
        self._link(connection, self._repository(connection, repository, now), stored.digest, now)
        return StoredBlob(stored.digest, row.key, row.size)

    @writes
    def mount_blob(self, connection: Connection, digest: str, *, source: str, target: str, now: datetime) -> bool:
        """Touch the content, so that it stays, then link it."""
        linked = (
            select(links.c.digest)
            .join(repositories, repositories.c.id == links.c.repository)
            .where(repositories.c.name == source, links.c.digest == digest, links.c.deleted.is_(None))
        )
        touched = connection.execute(update(blobs).where(blobs.c.digest == digest).values(touched=now))
        if not touched.rowcount or connection.execute(linked).one_or_none() is None:
            return False
        self._link(connection, self._repository(connection, target, now), digest, now)
        return True

    @writes
    def touch_blob(self, connection: Connection, repository: str, digest: str, *, now: datetime) -> bool:
        """Touch a link."""
        mine = links.c.repository == _id_of(repository)
        change = update(links).where(mine, links.c.digest == digest, links.c.deleted.is_(None)).values(touched=now)
        return bool(connection.execute(change).rowcount)

    @writes
    def delete_blob(
        self,
        connection: Connection,
        repository: str,
        digest: str,
        *,
        now: datetime,
        by: str = "",
        origin: Origin = UNKNOWN,
    ) -> bool:
        """Mark a link as deleted; content goes with a collection."""
        found = held_repository(connection, repository)
        if found is None:
            return False
        mine = and_(links.c.repository == found, links.c.digest == digest, links.c.deleted.is_(None))
        if not connection.execute(update(links).where(mine).values(deleted=now, touched=now)).rowcount:
            return False
        if (user := _live_user(connection, found, digest)) is not None:
            raise UnsupportedError(f"the manifest {user} needs the blob {digest}", hint="delete the manifest first")
        entry = AuditEntry(now, Happening.DELETE, repository, "", digest, by, origin.address)
        write_down(connection, [entry], receivers=origin.receivers)
        return True

    @reads
    def manifest(self, connection: Connection, repository: str, reference: str) -> StoredManifest | None:
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
        row = connection.execute(query).one_or_none()
        return None if row is None else StoredManifest(row.digest, row.media_type, row.content, row.subject)

    @writes
    def put_manifest(self, connection: Connection, change: ManifestPush) -> None:
        """Check that everything is there, hold it, and write the manifest and its tag."""
        self.take(connection, change)

    def take(self, connection: Connection, change: ManifestPush, *, incomplete: bool = False) -> None:
        """Write a manifest in a transaction of the caller's; ``incomplete`` takes one whose parts are not all here."""
        found = held_repository(connection, change.repository)
        if found is None:
            self._repository(connection, change.repository, change.now)
            found = held_repository(connection, change.repository)
        if found is None:
            raise AssertionError(f"the repository {change.repository} was just made")
        before = tagged(connection, found, change.tag) if change.tag else None
        if change.immutable and before not in (None, change.digest):
            raise TagImmutableError(
                f"{change.repository}:{change.tag} names {before} and stays so", hint="push under another tag"
            )
        missing = _hold_references(connection, found, change)
        if missing and not incomplete:
            raise ManifestBlobUnknownError(
                f"{change.repository} does not have {', '.join(missing[:10])}",
                hint="push what a manifest refers to before the manifest",
            )
        self._write_manifest(connection, found, change)
        if missing:
            values = {"repository": found, "digest": change.digest}
            connection.execute(self.database.insert(incomplete_manifests).values(values).on_conflict_do_nothing())
        else:
            connection.execute(_COMPLETE, {"of_repository": found, "of_digest": change.digest})
        if change.tag:
            self._write_tag(connection, found, change, before)
        origin = change.origin
        entry = AuditEntry(
            change.now,
            origin.happening or Happening.PUSH,
            change.repository,
            change.tag,
            change.digest,
            change.by,
            origin.address,
        )
        write_down(connection, [entry], receivers=origin.receivers, media_type=change.manifest.media_type)

    @writes
    def delete(self, connection: Connection, deletion: DeletionOrder) -> bool:
        """Delete a tag or a manifest."""
        found = held_repository(connection, deletion.repository)
        if found is None:
            return False
        if is_digest(deletion.reference):
            digests = _delete_manifest(connection, found, deletion)
        else:
            digests = _delete_tag(connection, found, deletion)
        if not deletion.forced:
            _refuse_if_in_use(connection, deletion, digests)
        origin = deletion.origin
        tag = "" if is_digest(deletion.reference) else deletion.reference
        happening = origin.happening or Happening.DELETE
        for digest in digests:
            entry = AuditEntry(deletion.now, happening, deletion.repository, tag, digest, deletion.by, origin.address)
            write_down(connection, [entry], receivers=origin.receivers)
        return bool(digests)

    def _repository(self, connection: Connection, name: str, now: datetime) -> int:
        found = _find(connection, name)
        if found is not None:
            return found
        values = {"name": name, "project": project_of(name), "created": now}
        connection.execute(self.database.insert(repositories).values(values).on_conflict_do_nothing())
        made = _find(connection, name)
        if made is None:
            raise AssertionError(f"the repository {name} was just made")
        return made

    def _link(self, connection: Connection, repository: int, digest: str, now: datetime) -> None:
        connection.execute(self._link_one, {"repository": repository, "digest": digest, "touched": now})

    def _write_manifest(self, connection: Connection, repository: int, change: ManifestPush) -> None:
        parsed = change.manifest
        values = {
            "repository": repository,
            "digest": change.digest,
            "media_type": parsed.media_type,
            "content": change.content,
            "size": len(change.content),
            "content_size": parsed.content_size,
            "subject": parsed.subject,
            "artifact_type": parsed.artifact_type,
            "annotations": json.dumps(dict(parsed.annotations)),
            "pushed": change.now,
            "released": change.now,
        }
        connection.execute(self._write_one, values)
        rows = [{"repository": repository, "manifest": change.digest, "target": target} for target in parsed.references]
        if rows:
            connection.execute(self._refer, rows)

    def _write_tag(self, connection: Connection, repository: int, change: ManifestPush, before: str | None) -> None:
        if before is not None and before != change.digest:
            gone = {"repository": repository, "name": change.tag, "digest": before}
            gone |= {"deleted": change.now, "deleted_by": change.by}
            connection.execute(self.database.insert(deleted_tags).values(gone))
            _release(connection, repository, [before], change.now)
        values = {"repository": repository, "name": change.tag, "digest": change.digest, "updated": change.now}
        connection.execute(self._set_tag, values)


def _hold_references(connection: Connection, repository: int, change: ManifestPush) -> list[str]:
    """Make sure that everything a manifest refers to stays; return what is not there, or not with all its parts."""
    missing: list[str] = []
    for part in _parts(change.manifest.blobs):
        missing += _without_blob(connection, repository, part, change.now)
    for part in _parts(change.manifest.elsewhere):
        connection.execute(_HOLD, {"of_repository": repository, "digests": part, "touched": change.now})
    for part in _parts(change.manifest.manifests):
        children = select(manifests.c.digest).where(
            manifests.c.repository == repository,
            manifests.c.digest.in_(part),
            manifests.c.deleted.is_(None),
            ~exists().where(
                incomplete_manifests.c.repository == manifests.c.repository,
                incomplete_manifests.c.digest == manifests.c.digest,
            ),
        )
        there = set(connection.execute(children).scalars())
        missing += _without_blob(connection, repository, [one for one in part if one not in there], change.now)
    return missing


def _without_blob(connection: Connection, repository: int, digests: Sequence[str], now: datetime) -> list[str]:
    """Touch blobs, so that they stay; return those that are not there."""
    if not digests:
        return []
    which = {"of_repository": repository, "digests": digests}
    if connection.execute(_HOLD, {**which, "touched": now}).rowcount == len(digests):
        return []
    there = set(connection.execute(_HELD, which).scalars())
    return [digest for digest in digests if digest not in there]


def _delete_tag(connection: Connection, repository: int, deletion: DeletionOrder) -> list[str]:
    """Delete a tag, if it is as expected; return what it named, if it was."""
    which = tags.c.name == deletion.reference
    if (seen := deletion.expected) is not None:
        which = and_(which, tags.c.digest == seen.digest, tags.c.updated == seen.updated)
    return _delete_tags(connection, repository, which, deletion)


def _delete_tags(
    connection: Connection, repository: int, which: ColumnElement[bool], deletion: DeletionOrder
) -> list[str]:
    """Delete tags and note what they named; return that of each. Raises TagImmutableError, which takes all back."""
    gone = delete(tags).where(tags.c.repository == repository, which).returning(tags.c.name, tags.c.digest)
    noted = {"repository": repository, "deleted": deletion.now, "deleted_by": deletion.by}
    rows = [{**noted, "name": row.name, "digest": row.digest} for row in connection.execute(gone)]
    for row in rows:
        if deletion.stays(row["name"]):
            raise TagImmutableError(
                f"{deletion.repository}:{row['name']} stays, by the rules of its project",
                hint="an owner can change the rules",
            )
    if rows:
        connection.execute(deleted_tags.insert(), rows)
        _release(connection, repository, list({row["digest"] for row in rows}), deletion.now)
    return [row["digest"] for row in rows]


def _refuse_if_in_use(connection: Connection, deletion: DeletionOrder, digests: Sequence[str]) -> None:
    """Raise ImageInUseError, which takes the deletion back, if a cluster runs what it is of."""
    project = project_of(deletion.repository)
    uses = users_of(connection, digests, first=project, limit=MOST_SHOWN)
    if uses:
        at = "@" if is_digest(deletion.reference) else ":"
        raise ImageInUseError(
            f"{deletion.repository}{at}{deletion.reference} runs: {described(project, uses)}",
            hint="stop it there first; an administrator may delete it in spite of that (--force)",
        )


def _release(connection: Connection, repository: int, digests: Sequence[str], now: datetime) -> None:
    """Note that a tag left manifests."""
    for part in _parts(digests):
        here = and_(manifests.c.repository == repository, manifests.c.digest.in_(part))
        connection.execute(update(manifests).where(here).values(released=now))


def _delete_manifest(connection: Connection, repository: int, deletion: DeletionOrder) -> list[str]:
    """Mark a manifest as deleted, and delete the tags that name it; return its digest, if it was there."""
    digest = deletion.reference
    mine = and_(manifests.c.repository == repository, manifests.c.digest == digest, manifests.c.deleted.is_(None))
    if connection.execute(select(manifests.c.digest).where(mine)).one_or_none() is None:
        return []
    if (user := _live_user(connection, repository, digest)) is not None:
        raise UnsupportedError(f"the index {user} refers to {digest}", hint="delete the index first")
    _delete_tags(connection, repository, tags.c.digest == digest, deletion)
    connection.execute(update(manifests).where(mine).values(deleted=deletion.now, deleted_by=deletion.by))
    return [digest]


def _live_user(connection: Connection, repository: int, target: str) -> str | None:
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
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def _find(connection: Connection, name: str) -> int | None:
    found: int | None = connection.execute(_FIND, {"name": name}).scalar_one_or_none()
    return found


def held_repository(connection: Connection, name: str) -> int | None:
    """Return a repository's id, and keep others from changing its manifests and tags until the transaction ends."""
    found: int | None = connection.execute(_HOLD_REPOSITORY, {"name": name}).scalar_one_or_none()
    return found


def tagged(connection: Connection, repository: int, tag: str) -> str | None:
    """Return what a tag names."""
    found: str | None = connection.execute(_TAGGED, {"of_repository": repository, "tag": tag}).scalar_one_or_none()
    return found


def _id_of(repository: str) -> Any:
    return select(repositories.c.id).where(repositories.c.name == repository).scalar_subquery()


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), _MOST_VALUES):
        yield values[start : start + _MOST_VALUES]


def referenced(target: ColumnElement[str], repository: ColumnElement[int]) -> ColumnElement[bool]:
    """Say whether a manifest of the repository, deleted or not, refers to something."""
    return exists().where(references.c.repository == repository, references.c.target == target)


def counted(query: Select[Any]) -> Select[int]:
    """Return how many rows a query has."""
    return select(func.count()).select_from(query.subquery())
