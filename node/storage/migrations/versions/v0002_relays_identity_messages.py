"""What relays told us, identities and their epochs, people's relay lists, and messages with their delivery."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _pool()
    _directory()
    _identity()
    _message()
    _relay_payment()


def _pool() -> None:
    op.create_table(
        "handled",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "event_id"),
    )
    op.create_index("handled_when", "handled", ["name", "created_at"], unique=False)


def _directory() -> None:
    op.create_table(
        "relay_fact",
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("information", sa.String(), nullable=False),
        sa.Column("traits", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("url"),
    )
    op.create_table(
        "relay_list",
        sa.Column("pubkey", sa.String(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.String(), nullable=False),
        sa.Column("fetched_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pubkey", "kind"),
    )


def _identity() -> None:
    op.create_table(
        "identity",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("pubkey", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", "epoch"),
    )
    op.create_index(op.f("ix_identity_pubkey"), "identity", ["pubkey"], unique=False)


def _message() -> None:
    op.create_table(
        "message",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("direction", sa.String(), nullable=False),
        sa.Column("protocol", sa.String(), nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("effect_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "id"),
    )
    op.create_index("message_talk", "message", ["agent", "peer", "created_at"], unique=False)
    op.create_index("message_watch", "message", ["agent", "changed_ms"], unique=False)
    op.create_index(op.f("ix_message_effect_id"), "message", ["effect_id"], unique=False)


def _relay_payment() -> None:
    op.create_table(
        "relay_payment",
        sa.Column("op_id", sa.String(), nullable=False),
        sa.Column("pubkey", sa.String(), nullable=False),
        sa.Column("paid_until", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("op_id"),
    )
    op.create_index(op.f("ix_relay_payment_pubkey"), "relay_payment", ["pubkey"], unique=False)
