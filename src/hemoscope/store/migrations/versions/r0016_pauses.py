"""When an upload whose reading failed may be read again."""

import sqlalchemy as sa
from alembic import op

from hemoscope.store.database import UtcTime

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column; uploads that wait now wait for nothing."""
    op.add_column("jobs", sa.Column("not_before", UtcTime()))
