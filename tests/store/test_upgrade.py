"""A database of every earlier schema, with rows in every table, is upgraded, and everything in it can be read."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.store.audit_chain import BEFORE_FIRST, entry_hash, study_digest
from hemoscope.store.backup import make_backup
from hemoscope.store.backup_tables import reflected
from hemoscope.store.database import Database
from hemoscope.store.migrate import known_revisions, migrate
from hemoscope.store.restore import restore
from hemoscope.store.settings import Settings
from hemoscope.store.storage import Storage
from hemoscope.store.store import Store, open_store
from hemoscope.store.uploads import FAILED_RANK, WAITING_RANK, rank_of
from hemoscope.store.values import StudyState, StudySummary, Verdict, WorklistQuery

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
GEOMETRY = {
    "slices": 2,
    "rows": 4,
    "columns": 4,
    "spacing_mm": [5.0, 0.5, 0.5],
    "orientation": None,
    "positions_mm": [0.0, 5.0],
    "boxes": [],
    "heatmap_shape": [2, 2],
    "assumed": False,
    "labels": [label.value for label in LABELS],
    "sop_instance_uids": ["1.2.3", "1.2.4"],
    "probabilities": [],
    "thresholds": {},
    "key_slices": {},
}
DONE, FAILED, WAITING = "1" * 32, "2" * 32, "3" * 32
# The rank of routine studies when a schema was new: 0004, 0005 and 0015 put one more before them each.
RANKS = {"0001": 2, "0002": 2, "0003": 2, "0004": 3} | {f"{number:04}": 4 for number in range(5, 15)}


def study(study_id: str, state: str, **more: Any) -> dict[str, Any]:
    row = {"study_id": study_id, "upload_id": study_id[::-1], "ordinal": 0, "version": 1, "received_at": MOMENT}
    row |= {
        "state": state,
        "stage_done": 0,
        "stage_total": 0,
        "instances": 2,
        "suspected": "[]",
        "not_established": "[]",
    }
    row |= {"has_pixels": False, "has_maps": False, "submitted_by": "anna", "search_text": study_id}
    return {**row, **more}


def rows_of(revision: str) -> dict[str, list[dict[str, Any]]]:
    """A row of every kind, as the program of that time would have written it; newer columns are left out later."""
    routine = RANKS.get(revision, rank_of("routine"))
    waiting = routine + 1 if revision in RANKS else WAITING_RANK
    named = {"patient_name": "Roe^Jane", "patient_id": "MRN-4711", "acquired_at": MOMENT}
    done = {"urgency": "routine", "urgency_rank": routine, "has_pixels": True, "has_maps": True, **named}
    failed = {"error_code": "not_dicom", "error_message": "No slice", "error_cure": "Export it again"}
    studies = [
        study(DONE, "done", **done, geometry=json.dumps(GEOMETRY), search_text=f"{DONE} roe^jane mrn-4711 routine"),
        study(FAILED, "failed", urgency_rank=waiting if revision < "0013" else FAILED_RANK, **failed),
        study(WAITING, "queued", urgency_rank=waiting),
    ]
    ids = [DONE, FAILED, WAITING]
    states = dict(zip(ids, ("done", "failed", "queued"), strict=True))
    given = {"label": "any", "verdict": "agree", "present": True, "slices": "[1]", "note": "ä\n“x”"}
    return {
        "uploads": [
            {"upload_id": one, "accepted_at": MOMENT, "submitted_by": "anna", "files": 2, "bytes": 9} for one in ids
        ],
        "studies": studies,
        "results": [{"study_id": DONE, "attempt": 1, "finished_at": MOMENT, "findings": '{"studies": []}'}],
        "jobs": [{"upload_id": one, "state": states[one], "attempts": 1, "queued_at": MOMENT} for one in ids],
        "workers": [{"worker_id": "4" * 32, "host": "h", "pid": 1, "started_at": MOMENT, "beat_at": MOMENT}],
        "feedback": [{"feedback_id": 1, "study_id": DONE, "at": MOMENT, "by_user": "anna", **given}],
        "audit": [
            {"audit_id": 1, "at": MOMENT, "user_name": "anna", "action": "view", "study_id": DONE, "detail": "a"},
        ],
        "sessions": [
            {"token_hash": "5" * 64, "user_name": "anna", "role": "admin", "csrf": "6" * 64, "expires_at": MOMENT},
        ],
        "settings": [{"name": "prevalence", "value": "0.15"}],
        "deletions": [{"study_id": "7" * 32, "upload_id": "8" * 32, "version": 1, "deleted_at": MOMENT}],
        "totals": [{"name": "deleted", "count": 3}],
        "pairing": [{"store_id": "9" * 32}],
    }


def old_store(url: str, folder: Path, revision: str) -> None:
    """Make database and folder as a Hemoscope of that schema left them."""
    database = Database(url)
    migrate(database, revision=revision)
    with database.writing() as connection:
        metadata = reflected(connection)
        for table in metadata.sorted_tables:
            for row in rows_of(revision).get(table.name, []):
                known = {name: value for name, value in row.items() if name in table.c}
                if url.startswith("sqlite"):
                    known = {name: naive(value) for name, value in known.items()}
                connection.execute(table.insert().values(known))
        connection.execute(sa.text("UPDATE clock SET version = 1"))
        if "audit_chain" in metadata.tables:
            chain_audit(connection, metadata)
        paired = "pairing" in metadata.tables
        if not url.startswith("sqlite"):
            for name in ("feedback", "audit"):
                numbers = sa.text(f"SELECT setval(pg_get_serial_sequence('{name}', '{name}_id'), 1)")
                connection.execute(numbers)
    database.close()
    storage = Storage(folder)
    if paired:
        storage.write_store_id("9" * 32)
    for study_id in (DONE, FAILED, WAITING):
        storage.upload(study_id).mkdir(mode=0o700)
    storage.write_array(DONE, DONE, "volume.npy", np.arange(32, dtype="<i2").reshape(2, 4, 4))
    storage.write_array(DONE, DONE, "maps.npy", np.zeros((2, 6, 2, 2), dtype="<f2"))
    storage.source(WAITING).mkdir(mode=0o700)
    (storage.source(WAITING) / "000001").write_bytes(b"no slice")


def chain_audit(connection: Connection, metadata: sa.MetaData) -> None:
    """Put the one entry of the audit log into its hash chain."""
    (entry,) = rows_of("")["audit"]
    salt = "a" * 32
    digest = study_digest(salt, entry["study_id"])
    said = {key: entry[key] for key in ("audit_id", "at", "action", "detail")}
    hashed = entry_hash(previous=BEFORE_FIRST.entry_hash, user=entry["user_name"], digest=digest, **said)
    linked = {"study_salt": salt, "study_digest": digest, "entry_hash": hashed}
    linked["previous_hash"] = BEFORE_FIRST.entry_hash
    connection.execute(metadata.tables["audit"].update().values(**linked))
    connection.execute(metadata.tables["audit_chain"].update().values(last_id=1, last_hash=hashed))


def naive(value: Any) -> Any:
    """As SQLite keeps times: UTC without a zone."""
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def check(store: Store) -> None:
    """Read everything through the store, as pages and programs do, then use it."""
    assert [one.study_id for one in store.studies()[0]] == [FAILED, WAITING, DONE]
    done, failed, waiting = (store.get(one) for one in (DONE, FAILED, WAITING))
    assert (done.state, failed.state, waiting.state) == (StudyState.DONE, StudyState.FAILED, StudyState.QUEUED)
    assert done.identity is not None
    assert (done.identity.name, done.acquired_at, done.urgency) == ("Roe^Jane", MOMENT, "routine")
    assert done.received_at == MOMENT
    assert done.geometry == GEOMETRY
    assert (failed.error_code, failed.error_message) == ("not_dicom", "No slice")
    assert store.findings_json(DONE) == '{"studies": []}'
    assert store.pixels(DONE, 1) == np.arange(16, 32, dtype="<i2").tobytes()
    assert store.heatmap(DONE, 1, "any") == bytes(4)
    (given,) = store.feedback(DONE)
    assert (given.note, given.slices, given.at, given.verdict) == ("ä\n“x”", (1,), MOMENT, Verdict.AGREE)
    assert [(one.user, one.action, one.study_id, one.at) for one in store.audit_log()] == [
        ("anna", "view", DONE, MOMENT)
    ]
    assert store.settings() == {"prevalence": 0.15}
    assert store.studies(WorklistQuery(search="roe", identity=True))[1] == 1
    assert store.counts().queue_depth == 1
    assert store.add_feedback(DONE, label=Hemorrhage.ANY, verdict=Verdict.AGREE, present=True, by="bo").feedback_id > 1


@pytest.mark.parametrize("revision", known_revisions())
def test_a_store_of_every_schema_is_upgraded_and_read(
    url: str, tmp_path: Path, revision: str, work: Callable[..., int], submit: Callable[..., StudySummary]
) -> None:
    old_store(url, tmp_path / "storage", revision)
    store = open_store(Settings(database=url, storage=tmp_path / "storage"))
    check(store)
    assert work(store) == 1
    assert store.get(WAITING).error_code == "not_dicom"
    submit(store, [b"x"])
    store.sweep()
    store.delete(DONE, by="anna")
    assert store.retention(1) == 2
    store.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("revision", known_revisions())
def test_a_backup_from_before_the_upgrade_is_restored_by_this_version(url: str, tmp_path: Path, revision: str) -> None:
    old_store(url, tmp_path / "storage", revision)
    database = Database(url)
    manifest = make_backup(database, Storage(tmp_path / "storage"), tmp_path / "backup")
    with database.reading() as connection:
        assert "pairing" in reflected(connection).tables or revision < "0006"
    database.close()
    assert (manifest.revision, manifest.missing) == (revision, ())
    settings = Settings(storage=tmp_path / "restored")
    restore(tmp_path / "backup", settings)
    store = open_store(settings)
    check(store)
    store.close()
