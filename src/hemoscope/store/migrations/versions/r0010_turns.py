"""Whose turn it is in the queue, and attempts to log in, which all web processes count together."""

import sqlalchemy as sa
from alembic import op

from hemoscope.store.database import UtcTime

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "turns",
        sa.Column("submitted_by", sa.Text(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "login_attempts",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("attempts_left", sa.Double(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
    )
    op.create_index("login_attempts_by_time", "login_attempts", ["at"])
