"""Groups, platform roles, robots. Administrators keep their right as a platform role."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables; move the administrators."""
    op.create_table(
        "platform_roles",
        sa.Column("person", sa.String(64), sa.ForeignKey("people.name"), primary_key=True),
        sa.Column("role", sa.String(32), primary_key=True),
    )
    people = sa.table("people", sa.column("name"), sa.column("admin", sa.Boolean))
    roles = sa.table("platform_roles", sa.column("person"), sa.column("role"))
    admins = sa.select(people.c.name, sa.literal("admin")).where(people.c.admin)
    op.execute(sa.insert(roles).from_select(["person", "role"], admins))
    # Not in a batch, which would make the table anew while others refer to it.
    op.drop_column("people", "admin")
    op.create_table(
        "groups",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("external", sa.String(200), unique=True),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "group_members",
        sa.Column("group", sa.String(64), sa.ForeignKey("groups.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("person", sa.String(64), sa.ForeignKey("people.name"), primary_key=True, index=True),
    )
    op.create_table(
        "group_roles",
        sa.Column("project", sa.String(64), sa.ForeignKey("projects.name", ondelete="CASCADE"), primary_key=True),
        sa.Column(
            "group", sa.String(64), sa.ForeignKey("groups.name", ondelete="CASCADE"), primary_key=True, index=True
        ),
        sa.Column("role", sa.String(16), nullable=False),
    )
    op.create_table(
        "group_platform_roles",
        sa.Column("group", sa.String(64), sa.ForeignKey("groups.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("role", sa.String(32), primary_key=True),
    )
    op.create_table(
        "robots",
        sa.Column("project", sa.String(64), sa.ForeignKey("projects.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("description", sa.String(200), nullable=False),
        sa.Column("maker", sa.String(64), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "robot_tokens",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("robot", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(200), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used", sa.DateTime(timezone=True)),
        sa.Column("revoked", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["project", "robot"], ["robots.project", "robots.name"], ondelete="CASCADE"),
    )


def downgrade() -> None:
    """Drop the tables; administrators are administrators again."""
    op.add_column("people", sa.Column("admin", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute("UPDATE people SET admin = true WHERE name IN (SELECT person FROM platform_roles WHERE role = 'admin')")
    for name in (
        "robot_tokens",
        "robots",
        "group_platform_roles",
        "group_roles",
        "group_members",
        "groups",
        "platform_roles",
    ):
        op.drop_table(name)
