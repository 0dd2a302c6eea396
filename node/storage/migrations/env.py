"""Alembic runs this for every command. The connection is always given, with its transaction already begun."""

from alembic import context

from node.storage.table import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite changes a column only by copying its table
)
context.run_migrations()
