"""Other series of a study that are kept to be looked at beside the one that was read."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "kept_series",
        sa.Column("study_id", sa.String(32), sa.ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("geometry", sa.Text(), nullable=False),
    )
