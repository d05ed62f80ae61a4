"""The audit record becomes a chain: user agents, hashes, its head, and refusals of any change or deletion."""

from datetime import UTC

import sqlalchemy as sa
from alembic import op

from haneul.kernel.hash_chain import GENESIS, Anchor, chained

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD = ("moment", "person", "action", "object", "project", "source", "result", "request_id")


def upgrade() -> None:
    """Chain the records that there are; from then on SQLite itself refuses to change one."""
    op.create_table(
        "audit_head",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("id", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    with op.batch_alter_table("audit") as batch:
        batch.add_column(sa.Column("agent", sa.String(200)))
        batch.add_column(sa.Column("previous", sa.String(64)))
        batch.add_column(sa.Column("hash", sa.String(64)))
    head = _chain_all()
    with op.batch_alter_table("audit") as batch:
        for name, length in (("agent", 200), ("previous", 64), ("hash", 64)):
            batch.alter_column(name, existing_type=sa.String(length), nullable=False)
    op.bulk_insert(
        sa.table("audit_head", sa.column("name"), sa.column("id"), sa.column("hash")),
        [{"name": "audit", "id": head.id, "hash": head.hash}],
    )
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit "
                "BEGIN SELECT RAISE(ABORT, 'the audit record is only ever added to'); END"
            )


def _chain_all() -> Anchor:
    connection = op.get_bind()
    columns = [sa.column("id"), sa.column("moment", sa.DateTime(timezone=True)), sa.column("agent")]
    columns += [sa.column(name) for name in (*_OLD, "previous", "hash") if name != "moment"]
    audit = sa.table("audit", *columns)
    head = Anchor(0, GENESIS)
    # Numbers may have had gaps; each is at least its successor-to-be, so none is taken when it is given.
    for row in connection.execute(sa.select(audit).order_by(audit.c.id)).mappings().all():
        moment = row["moment"].replace(tzinfo=row["moment"].tzinfo or UTC).astimezone(UTC)
        names = {name: row[name] for name in _OLD if name not in ("moment", "request_id")}
        record = {**names, "agent": "", "requestId": row["request_id"]}
        record["moment"] = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        linked = chained(record, head)
        connection.execute(
            sa.update(audit)
            .where(audit.c.id == row["id"])
            .values(id=linked["id"], agent="", previous=linked["previous"], hash=linked["hash"])
        )
        head = Anchor(linked["id"], linked["hash"])
    return head


def downgrade() -> None:
    """Forget the chain."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_no_update")
        op.execute("DROP TRIGGER audit_no_delete")
    with op.batch_alter_table("audit") as batch:
        for name in ("agent", "previous", "hash"):
            batch.drop_column(name)
    op.drop_table("audit_head")
