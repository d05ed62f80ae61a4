"""Which folder's content the database is of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "belonging",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("folder", sa.String(32), nullable=False),
    )
