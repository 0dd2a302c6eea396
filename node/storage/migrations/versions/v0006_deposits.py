"""Deposits at sellers, and of customers, from which cheap jobs are paid."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "deposit",
        sa.Column("side", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("effect_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("side", "id"),
    )
    op.create_index("deposit_state", "deposit", ["side", "state"], unique=False)
    op.create_index(op.f("ix_deposit_effect_id"), "deposit", ["effect_id"], unique=False)
