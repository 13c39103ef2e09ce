"""What a reader can do about a study that failed, apart from what went wrong with it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; studies that failed before have their cure at the end of their message."""
    op.add_column("studies", sa.Column("error_cure", sa.Text()))
