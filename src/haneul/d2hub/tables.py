"""The tables of D2Hub. The migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")


def _ordered(length: int) -> String:
    """Return the text type of keys: ordered by bytes, whatever language and release the database has."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


_DIGEST = _ordered(135)

repositories = Table(
    "repositories",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("name", _ordered(255), nullable=False, unique=True),
    Column("project", _ordered(255), nullable=False, index=True),
    Column("created", DateTime(timezone=True), nullable=False),
)

#: Content in the store. ``touched`` is when somebody last relied on it.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("key", _ordered(200), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("touched", DateTime(timezone=True), nullable=False),
)

#: Which repository has which content. A deleted link is kept while the undo of a manifest may need it.
links = Table(
    "repository_blobs",
    metadata,
    Column("repository", _ID, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", _DIGEST, ForeignKey("blobs.digest"), primary_key=True, index=True),
    Column("touched", DateTime(timezone=True), nullable=False),
    Column("deleted", DateTime(timezone=True)),
)

#: ``released`` is when a manifest was pushed or brought back, or a tag left it, whatever was last.
manifests = Table(
    "manifests",
    metadata,
    Column("repository", _ID, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", _DIGEST, primary_key=True),
    Column("media_type", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_size", BigInteger, nullable=False),
    Column("subject", _DIGEST),
    Column("artifact_type", Text, nullable=False),
    Column("pushed", DateTime(timezone=True), nullable=False),
    Column("released", DateTime(timezone=True), nullable=False),
    Column("deleted", DateTime(timezone=True), index=True),
    Column("deleted_by", String(255)),
    # What may be large is at the end: SQLite reads a row up to the last column that is asked for.
    Column("annotations", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index("ix_manifests_subject", "repository", "subject"),
)

#: What each manifest refers to: blobs and manifests of its repository.
references = Table(
    "manifest_references",
    metadata,
    Column("repository", _ID, primary_key=True),
    Column("manifest", _DIGEST, primary_key=True),
    Column("target", _DIGEST, primary_key=True),
    ForeignKeyConstraint(["repository", "manifest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    Index("ix_manifest_references_target", "repository", "target"),
)

tags = Table(
    "tags",
    metadata,
    Column("repository", _ID, ForeignKey("repositories.id"), primary_key=True),
    Column("name", _ordered(128), primary_key=True),
    Column("digest", _DIGEST, nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"]),
    Index("ix_tags_digest", "repository", "digest"),
)

#: Tags that were deleted, or given to another manifest, and can be brought back.
deleted_tags = Table(
    "deleted_tags",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("repository", _ID, nullable=False),
    Column("name", _ordered(128), nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("deleted", DateTime(timezone=True), nullable=False, index=True),
    Column("deleted_by", String(255), nullable=False),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    Index("ix_deleted_tags_repository", "repository", "name"),
    Index("ix_deleted_tags_digest", "repository", "digest"),
)

#: Which folder's content the database is of, in one row, where that is not plain from where the database lies.
belonging = Table(
    "belonging",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("folder", String(32), nullable=False),
)

#: Who did what. Written by the transaction that does it; of pulls and of what was refused, soon after.
audit = Table(
    "audit",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", DateTime(timezone=True), nullable=False, index=True),
    Column("project", String(255), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("happening", String(20), nullable=False),
    Column("reference", String(128), nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("account", String(255), nullable=False),
    Column("address", String(64), nullable=False),
    Column("result", String(64), nullable=False),
    Column("weight", Integer, nullable=False),
    Column("identity", String(32), unique=True),
    Index("ix_audit_project", "project", "at", "id"),
)

#: Events on their way to receivers, one row for each receiver. ``held`` is until when an attempt has it for itself.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("identity", String(40), nullable=False),
    Column("project", String(255), nullable=False),
    Column("repository", String(255), nullable=False),
    Column("receiver", String(1000), nullable=False),
    Column("event", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", DateTime(timezone=True), nullable=False),
    Column("held", DateTime(timezone=True)),
    Column("answer", String(200), nullable=False),
    Column("ended", DateTime(timezone=True), index=True),
    Index("ix_deliveries_turn", "state", "project", "receiver", "repository", "id"),
    Index("ix_deliveries_project", "project", "id"),
)

#: What clusters reported last, whole; one row for each of them, and one for each workload with each of its images.
reports = Table(
    "inventory_reports",
    metadata,
    Column("cluster", _ordered(130), primary_key=True),
    Column("reporter", String(255), nullable=False),
    Column("reported", DateTime(timezone=True), nullable=False),
)

inventory = Table(
    "inventory",
    metadata,
    Column("cluster", _ordered(130), ForeignKey("inventory_reports.cluster", ondelete="CASCADE"), primary_key=True),
    Column("namespace", _ordered(63), primary_key=True),
    Column("workload", _ordered(320), primary_key=True),
    Column("digest", _DIGEST, primary_key=True, index=True),
)

#: Manifests that came from an upstream before all that they refer to. A push of one, whole, takes it out.
incomplete_manifests = Table(
    "incomplete_manifests",
    metadata,
    Column("repository", _ID, primary_key=True),
    Column("digest", _DIGEST, primary_key=True),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
)

#: What tags of upstreams were seen to name, since when. By names: it outlives what is kept of a repository.
upstream_tags = Table(
    "upstream_tags",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("repository", String(255), nullable=False),
    Column("name", String(128), nullable=False),
    Column("digest", _DIGEST),
    Column("since", DateTime(timezone=True), nullable=False),
    Index("ix_upstream_tags_name", "repository", "name", "id"),
)
