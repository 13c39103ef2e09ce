"""The random id that the database shares with the storage folder whose studies it lists."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the table; the program fills it when it pairs database and folder."""
    op.create_table("pairing", sa.Column("store_id", sa.String(32), primary_key=True))
