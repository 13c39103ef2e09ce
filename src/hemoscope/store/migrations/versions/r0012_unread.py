"""What of a study was not read, and a digest of its pixels, by which a study that came twice is known again."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns; studies from before have neither."""
    op.add_column("studies", sa.Column("unread", sa.Text()))
    op.add_column("studies", sa.Column("pixels_sha256", sa.String(64)))
    op.create_index("studies_by_pixels", "studies", ["pixels_sha256"])
