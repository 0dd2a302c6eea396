"""Ticks that are recorded, agents that hibernate and are leased, and an inbox with priorities, expiry and an end.

Three tables are made anew because SQLite adds no column without a default: their rows are set aside and put back.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change agent, inbox and tick; create the rest."""
    for table, make, columns, values in (
        ("agent", _agent, _AGENT_OLD, _AGENT_NEW),
        ("inbox", _inbox, _INBOX_OLD, _INBOX_NEW),
        ("tick", _tick, _TICK_OLD, _TICK_NEW),
    ):
        _remake(table, make, columns, values)
    op.execute(_WRITTEN.format(at=_WRITTEN_AT[op.get_bind().dialect.name]))
    op.execute(sa.text(_PENDING))
    _record()
    _trigger()
    _age()


_AGENT_OLD = "name, program, pubkey, status, state_version, state, ticks, last_tick_at, last_cause, created_at, version"
_AGENT_NEW = {
    "code": "''", "config": "'{}'", "limits": "'{}'", "inbox": "'{}'", "failures": "0", "reason": "''", "day": "0", "warned": "0",
    "holder": "''", "stored": "length(state)",
}  # fmt: skip
_INBOX_OLD = "n, agent, envelope_id, cause, source, sender, payload, state, tries, error, at, next_at_ms"
_INBOX_NEW = {"priority": "0", "reply_to": "''", "ended_at": "CASE WHEN state IN ('new', 'dead') THEN NULL ELSE at END"}
_WRITTEN = "UPDATE inbox SET written_at = COALESCE({at}, 0) WHERE state = 'new' AND source = 'nostr'"
_WRITTEN_AT = {
    "sqlite": "CAST(json_extract(payload, '$.created_at') AS INTEGER)",
    "postgresql": "CAST(CAST(payload AS json) ->> 'created_at' AS bigint)",
}
# agents whose addition or deletion was interrupted: they were found by reading all rows of `meta`
_PENDING = r"""
INSERT INTO meta (key, value) SELECT 'pending/' || substr(key, 7), '1' FROM meta WHERE key LIKE 'agent/%'
AND (value LIKE '%"deleted"\:true%' AND value NOT LIKE '%"done"\:true%'
    OR value LIKE '%"section"%' AND substr(key, 7) NOT IN (SELECT name FROM agent))
"""
_TICK_OLD = "id, agent, envelope_id, cause, at_ms, duration_ms, error"
_TICK_NEW = {"tries": "0", "code": "''", "usage": "'{}'"}


def _remake(table: str, make: Callable[[], None], columns: str, values: dict[str, str]) -> None:
    op.execute(f"CREATE TABLE {table}_before AS SELECT * FROM {table}")
    op.drop_table(table)
    make()
    order = " ORDER BY at_ms" if table == "tick" else ""
    op.execute(
        f"INSERT INTO {table} ({columns}, {', '.join(values)}) "
        f"SELECT {columns}, {', '.join(values.values())} FROM {table}_before{order}"
    )
    op.drop_table(f"{table}_before")
    if table == "inbox" and op.get_bind().dialect.name == "postgresql":  # its rows have kept their numbers
        op.execute("SELECT setval('inbox_n_seq', n) FROM inbox ORDER BY n DESC LIMIT 1")


def _agent() -> None:
    op.create_table(
        "agent",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("program", sa.String(), nullable=False),
        sa.Column("pubkey", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("state_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("ticks", sa.Integer(), nullable=False),
        sa.Column("last_tick_at", sa.BigInteger(), nullable=True),
        sa.Column("last_cause", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("config", sa.String(), nullable=False),
        sa.Column("limits", sa.String(), nullable=False),
        sa.Column("inbox", sa.String(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("day_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rate_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("warned", sa.Integer(), nullable=False),
        sa.Column("stored", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index("agent_status", "agent", ["status", "name"], unique=False)
    op.create_index(op.f("ix_agent_pubkey"), "agent", ["pubkey"], unique=False)


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("envelope_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="new", nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("next_at_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("reply_to", sa.String(), nullable=False),
        sa.Column("written_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("n"),
        sa.UniqueConstraint("agent", "envelope_id"),
    )
    op.create_index(
        "inbox_dead",
        "inbox",
        ["agent", "n"],
        unique=False,
        sqlite_where=sa.text("state = 'dead'"),
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "inbox_dropped",
        "inbox",
        ["agent", "n"],
        unique=False,
        sqlite_where=sa.text("state = 'dropped'"),
        postgresql_where=sa.text("state = 'dropped'"),
    )
    op.create_index(
        "inbox_expired",
        "inbox",
        ["agent", "n"],
        unique=False,
        sqlite_where=sa.text("state = 'expired'"),
        postgresql_where=sa.text("state = 'expired'"),
    )
    op.create_index(
        "inbox_ended",
        "inbox",
        ["ended_at"],
        unique=False,
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "inbox_new",
        "inbox",
        ["agent", "priority", "n", "state"],
        unique=False,
        sqlite_where=sa.text("state = 'new'"),
        postgresql_where=sa.text("state = 'new'"),
    )


def _tick() -> None:
    op.create_table(
        "tick",
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("envelope_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("usage", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("tick_agent", "tick", ["agent", "n"], unique=False)


def _age() -> None:
    op.create_index(
        "effect_ended", "effect", ["ended_at"], unique=False,
        sqlite_where=sa.text("ended_at IS NOT NULL"), postgresql_where=sa.text("ended_at IS NOT NULL"),
    )  # fmt: skip
    op.create_index("message_changed", "message", ["changed_ms"], unique=False)


def _record() -> None:
    op.create_table(
        "recording",
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("tick_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
        sa.UniqueConstraint("tick_id"),
    )
    op.create_table(
        "blob",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_blob_at"), "blob", ["at"], unique=False)
    op.create_table(
        "mark",
        sa.Column("n", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("n"),
        sa.UniqueConstraint("agent", "id"),
    )
    op.create_index("mark_age", "mark", ["agent", "n"], unique=False)
    op.create_table(
        "item",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "key"),
    )


def _trigger() -> None:
    op.create_table(
        "alarm",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("every_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("payload", sa.String(), nullable=False),
        sa.Column("fired_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("missed", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "id"),
    )
    op.create_index(op.f("ix_alarm_due_ms"), "alarm", ["due_ms"], unique=False)
    op.create_table(
        "interest",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("pattern", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "id"),
    )
    op.create_index("interest_event", "interest", ["event", "agent"], unique=False)
    op.create_table(
        "hook",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("scheme", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_hook_agent"), "hook", ["agent"], unique=False)
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
