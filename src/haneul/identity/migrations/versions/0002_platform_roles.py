"""Platform roles of people."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "platform_roles",
        sa.Column("person", sa.String(64), sa.ForeignKey("people.name"), primary_key=True),
        sa.Column("role", sa.String(32), primary_key=True),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("platform_roles")
