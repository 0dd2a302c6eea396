"""Alembic's scripts. They are run by `node.storage.migration`, never by hand."""
