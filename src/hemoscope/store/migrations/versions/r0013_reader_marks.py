"""Who reads a study, who has reviewed it, and readers' initials; failed studies come before routine ones."""

import sqlalchemy as sa
from alembic import op

from hemoscope.store.database import UtcTime

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the tables, and give failed studies the place of incomplete ones."""
    op.create_table(
        "claims",
        sa.Column("study_id", sa.String(32), _study(), primary_key=True),
        sa.Column("by_user", sa.Text(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("until", UtcTime(), nullable=False),
    )
    op.create_table(
        "reviews",
        sa.Column("study_id", sa.String(32), _study(), primary_key=True),
        sa.Column("by_user", sa.Text(), primary_key=True),
        sa.Column("at", UtcTime(), nullable=False),
    )
    op.create_table(
        "initials",
        sa.Column("user_name", sa.Text(), primary_key=True),
        sa.Column("initials", sa.String(8), nullable=False),
    )
    op.execute("UPDATE studies SET urgency_rank = 3 WHERE state = 'failed'")


def _study() -> sa.ForeignKey:
    return sa.ForeignKey("studies.study_id", ondelete="CASCADE")
