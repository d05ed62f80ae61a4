"""The audit record, and events on their way to receivers."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_DIGEST = sa.String(135).with_variant(sa.String(135, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "audit",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("happening", sa.String(20), nullable=False),
        sa.Column("reference", sa.String(128), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("account", sa.String(255), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("identity", sa.String(32), unique=True),
    )
    op.create_index("ix_audit_project", "audit", ["project", "at", "id"])
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("identity", sa.String(40), nullable=False),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("receiver", sa.String(1000), nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.DateTime(timezone=True), nullable=False),
        sa.Column("held", sa.DateTime(timezone=True)),
        sa.Column("answer", sa.String(200), nullable=False),
        sa.Column("ended", sa.DateTime(timezone=True), index=True),
    )
    op.create_index("ix_deliveries_turn", "deliveries", ["state", "project", "receiver", "repository", "id"])
    op.create_index("ix_deliveries_project", "deliveries", ["project", "id"])
