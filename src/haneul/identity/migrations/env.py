"""Alembic's entry: runs migrations on the connection that the application opened."""

from alembic import context

import haneul.identity.issuer.tables  # noqa: F401 - its tables are part of the metadata
from haneul.identity.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
