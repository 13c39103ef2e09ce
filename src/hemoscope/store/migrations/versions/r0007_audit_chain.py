"""The hash chain of the audit log. The entries that are there are chained as they stand."""

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.engine import Connection

from hemoscope.store.audit_chain import BEFORE_FIRST, entry_hash, study_digest
from hemoscope.store.database import UtcTime

revision = "0007"
down_revision = "0006"

_HASH = sa.String(64)
_AT_A_TIME = 1000
_audit = sa.table(
    "audit",
    sa.column("audit_id"),
    sa.column("at", UtcTime()),
    *map(sa.column, ("user_name", "action", "study_id", "detail", "study_salt", "study_digest")),
    *map(sa.column, ("previous_hash", "entry_hash")),
)


def upgrade() -> None:
    """Add the columns, chain the entries, and note the last one."""
    for name in ("study_salt", "study_digest"):
        op.add_column("audit", sa.Column(name, sa.String(32 if name == "study_salt" else 64)))
    for name in ("previous_hash", "entry_hash"):
        op.add_column("audit", sa.Column(name, _HASH, nullable=False, server_default=""))
    chain = op.create_table(
        "audit_chain",
        sa.Column("chain_id", sa.Integer(), primary_key=True),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("last_hash", _HASH, nullable=False),
    )
    # A view that was recorded in the moment of a deletion may name a study that is gone.
    op.execute("UPDATE audit SET study_id = NULL WHERE study_id NOT IN (SELECT study_id FROM studies)")
    last_id, last_hash = _chain_entries(op.get_bind())
    op.bulk_insert(chain, [{"chain_id": 1, "last_id": last_id, "last_hash": last_hash}])


def _chain_entries(connection: Connection) -> tuple[int, str]:
    last_id, last_hash = BEFORE_FIRST.audit_id, BEFORE_FIRST.entry_hash
    salts: dict[str, str] = {}
    following = sa.select(_audit).order_by(_audit.c.audit_id).limit(_AT_A_TIME)
    while rows := connection.execute(following.where(_audit.c.audit_id > last_id)).all():
        for row in rows:
            salt = salts.setdefault(row.study_id, secrets.token_hex(16)) if row.study_id else None
            digest = study_digest(salt, row.study_id) if salt else None
            entry = {"audit_id": row.audit_id, "at": row.at, "action": row.action, "detail": row.detail}
            hashed = entry_hash(previous=last_hash, user=row.user_name, digest=digest, **entry)
            values = {"study_salt": salt, "study_digest": digest, "previous_hash": last_hash, "entry_hash": hashed}
            connection.execute(_audit.update().where(_audit.c.audit_id == row.audit_id).values(**values))
            last_id, last_hash = row.audit_id, hashed
    return last_id, last_hash
