"""The tables of the firewall gate beside identity's: the migrations make exactly what the code expects."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from haneul.app.api import MIGRATIONS
from haneul.app.firewall_access import FIREWALL_MIGRATIONS
from haneul.firewall import tables
from haneul.kernel.database import migrate, open_database


async def test_migrations_make_exactly_the_tables_beside_identitys(tmp_path: Path) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {
            "compare_type": True,
            "version_table": "firewall_alembic_version",
            "include_name": lambda name, kind, _: kind != "table" or name.startswith("firewall_"),
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))

    engine = open_database(f"sqlite+aiosqlite:///{tmp_path}/haneul.db")
    for _ in range(2):
        await migrate(engine, MIGRATIONS)
        await migrate(engine, FIREWALL_MIGRATIONS)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()
