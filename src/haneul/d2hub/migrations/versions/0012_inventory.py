"""Which images run where, as clusters reported it last."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def _ordered(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "inventory_reports",
        sa.Column("cluster", _ordered(130), primary_key=True),
        sa.Column("reporter", sa.String(255), nullable=False),
        sa.Column("reported", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "inventory",
        sa.Column(
            "cluster", _ordered(130), sa.ForeignKey("inventory_reports.cluster", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("namespace", _ordered(63), primary_key=True),
        sa.Column("workload", _ordered(320), primary_key=True),
        sa.Column("digest", _ordered(135), primary_key=True),
    )
    op.create_index("ix_inventory_digest", "inventory", ["digest"])
