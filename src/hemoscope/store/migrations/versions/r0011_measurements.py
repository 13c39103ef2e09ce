"""Readers' measurements on slices."""

import sqlalchemy as sa
from alembic import op

from hemoscope.store.database import UtcTime

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "measurements",
        sa.Column(
            "measurement_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("study_id", sa.String(32), sa.ForeignKey("studies.study_id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("by_user", sa.Text(), nullable=False),
        sa.Column("slice_index", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("points", sa.Text(), nullable=False),
        sa.Column("found", sa.Text(), nullable=False),
    )
    op.create_index("measurements_of_study", "measurements", ["study_id"])
