"""Studies without a result come before routine ones in the order of the worklist."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Exchange the ranks of ``routine`` (4) and of studies without a result (5)."""
    op.execute("UPDATE studies SET urgency_rank = 9 - urgency_rank WHERE urgency_rank IN (4, 5)")
