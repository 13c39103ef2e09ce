"""Room for ``incomplete`` in the order of the worklist, between ``unsure`` and ``routine``."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Move ``routine`` (3) and studies without a result (4) one rank down."""
    op.execute("UPDATE studies SET urgency_rank = urgency_rank + 1 WHERE urgency_rank >= 3")
