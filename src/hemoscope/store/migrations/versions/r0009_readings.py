"""Readings of one study know of each other; results outlive their study, and have the times of their delivery."""

import sqlalchemy as sa
from alembic import op

from hemoscope.store.database import UtcTime

revision = "0009"
down_revision = "0008"

# SQLite names no foreign key; this is the name that PostgreSQL gave.
_NAMES = {"fk": "%(table_name)s_%(column_0_name)s_fkey"}


def upgrade() -> None:
    """Add the columns; a study that was read before stands for itself. Drop the foreign key of the outbox."""
    op.add_column("studies", sa.Column("study_instance_uid", sa.String(64)))
    op.add_column("studies", sa.Column("reading", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("studies", sa.Column("superseded_by", sa.String(32)))
    op.create_index("studies_of_uid", "studies", ["study_instance_uid"])
    with op.batch_alter_table("outbox", naming_convention=_NAMES) as outbox:
        outbox.drop_constraint("outbox_study_id_fkey", type_="foreignkey")
        outbox.add_column(sa.Column("reading", sa.Integer(), nullable=False, server_default="1"))
        for name in ("claimed_at", "sent_at", "committed_at", "ended_at"):
            outbox.add_column(sa.Column(name, UtcTime()))
    # What was tried before must not be taken for results that nobody has seen.
    op.execute("UPDATE outbox SET claimed_at = created_at")
    op.execute("UPDATE outbox SET ended_at = next_at WHERE state IN ('delivered', 'expired')")
    op.create_index("outbox_of_reading", "outbox", ["study_id"])
