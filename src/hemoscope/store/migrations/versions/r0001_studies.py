"""Studies, jobs, results, feedback, audit, sessions and settings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger()
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(32)
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the first tables."""
    _uploads_and_studies()
    _jobs_and_results()
    _what_people_say()
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("csrf", sa.String(64), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    clock = op.create_table(
        "clock",
        sa.Column("clock_id", sa.Integer(), primary_key=True),
        sa.Column("version", _BIG, nullable=False),
    )
    op.bulk_insert(clock, [{"clock_id": 1, "version": 0}])


def _uploads_and_studies() -> None:
    op.create_table(
        "uploads",
        sa.Column("upload_id", _ID, primary_key=True),
        sa.Column("accepted_at", _TIME, nullable=False),
        sa.Column("submitted_by", sa.Text(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", _BIG, nullable=False),
    )
    op.create_table(
        "studies",
        sa.Column("study_id", _ID, primary_key=True),
        sa.Column("upload_id", _ID, sa.ForeignKey("uploads.upload_id", ondelete="CASCADE"), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("version", _BIG, nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("acquired_at", _TIME),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("stage_done", sa.Integer(), nullable=False),
        sa.Column("stage_total", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("urgency", sa.String(16)),
        sa.Column("urgency_rank", sa.Integer(), nullable=False),
        sa.Column("suspected", sa.Text(), nullable=False),
        sa.Column("not_established", sa.Text(), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("has_pixels", sa.Boolean(), nullable=False),
        sa.Column("has_maps", sa.Boolean(), nullable=False),
        sa.Column("submitted_by", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text()),
        sa.Column("patient_id", sa.Text()),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.Column("geometry", sa.Text()),
        sa.UniqueConstraint("upload_id", "ordinal", name="studies_of_upload"),
    )
    op.create_index("studies_by_urgency", "studies", ["urgency_rank", "received_at", "study_id"])
    op.create_index("studies_by_version", "studies", ["version"])


def _jobs_and_results() -> None:
    op.create_table(
        "results",
        sa.Column("study_id", _ID, sa.ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("finished_at", _TIME, nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("upload_id", _ID, sa.ForeignKey("uploads.upload_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("worker_id", _ID),
        sa.Column("queued_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("lease_until", _TIME),
        sa.Column("finished_at", _TIME),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "queued_at"])
    op.create_table(
        "workers",
        sa.Column("worker_id", _ID, primary_key=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("beat_at", _TIME, nullable=False),
        sa.Column("upload_id", _ID),
    )


def _what_people_say() -> None:
    op.create_table(
        "feedback",
        sa.Column("feedback_id", _SERIAL, primary_key=True),
        sa.Column("study_id", _ID, sa.ForeignKey("studies.study_id", ondelete="CASCADE"), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("by_user", sa.Text(), nullable=False),
        sa.Column("label", sa.String(32), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("slices", sa.Text()),
        sa.Column("note", sa.Text(), nullable=False),
    )
    op.create_index("feedback_of_study", "feedback", ["study_id"])
    op.create_table(
        "audit",
        sa.Column("audit_id", _SERIAL, primary_key=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("study_id", _ID),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_index("audit_of_study", "audit", ["study_id"])
