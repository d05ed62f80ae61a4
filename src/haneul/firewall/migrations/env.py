"""Alembic's entry: runs migrations on the connection that the application opened.

The database is shared with identity, whose versions are counted apart.
"""

from alembic import context

from haneul.firewall.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=metadata, render_as_batch=True, version_table="firewall_alembic_version"
)
with context.begin_transaction():
    context.run_migrations()
