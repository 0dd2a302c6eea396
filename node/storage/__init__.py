"""The only place with SQL: tables, the grouped writer, migrations, and the in-memory twin."""
