"""What a deletion leaves behind: the random id for a week, so that open pages hear of it, and counts for ever."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "deletions",
        sa.Column("study_id", sa.String(32), primary_key=True),
        sa.Column("upload_id", sa.String(32), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("deletions_by_version", "deletions", ["version"])
    op.create_index("deletions_of_upload", "deletions", ["upload_id"])
    op.create_table(
        "totals",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
    )
