"""The first schema: spans, days, and when was looked last."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    looks = op.create_table(
        "usage_looks",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("moment", sa.DateTime(timezone=True)),
    )
    op.bulk_insert(looks, [{"id": 1, "moment": None}])
    op.create_table(
        "usage_spans",
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("started", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("ended", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("project", sa.String(64), nullable=False, index=True),
        sa.Column("cluster", sa.String(64), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("nodes", sa.Integer, nullable=False),
        sa.Column("millicores", sa.BigInteger, nullable=False),
        sa.Column("memory_mib", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "usage_days",
        sa.Column("uid", sa.String(64), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True, index=True),
        sa.Column("project", sa.String(64), nullable=False, index=True),
        sa.Column("cluster", sa.String(64), nullable=False),
        sa.Column("cluster_seconds", sa.Double, nullable=False),
        sa.Column("node_seconds", sa.Double, nullable=False),
        sa.Column("millicore_seconds", sa.Double, nullable=False),
        sa.Column("mib_seconds", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in ("usage_days", "usage_spans", "usage_looks"):
        op.drop_table(name)
