"""Mirrors: manifests whose blobs are still to come, and what tags of upstreams named."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_DIGEST = sa.String(135).with_variant(sa.String(135, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "incomplete_manifests",
        sa.Column("repository", _ID, primary_key=True),
        sa.Column("digest", _DIGEST, primary_key=True),
        sa.ForeignKeyConstraint(
            ["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"
        ),
    )
    op.create_table(
        "upstream_tags",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("digest", _DIGEST),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_upstream_tags_name", "upstream_tags", ["repository", "name", "id"])
