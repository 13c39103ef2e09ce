"""A digest of each object that waits to be sent, by which damage to its file is found."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column; objects from before have no digest and are sent unchecked."""
    op.add_column("outbox", sa.Column("sha256", sa.String(64), nullable=False, server_default=""))
