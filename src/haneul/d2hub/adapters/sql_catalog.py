"""What there is, listed from SQL; and what was deleted, brought back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, delete, exists, func, or_, select, update

from haneul.d2hub.adapters.sql_audit import write_down
from haneul.d2hub.adapters.sql_database import SqlDatabase, reads, writes
from haneul.d2hub.adapters.sql_metadata import held_repository
from haneul.d2hub.digests import is_digest
from haneul.d2hub.happenings import UNKNOWN, AuditEntry, Happening, Origin
from haneul.d2hub.model import Deletion, Referrer, ReferrersPage, RepositoryEntry, TagEntry, Usage
from haneul.d2hub.tables import blobs, deleted_tags, links, manifests, references, repositories, tags
from haneul.kernel.database import aware
from haneul.kernel.errors import ConflictError

#: Bytes of one list of referrers: what the specification lets clients expect of a manifest.
_PAGE_BYTES: Final = 4 << 20
_MOST_REFERRERS: Final = 10_000
#: Of a referrer, besides its texts.
_DESCRIPTOR_BYTES: Final = 300
_ON_MANIFEST = and_(manifests.c.repository == tags.c.repository, manifests.c.digest == tags.c.digest)


class SqlCatalog:
    """Lists of one database."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database

    @reads
    def tags(
        self, connection: Connection, repository: str, *, after: str = "", limit: int | None = None
    ) -> Sequence[TagEntry] | None:
        """List tags."""
        found = _find(connection, repository)
        if found is None:
            return None
        query = (
            select(tags.c.name, tags.c.digest, tags.c.updated, manifests.c.media_type)
            .add_columns((manifests.c.size + manifests.c.content_size).label("bytes"))
            .join(manifests, _ON_MANIFEST)
            .where(tags.c.repository == found, tags.c.name > after)
            .order_by(tags.c.name)
            .limit(limit)
        )
        rows = connection.execute(query).all()
        if not rows and not after and limit != 0 and not _has_manifests(connection, found):
            return None
        return [TagEntry(row.name, row.digest, row.media_type, row.bytes, aware(row.updated)) for row in rows]

    @reads
    def referrers(
        self, connection: Connection, repository: str, subject: str, artifact_type: str = "", *, after: str = ""
    ) -> ReferrersPage:
        """List manifests by their subject. Their contents are not read, and rows only until the page is full."""
        query = (
            select(manifests.c.digest, manifests.c.media_type, manifests.c.size)
            .add_columns(manifests.c.artifact_type, manifests.c.annotations)
            .join(repositories, repositories.c.id == manifests.c.repository)
            .where(repositories.c.name == repository, manifests.c.subject == subject, manifests.c.deleted.is_(None))
            .where(manifests.c.digest > after)
            .order_by(manifests.c.digest)
            .limit(_MOST_REFERRERS + 1)
        )
        if artifact_type:
            query = query.where(manifests.c.artifact_type == artifact_type)
        entries: list[Referrer] = []
        size = 0
        for row in connection.execute(query):
            size += len(row.annotations) + len(row.artifact_type) + _DESCRIPTOR_BYTES
            if entries and (size > _PAGE_BYTES or len(entries) == _MOST_REFERRERS):
                return ReferrersPage(tuple(entries), more=True)
            annotations = json.loads(row.annotations)
            entries.append(Referrer(row.digest, row.media_type, row.size, row.artifact_type, annotations))
        return ReferrersPage(tuple(entries))

    @reads
    def repositories(
        self,
        connection: Connection,
        *,
        projects: Sequence[str] | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> Sequence[RepositoryEntry]:
        """List repositories that have manifests."""
        tagged = select(func.count()).select_from(tags).where(tags.c.repository == repositories.c.id).scalar_subquery()
        live = and_(manifests.c.repository == repositories.c.id, manifests.c.deleted.is_(None))
        query = (
            select(repositories.c.name, tagged.label("tags"))
            .add_columns(
                func.count(manifests.c.digest).label("manifests"), func.max(manifests.c.pushed).label("updated")
            )
            .join(manifests, live)
            .where(repositories.c.name > after)
            .group_by(repositories.c.id, repositories.c.name)
            .order_by(repositories.c.name)
            .limit(limit)
        )
        if projects is not None:
            query = query.where(repositories.c.project.in_(list(projects)))
        rows = connection.execute(query).all()
        return [
            RepositoryEntry(row.name, row.tags, row.manifests, aware(row.updated) if row.updated else None)
            for row in rows
        ]

    @reads
    def names(self, connection: Connection, *, after: str = "", limit: int) -> Sequence[str]:
        """List names of repositories that have manifests."""
        live = exists().where(manifests.c.repository == repositories.c.id, manifests.c.deleted.is_(None))
        query = select(repositories.c.name).where(repositories.c.name > after, live)
        return list(connection.execute(query.order_by(repositories.c.name).limit(limit)).scalars())

    @reads
    def projects(self, connection: Connection) -> Sequence[str]:
        """List projects."""
        query = select(repositories.c.project).distinct().order_by(repositories.c.project)
        return list(connection.execute(query).scalars())

    @reads
    def homes(self, connection: Connection, digest: str, *, project: str) -> Sequence[str]:
        """List repositories of a project that have a blob."""
        query = (
            select(repositories.c.name)
            .join(links, links.c.repository == repositories.c.id)
            .where(links.c.digest == digest, links.c.deleted.is_(None), repositories.c.project == project)
            .order_by(repositories.c.name)
            .limit(10)
        )
        return list(connection.execute(query).scalars())

    @reads
    def deletions(self, connection: Connection, repository: str) -> Sequence[Deletion]:
        """List what was deleted."""
        found = _find(connection, repository)
        if found is None:
            return []
        gone_tags = select(deleted_tags).where(deleted_tags.c.repository == found)
        gone = select(manifests.c.digest, manifests.c.deleted, manifests.c.deleted_by).where(
            manifests.c.repository == found, manifests.c.deleted.is_not(None)
        )
        entries = [
            Deletion(row.name, row.digest, aware(row.deleted), row.deleted_by) for row in connection.execute(gone_tags)
        ]
        entries += [
            Deletion("", row.digest, aware(row.deleted), row.deleted_by or "") for row in connection.execute(gone)
        ]
        return sorted(entries, key=lambda entry: (entry.deleted, entry.tag, entry.digest), reverse=True)

    @writes
    def undelete(
        self,
        connection: Connection,
        repository: str,
        reference: str,
        *,
        now: datetime,
        by: str = "",
        origin: Origin = UNKNOWN,
    ) -> bool:
        """Bring back a manifest with what it refers to, and the tags that went with it; or one tag."""
        found = held_repository(connection, repository)
        if found is None:
            return False
        if is_digest(reference):
            tag, digest = "", reference if self._manifest_back(connection, found, reference, now) else None
        else:
            tag, digest = reference, self._tag_back(connection, found, reference, now)
        if digest is None:
            return False
        entry = AuditEntry(now, Happening.UNDELETE, repository, tag, digest, by, origin.address)
        write_down(connection, [entry], receivers=origin.receivers)
        return True

    @reads
    def usage(self, connection: Connection, projects: Sequence[str] | None = None) -> Sequence[Usage]:
        """Count by project."""
        chosen = [] if projects is None else [repositories.c.project.in_(list(projects))]
        live = and_(manifests.c.repository == repositories.c.id, manifests.c.deleted.is_(None))
        kept = (
            select(repositories.c.project, func.count(func.distinct(repositories.c.id)).label("repositories"))
            .add_columns(func.count(manifests.c.digest).label("manifests"))
            .outerjoin(manifests, live)
            .where(*chosen)
            .group_by(repositories.c.project)
            .order_by(repositories.c.project)
        )
        tagged = (
            select(repositories.c.project, func.count().label("tags"))
            .join(tags, tags.c.repository == repositories.c.id)
            .where(*chosen)
            .group_by(repositories.c.project)
        )
        linked = (
            select(repositories.c.project, blobs.c.digest, blobs.c.size)
            .join(links, links.c.repository == repositories.c.id)
            .join(blobs, blobs.c.digest == links.c.digest)
            .where(*chosen)
            .distinct()
            .subquery()
        )
        summed = select(linked.c.project, func.count().label("blobs"), func.sum(linked.c.size).label("bytes")).group_by(
            linked.c.project
        )
        rows = connection.execute(kept).all()
        tag_counts = {row.project: row.tags for row in connection.execute(tagged).all()}
        sums = {row.project: row for row in connection.execute(summed).all()}
        return [
            Usage(
                row.project,
                row.repositories,
                row.manifests,
                tag_counts.get(row.project, 0),
                sums[row.project].blobs if row.project in sums else 0,
                int(sums[row.project].bytes) if row.project in sums else 0,
            )
            for row in rows
        ]

    def _tag_back(self, connection: Connection, repository: int, tag: str, now: datetime) -> str | None:
        """Bring a tag back with what it named; return that, or None if there is nothing to bring back."""
        query = (
            select(deleted_tags)
            .where(deleted_tags.c.repository == repository, deleted_tags.c.name == tag)
            .order_by(deleted_tags.c.deleted.desc(), deleted_tags.c.id.desc())
            .limit(1)
        )
        entry = connection.execute(query).one_or_none()
        if entry is None:
            return None
        present = select(tags.c.digest).where(tags.c.repository == repository, tags.c.name == tag)
        named = connection.execute(present).scalar_one_or_none()
        if named is not None and named != entry.digest:
            raise ConflictError(
                f"the tag {tag} names {named} by now",
                hint="delete the tag first, or push the older image under another",
            )
        self._manifest_back(connection, repository, entry.digest, now)
        if named is None:
            values = {"repository": repository, "name": tag, "digest": entry.digest, "updated": now}
            connection.execute(self.database.insert(tags).values(values).on_conflict_do_nothing())
        connection.execute(delete(deleted_tags).where(deleted_tags.c.id == entry.id))
        digest: str = entry.digest
        return digest

    def _manifest_back(self, connection: Connection, repository: int, digest: str, now: datetime) -> bool:
        """Bring a manifest back; True if it was deleted."""
        mine = and_(manifests.c.repository == repository, manifests.c.digest == digest)
        query = select(manifests.c.deleted).where(mine)
        deleted = connection.execute(query).scalar_one_or_none()
        if deleted is None:
            return False
        connection.execute(update(manifests).where(mine).values(deleted=None, deleted_by=None, released=now))
        targets = select(references.c.target).where(
            references.c.repository == repository, references.c.manifest == digest
        )
        here = and_(links.c.repository == repository, links.c.digest.in_(targets))
        connection.execute(update(links).where(here).values(deleted=None, touched=now))
        children = select(manifests.c.digest).where(
            manifests.c.repository == repository, manifests.c.digest.in_(targets), manifests.c.deleted.is_not(None)
        )
        for child in connection.execute(children).scalars().all():
            self._manifest_back(connection, repository, child, now)
        self._tags_back(connection, repository, digest, deleted, now)
        return True

    def _tags_back(
        self, connection: Connection, repository: int, digest: str, deleted: datetime, now: datetime
    ) -> None:
        """Bring back the tags that were deleted with a manifest, except those that name something else by now."""
        with_it = and_(
            deleted_tags.c.repository == repository,
            deleted_tags.c.digest == digest,
            deleted_tags.c.deleted == deleted,
        )
        names = connection.execute(select(deleted_tags.c.name).where(with_it)).scalars().all()
        for name in names:
            values = {"repository": repository, "name": name, "digest": digest, "updated": now}
            connection.execute(self.database.insert(tags).values(values).on_conflict_do_nothing())
        back = select(tags.c.name).where(tags.c.repository == repository, tags.c.digest == digest)
        connection.execute(delete(deleted_tags).where(with_it, deleted_tags.c.name.in_(back)))


def _find(connection: Connection, name: str) -> int | None:
    query = select(repositories.c.id).where(repositories.c.name == name)
    found: int | None = connection.execute(query).scalar_one_or_none()
    return found


def _has_manifests(connection: Connection, repository: int) -> bool:
    live = select(manifests.c.digest).where(
        manifests.c.repository == repository, or_(manifests.c.deleted.is_(None), manifests.c.subject.is_not(None))
    )
    return connection.execute(live.limit(1)).one_or_none() is not None
