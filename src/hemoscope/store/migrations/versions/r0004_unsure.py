"""Room for ``unsure`` in the order of the worklist, between ``prompt`` and ``routine``."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Move ``routine`` (2) and studies without a result (3) one rank down."""
    op.execute("UPDATE studies SET urgency_rank = urgency_rank + 1 WHERE urgency_rank >= 2")
