"""The first schema: who asked and what was decided. The database itself refuses to change or remove a row."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = ("firewall_askers", "firewall_decisions")


def upgrade() -> None:
    """Make the tables and what keeps them."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "firewall_askers",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("moment", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project", sa.String(64), nullable=False, index=True),
        sa.Column("cluster", sa.String(64), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("asked", sa.String(64), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("behind", sa.Boolean, nullable=False),
    )
    op.create_table(
        "firewall_decisions",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("moment", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("way_id", sa.String(64), nullable=False, index=True),
        sa.Column("project", sa.String(64), nullable=False, index=True),
        sa.Column("way", sa.JSON, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION firewall_is_kept() RETURNS trigger AS "
            "$$ BEGIN RAISE EXCEPTION 'kept for good'; END $$ LANGUAGE plpgsql"
        )
    for table in _TABLES:
        for verb in ("UPDATE", "DELETE"):
            op.execute(_guard(table, verb))


def _guard(table: str, verb: str) -> str:
    head = f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
    if op.get_bind().dialect.name == "postgresql":
        return f"{head} FOR EACH ROW EXECUTE FUNCTION firewall_is_kept()"
    return f"{head} BEGIN SELECT RAISE(ABORT, 'kept for good'); END"


def downgrade() -> None:
    """Drop the tables."""
    for table in _TABLES:
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION firewall_is_kept()")
