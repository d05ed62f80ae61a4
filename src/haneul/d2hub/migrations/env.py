"""Alembic's entry: runs migrations on the connection that the application opened."""

from alembic import context

from haneul.d2hub.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
