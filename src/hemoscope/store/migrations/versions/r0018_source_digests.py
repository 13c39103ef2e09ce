"""A digest of what each study was found as, by which the next attempt to read its upload knows it again."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the columns; studies from before have no digest and are known by their place in the upload."""
    for table in ("studies", "deletions"):
        op.add_column(table, sa.Column("source_sha256", sa.String(64)))
