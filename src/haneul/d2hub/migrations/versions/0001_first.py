"""The first schema: repositories, blobs, manifests, tags, and what was deleted of them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _ordered(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "repositories",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("name", _ordered(255), nullable=False, unique=True),
        sa.Column("project", _ordered(255), nullable=False, index=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "blobs",
        sa.Column("digest", _ordered(135), primary_key=True),
        sa.Column("key", _ordered(200), nullable=False, unique=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("touched", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "repository_blobs",
        sa.Column("repository", _ID, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("digest", _ordered(135), sa.ForeignKey("blobs.digest"), primary_key=True, index=True),
        sa.Column("touched", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "manifests",
        sa.Column("repository", _ID, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("digest", _ordered(135), primary_key=True),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("content_size", sa.BigInteger, nullable=False),
        sa.Column("subject", _ordered(135)),
        sa.Column("artifact_type", sa.Text, nullable=False),
        sa.Column("pushed", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted", sa.DateTime(timezone=True), index=True),
        sa.Column("deleted_by", sa.String(255)),
        sa.Column("annotations", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_manifests_subject", "manifests", ["repository", "subject"])
    op.create_table(
        "manifest_references",
        sa.Column("repository", _ID, primary_key=True),
        sa.Column("manifest", _ordered(135), primary_key=True),
        sa.Column("target", _ordered(135), primary_key=True),
        sa.ForeignKeyConstraint(
            ["repository", "manifest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"
        ),
    )
    op.create_index("ix_manifest_references_target", "manifest_references", ["repository", "target"])
    op.create_table(
        "tags",
        sa.Column("repository", _ID, sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("name", _ordered(128), primary_key=True),
        sa.Column("digest", _ordered(135), nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"]),
    )
    op.create_index("ix_tags_digest", "tags", ["repository", "digest"])
    op.create_table(
        "deleted_tags",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("repository", _ID, nullable=False),
        sa.Column("name", _ordered(128), nullable=False),
        sa.Column("digest", _ordered(135), nullable=False),
        sa.Column("deleted", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("deleted_by", sa.String(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"
        ),
    )
    op.create_index("ix_deleted_tags_repository", "deleted_tags", ["repository", "name"])
    op.create_index("ix_deleted_tags_digest", "deleted_tags", ["repository", "digest"])
