"""Money that came in public, and what of it is credit (NIP-61)."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "tip",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("mint", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("net_msat", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("owed_msat", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sale", sa.String(), nullable=False),
        sa.Column("beside", sa.String(), nullable=False),
        sa.Column("effect_id", sa.String(), nullable=False),
        sa.Column("raw", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("tip_sender", "tip", ["sender", "state"], unique=False)
    op.create_index("tip_created", "tip", ["created_at"], unique=False)
    for column in ("state", "beside", "effect_id"):
        op.create_index(op.f(f"ix_tip_{column}"), "tip", [column], unique=False)
