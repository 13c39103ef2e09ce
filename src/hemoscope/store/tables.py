"""The tables as the program uses them; ``migrations`` makes them, and a test compares the two.

Lists and documents are JSON text, so that a findings document is returned byte for byte.
"""

import sqlalchemy as sa
from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.engine import Connection

from hemoscope.store.database import UtcTime

metadata = MetaData()
_BIG = sa.BigInteger()
_SERIAL = sa.BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows for INTEGER alone
_ID = String(32)

uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", _ID, primary_key=True),
    Column("accepted_at", UtcTime(), nullable=False),
    Column("submitted_by", Text(), nullable=False),
    Column("files", Integer(), nullable=False),
    Column("bytes", _BIG, nullable=False),
)

studies = Table(
    "studies",
    metadata,
    Column("study_id", _ID, primary_key=True),
    Column("upload_id", _ID, ForeignKey("uploads.upload_id", ondelete="CASCADE"), nullable=False),
    Column("ordinal", Integer(), nullable=False),
    Column("version", _BIG, nullable=False),
    Column("received_at", UtcTime(), nullable=False),
    Column("acquired_at", UtcTime()),
    Column("state", String(16), nullable=False),
    Column("stage_done", Integer(), nullable=False),
    Column("stage_total", Integer(), nullable=False),
    Column("instances", Integer(), nullable=False),
    Column("urgency", String(16)),
    Column("urgency_rank", Integer(), nullable=False),
    Column("suspected", Text(), nullable=False),
    Column("not_established", Text(), nullable=False),
    Column("error_code", String(64)),
    Column("error_message", Text()),
    Column("error_cure", Text()),
    Column("has_pixels", Boolean(), nullable=False),
    Column("has_maps", Boolean(), nullable=False),
    Column("submitted_by", Text(), nullable=False),
    Column("patient_name", Text()),
    Column("patient_id", Text()),
    Column("search_text", Text(), nullable=False),
    Column("geometry", Text()),
    Column("study_instance_uid", String(64)),
    Column("reading", Integer(), nullable=False, server_default="1"),
    Column("superseded_by", _ID),
    Column("unread", Text()),
    Column("pixels_sha256", String(64)),
    Column("source_sha256", String(64)),
    UniqueConstraint("upload_id", "ordinal", name="studies_of_upload"),
    Index("studies_by_urgency", "urgency_rank", "received_at", "study_id"),
    Index("studies_by_version", "version"),
    Index("studies_of_uid", "study_instance_uid"),
    Index("studies_by_pixels", "pixels_sha256"),
)

# One row per study: its primary key guarantees that a result is written once, whatever happens to workers.
results = Table(
    "results",
    metadata,
    Column("study_id", _ID, ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer(), nullable=False),
    Column("finished_at", UtcTime(), nullable=False),
    Column("findings", Text(), nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("upload_id", _ID, ForeignKey("uploads.upload_id", ondelete="CASCADE"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer(), nullable=False),
    Column("worker_id", _ID),
    Column("queued_at", UtcTime(), nullable=False),
    Column("started_at", UtcTime()),
    Column("lease_until", UtcTime()),
    Column("finished_at", UtcTime()),
    Column("not_before", UtcTime()),
    Index("jobs_by_state", "state", "queued_at"),
)

# The version at which the last upload of somebody was given to a worker.
turns = Table(
    "turns",
    metadata,
    Column("submitted_by", Text(), primary_key=True),
    Column("version", _BIG, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("worker_id", _ID, primary_key=True),
    Column("host", Text(), nullable=False),
    Column("pid", Integer(), nullable=False),
    Column("started_at", UtcTime(), nullable=False),
    Column("beat_at", UtcTime(), nullable=False),
    Column("upload_id", _ID),
)

feedback = Table(
    "feedback",
    metadata,
    Column("feedback_id", _SERIAL, primary_key=True),
    Column("study_id", _ID, ForeignKey("studies.study_id", ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime(), nullable=False),
    Column("by_user", Text(), nullable=False),
    Column("label", String(32), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("present", Boolean(), nullable=False),
    Column("slices", Text()),
    Column("note", Text(), nullable=False),
    Index("feedback_of_study", "study_id"),
)

measurements = Table(
    "measurements",
    metadata,
    Column("measurement_id", _SERIAL, primary_key=True, autoincrement=True),
    Column("study_id", _ID, ForeignKey("studies.study_id", ondelete="CASCADE"), nullable=False),
    Column("at", UtcTime(), nullable=False),
    Column("by_user", Text(), nullable=False),
    Column("slice_index", Integer(), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("points", Text(), nullable=False),
    Column("found", Text(), nullable=False),
    Index("measurements_of_study", "study_id"),
)

# Who reads a study at this moment; it ends some time after the last sign of life.
claims = Table(
    "claims",
    metadata,
    Column("study_id", _ID, ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True),
    Column("by_user", Text(), nullable=False),
    Column("since", UtcTime(), nullable=False),
    Column("until", UtcTime(), nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("study_id", _ID, ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True),
    Column("by_user", Text(), primary_key=True),
    Column("at", UtcTime(), nullable=False),
)

# Series beside the one that was read; their pixels lie with the study's.
kept_series = Table(
    "kept_series",
    metadata,
    Column("study_id", _ID, ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer(), primary_key=True),
    Column("description", Text(), nullable=False),
    Column("geometry", Text(), nullable=False),
)

initials = Table(
    "initials",
    metadata,
    Column("user_name", Text(), primary_key=True),
    Column("initials", String(8), nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", _SERIAL, primary_key=True, autoincrement=False),
    Column("at", UtcTime(), nullable=False),
    Column("user_name", Text(), nullable=False),
    Column("action", String(64), nullable=False),
    Column("study_id", _ID),
    Column("detail", Text(), nullable=False),
    Column("study_salt", _ID),
    Column("study_digest", String(64)),
    Column("previous_hash", String(64), nullable=False),
    Column("entry_hash", String(64), nullable=False),
    Index("audit_of_study", "study_id"),
)

# One row: number and hash of the last entry of the audit log.
audit_chain = Table(
    "audit_chain",
    metadata,
    Column("chain_id", Integer(), primary_key=True),
    Column("last_id", _BIG, nullable=False),
    Column("last_hash", String(64), nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("user_name", Text(), nullable=False),
    Column("role", String(16), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("expires_at", UtcTime(), nullable=False),
)

# Attempts to log in that an address or an account has left, as of a moment.
login_attempts = Table(
    "login_attempts",
    metadata,
    Column("name", Text(), primary_key=True),
    Column("attempts_left", sa.Double(), nullable=False),
    Column("at", UtcTime(), nullable=False),
    Index("login_attempts_by_time", "at"),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text(), nullable=False),
)

clock = Table(
    "clock",
    metadata,
    Column("clock_id", Integer(), primary_key=True),
    Column("version", _BIG, nullable=False),
)

deletions = Table(
    "deletions",
    metadata,
    Column("study_id", _ID, primary_key=True),
    Column("upload_id", _ID, nullable=False),
    Column("version", _BIG, nullable=False),
    Column("deleted_at", UtcTime(), nullable=False),
    Column("source_sha256", String(64)),
    Index("deletions_by_version", "version"),
    Index("deletions_of_upload", "upload_id"),
)

# One row: the id that the storage folder holds too.
pairing = Table("pairing", metadata, Column("store_id", _ID, primary_key=True))

# One row for each object and destination. Its study may be gone: retention does not keep a result from being sent.
outbox = Table(
    "outbox",
    metadata,
    Column("object_id", _SERIAL, primary_key=True),
    Column("study_id", _ID, nullable=False),
    Column("destination", Text(), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("study_instance_uid", String(64), nullable=False),
    Column("series_instance_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("content_uid", String(64), nullable=False),
    Column("file", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer(), nullable=False),
    Column("error", Text(), nullable=False),
    Column("created_at", UtcTime(), nullable=False),
    Column("next_at", UtcTime(), nullable=False),
    Column("reading", Integer(), nullable=False, server_default="1"),
    Column("claimed_at", UtcTime()),
    Column("sent_at", UtcTime()),
    Column("committed_at", UtcTime()),
    Column("ended_at", UtcTime()),
    Column("sha256", String(64), nullable=False, server_default=""),
    UniqueConstraint("destination", "sop_instance_uid", name="outbox_once"),
    Index("outbox_due", "destination", "state", "next_at"),
    Index("outbox_of_reading", "study_id"),
    Index("outbox_of_study", "study_instance_uid"),
)

totals = Table(
    "totals",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("count", _BIG, nullable=False),
)


def tick(connection: Connection, *, by: int = 1) -> int:
    """Advance the store's version and return it; call it first in every transaction that changes a study.

    The clock's row stays locked until the commit, so versions become visible in their order: a reader that has
    seen one has seen all before it. As the first statement everywhere, it also prevents deadlocks between writers.
    """
    advance = clock.update().values(version=clock.c.version + by).returning(clock.c.version)
    return int(connection.execute(advance).scalar_one())


def add_to_total(connection: Connection, name: str, count: int = 1) -> None:
    """Add to a counter that is kept after the counted rows are deleted; ``tick`` must have been called before."""
    if connection.execute(totals.update().where(totals.c.name == name).values(count=totals.c.count + count)).rowcount:
        return
    connection.execute(totals.insert().values(name=name, count=count))
