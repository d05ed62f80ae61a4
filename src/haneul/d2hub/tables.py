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
_DIGEST = String(135)


def _ordered(length: int) -> String:
    """Return a text type that is ordered by its bytes, whatever the database's language is."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


repositories = Table(
    "repositories",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("name", _ordered(255), nullable=False, unique=True),
    Column("project", String(255), nullable=False, index=True),
    Column("created", DateTime(timezone=True), nullable=False),
)

#: Content in the store. ``touched`` is when somebody last relied on it.
blobs = Table(
    "blobs",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("key", String(200), nullable=False, unique=True),
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
    Column("name", String(128), nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("deleted", DateTime(timezone=True), nullable=False, index=True),
    Column("deleted_by", String(255), nullable=False),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    Index("ix_deleted_tags_repository", "repository", "name"),
    Index("ix_deleted_tags_digest", "repository", "digest"),
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
