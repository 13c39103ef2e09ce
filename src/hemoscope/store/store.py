"""The interface of the store: uploads, studies, feedback, audit, sessions, settings, metrics.

Every method is short, blocks, and may be called from any thread; several processes may open the same store.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from threading import Event
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import StoreError
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.store import (
    audit,
    audit_and_sessions,
    feedback,
    kept_series,
    login_attempts,
    measurements,
    removal,
    tables,
    uploads,
    worklist,
)
from hemoscope.store.background import Backoff
from hemoscope.store.clock_watch import ClockWatch
from hemoscope.store.database import Database, server_time, storable
from hemoscope.store.deliveries import Deliveries
from hemoscope.store.jobs import Jobs
from hemoscope.store.migrate import migrate
from hemoscope.store.outbox import Outbox
from hemoscope.store.pairing import check_paired, pair
from hemoscope.store.reader_marks import ReaderMarks
from hemoscope.store.refusals import PASSING, refusal
from hemoscope.store.results import Results
from hemoscope.store.settings import Settings
from hemoscope.store.storage import MAPS, VOLUME, Storage
from hemoscope.store.stored_slices import StoredSlices
from hemoscope.store.study_row import find_study
from hemoscope.store.sweep import Sweep
from hemoscope.store.uploads import Upload
from hemoscope.store.values import (
    AuditEntry,
    Changes,
    Counts,
    Feedback,
    Measurement,
    MeasurementKind,
    Session,
    StudyDetail,
    StudySummary,
    User,
    Verdict,
    WorklistQuery,
)

_EVERYTHING = WorklistQuery()
_SAID_EVERY_S = 60.0
_SKIPPED = 1_000_000  # more versions than any power failure undoes; JavaScript counts to 9e15
_log = logging.getLogger("hemoscope.store")


def open_store(settings: Settings) -> "Store":
    """Open a store, making and migrating its database and folder if needed; several processes may do so at once.

    Args:
        settings: the database, the private folder (made with mode 0700), limits, lease and attempts.

    Raises:
        ConfigError: the URL is of another database, the database is newer than this program, the folder cannot be
            made private, or folder and database do not belong together.
        StoreError: ``database_unreachable``.
    """
    # The folder first: an SQLite file may lie in it, and a folder that other users can read is refused.
    folder = Storage(settings.folder)
    database = Database(settings.database_url)
    with ExitStack() as on_error:
        on_error.callback(database.close)
        migrate(database)
        store_id = pair(database, folder)
        on_error.pop_all()
    return Store(database, folder, settings, store_id=store_id)


def open_store_patiently(settings: Settings, *, limit_s: float, stop: Event | None = None) -> "Store":
    """Open a store whose database may still be starting; a line in the log says at least each minute what it waits for.

    Args:
        settings: as for ``open_store``.
        limit_s: how long to wait, infinite for ever.
        stop: ends the wait, and the program, when it is set.

    Raises:
        ConfigError: as ``open_store``.
        StoreError: the fault that ``open_store`` still reported after ``limit_s`` seconds.
        SystemExit: ``stop`` was set.
    """
    began, said, backoff, stopped = monotonic(), float("-inf"), Backoff(), stop or Event()
    while True:
        try:
            return open_store(settings)
        except StoreError as error:
            if error.code not in PASSING or monotonic() - began >= limit_s:
                raise
            if monotonic() - said >= _SAID_EVERY_S:
                said = monotonic()
                _log.warning("waiting: %s. %s", error.reason, error.remedy)
        if stopped.wait(backoff.next_pause_s()):
            raise SystemExit(0)


class Store:
    """Studies and everything that belongs to them. Each process opens one by ``open_store`` and keeps it.

    ``jobs`` and ``results`` are the workers' side, ``outbox`` is what is sent to a PACS, ``deliveries`` what became
    of it, ``readers`` who reads and has reviewed what, ``folder`` the private folder.
    """

    def __init__(self, database: Database, folder: Storage, settings: Settings, *, store_id: str) -> None:
        """Use ``open_store``."""
        self.folder = folder
        self.limits = settings.upload_limits
        self.read_limits = settings.read_limits
        self.keep_source = settings.keep_source
        self.keep_series = settings.keep_series
        self.store_id = store_id
        self.jobs = Jobs(database, lease=settings.lease, attempts=settings.attempts)
        self.results = Results(database)
        self.outbox = Outbox(database, folder.outbox)
        self.deliveries = Deliveries(database, self.outbox)
        self.readers = ReaderMarks(database, lasting=settings.claim)
        self._database = database
        kept = timedelta(days=settings.trash_days)
        self._sweep = Sweep(database, folder, store_id=store_id, keep_source=settings.keep_source, kept=kept)

    @property
    def database(self) -> Database:
        """The database, for what maintains a store as a whole."""
        return self._database

    # Uploads

    def begin_upload(self) -> Upload:
        """Return a context that receives files into a private folder; without ``accept`` they are removed."""
        return Upload(self.folder, self.limits)

    def accept(
        self, upload: Upload, *, submitted_by: str, origin: str = "", study_instance_uid: str | None = None
    ) -> StudySummary:
        """Make files durable, then queue them in one transaction; afterwards they survive any crash.

        Args:
            upload: with its files.
            submitted_by: who sent them.
            origin: where they came from, for the audit log.
            study_instance_uid: of the study, if it may take the place of an earlier reading (``readings``).

        Raises:
            StoreError: ``empty_upload``, or ``storage_full``.
        """
        study_id = uploads.accept(
            self._database,
            upload,
            submitted_by=storable(submitted_by),
            origin=storable(origin),
            study_instance_uid=study_instance_uid,
        )
        return worklist.get_summary(self._database, study_id)

    # Studies

    def studies(self, query: WorklistQuery = _EVERYTHING) -> tuple[tuple[StudySummary, ...], int]:
        """Return one page of the worklist and the number of all that match; most urgent first by default."""
        return worklist.list_studies(self._database, query)

    def get(self, study_id: str) -> StudyDetail:
        """Return a study with findings and geometry. Raises StoreError ``no_such_study``."""
        return worklist.get_study(self._database, study_id)

    def findings_json(self, study_id: str) -> str:
        """Return the text that ``hemoscope predict --format json`` prints; names of sources are numbers.

        Raises:
            StoreError: ``no_such_study`` or ``no_findings``.
        """
        return worklist.findings_text(self._database, study_id)

    def pixels(self, study_id: str, index: int) -> bytes:
        """Return one slice as HU: int16, little endian, row by row.

        Raises:
            StoreError: ``no_such_study``, ``no_pixels``, ``no_such_slice``, ``damaged_pixels``.
        """
        return bytes(self._slice(study_id, VOLUME, index, "no_pixels").tobytes())

    def pixels_of(self, study_id: str, indices: range) -> NDArray[np.int16]:
        """Return several slices as HU, shape (slices, rows, columns): those of ``indices`` that the study has.

        Raises:
            StoreError: ``no_such_study``, ``no_pixels``, ``no_such_slice`` if it has none of them, ``damaged_pixels``.
        """
        return self._slices(study_id, VOLUME, "no_pixels").several(indices)

    def heatmap(self, study_id: str, index: int, label: str) -> bytes:
        """Return the heat of one label over one slice's box: uint8, 255 for probability 1, row by row.

        Raises:
            StoreError: ``no_such_study``, ``no_maps``, ``no_such_slice``, ``no_such_label``, ``damaged_pixels``.
        """
        if label not in list(LABELS):
            raise refusal("no_such_label", f"no label {storable(label)!r:.40}")
        probabilities = self._slice(study_id, MAPS, index, "no_maps")[LABELS.index(Hemorrhage(label))]
        return bytes(np.rint(probabilities.astype(np.float32) * 255).astype(np.uint8).tobytes())

    def _slices(self, study_id: str, name: str, missing: str) -> StoredSlices:
        with self._database.reading() as connection:
            row = find_study(connection, study_id)
        array = self.folder.read_array(row.upload_id, study_id, name) if row.has_pixels else None
        if array is None:
            raise refusal(missing, f"the study has no {'pixels' if name == VOLUME else 'heat maps'} to show")
        return array

    def _slice(self, study_id: str, name: str, index: int, missing: str) -> Any:
        return self._slices(study_id, name, missing).several(range(index, index + 1))[0]

    def series_pixels(self, study_id: str, number: int, index: int) -> NDArray[np.int16]:
        """Return one slice of another series as HU, shape (rows, columns).

        Raises:
            StoreError: ``no_such_study``, ``no_such_series``, ``no_such_slice``, ``damaged_pixels``.
        """
        with self._database.reading() as connection:
            row = find_study(connection, study_id)
        return kept_series.slice_of(self._database, self.folder, row, number, index)

    def delete(self, study_id: str, *, by: str) -> None:
        """Delete a study's files and rows; only counts of its feedback are kept. Raises ``no_such_study``."""
        removal.delete_study(self._database, self.folder, study_id, by=by)

    def skip_versions(self) -> None:
        """Advance the version beyond all that an open page may have seen, for a server that starts.

        If the machine lost its power, the last versions may be undone; pages would take what follows for old.
        """
        with self._database.writing() as connection:
            tables.tick(connection, by=_SKIPPED)

    def changes_since(self, version: int) -> Changes:
        """Return the studies changed or deleted after ``version``; no commit is missed between two calls."""
        return worklist.changes_since(self._database, version)

    def retention(self, days: int) -> int:
        """Delete the studies received more than ``days`` days ago, and return how many."""
        return removal.delete_older(self._database, self.folder, days=days)

    def sweep(self) -> None:
        """Complete interrupted deletions, set aside what the database does not know, remove expired sessions."""
        self._sweep.run()

    def empty_trash(self) -> None:
        """Delete what was set aside longer ago than the settings keep it."""
        self._sweep.empty()

    # Feedback

    def report_state(self, study_id: str) -> str:
        """Return a text that changes with everything that a report shows. Raises StoreError ``no_such_study``."""
        return worklist.report_state(self._database, study_id)

    def measure(
        self, study_id: str, *, index: int, kind: MeasurementKind, points: Sequence[tuple[float, float]], by: str
    ) -> Measurement:
        """Measure on a slice, and keep the measurement with the study.

        Raises:
            StoreError: ``no_such_study``, ``no_pixels``, ``no_such_slice``, ``damaged_pixels``, ``bad_measurement``.
        """
        hounsfield, geometry = self._slice(study_id, VOLUME, index, "no_pixels"), self.get(study_id).geometry
        spacing_mm = None if geometry is None else measurements.spacing_of(geometry)
        found = measurements.measured(hounsfield, kind, points, spacing_mm)
        return measurements.add(self._database, study_id, index=index, kind=kind, points=points, found=found, by=by)

    def measurements(self, study_id: str) -> tuple[Measurement, ...]:
        """Return a study's measurements by slice. Raises StoreError ``no_such_study``."""
        return measurements.of_study(self._database, study_id)

    def delete_measurement(self, study_id: str, measurement_id: int, *, by: str) -> None:
        """Delete a measurement. Raises StoreError ``no_such_study`` or ``no_such_measurement``."""
        measurements.delete(self._database, study_id, measurement_id, by=by)

    def add_feedback(
        self,
        study_id: str,
        *,
        label: Hemorrhage,
        verdict: Verdict,
        present: bool,
        slices: tuple[int, ...] | None = None,
        note: str = "",
        by: str,
    ) -> Feedback:
        """Store a reader's feedback on one label. Raises StoreError ``no_such_study`` or ``bad_feedback``."""
        return feedback.add_feedback(
            self._database,
            study_id,
            label=label,
            verdict=verdict,
            present=present,
            slices=slices,
            note=note,
            by=by,
        )

    def feedback(self, study_id: str) -> tuple[Feedback, ...]:
        """Return all feedback of a study, oldest first. Raises StoreError ``no_such_study``."""
        return feedback.feedback_of(self._database, study_id)

    def export_feedback(self) -> str:
        """Return CSV that ``hemoscope prepare table`` reads: one row per slice, empty if a label is unknown."""
        return feedback.export_feedback(self._database)

    # Site

    def audit(self, *, user: str, action: str, study_id: str | None = None, detail: str = "") -> None:
        """Record who did what. ``detail`` must hold no patient identity."""
        audit.record(self._database, user=user, action=action, study_id=study_id, detail=detail)

    def audit_log(self, *, limit: int = 100, before: int | None = None) -> tuple[AuditEntry, ...]:
        """Return entries, newest first; ``before`` is the ``audit_id`` of the last one already seen."""
        return audit.audit_log(self._database, limit=limit, before=before)

    def open_session(self, user: User, *, lasting: timedelta, detail: str = "") -> tuple[str, Session]:
        """Open a session and return its secret token (for the cookie; only its hash is stored) and the session.

        ``detail`` is for the audit log.
        """
        return audit_and_sessions.open_session(self._database, user, lasting=lasting, detail=detail)

    def count_login(self, per_minute: Mapping[str, int]) -> float:
        """Count an attempt to log in, for all processes together; return 0, or the seconds to wait before another."""
        return login_attempts.count_attempt(self._database, per_minute)

    def session(self, token: str) -> Session | None:
        """Return the session of a token, or None if it is unknown or expired."""
        return audit_and_sessions.find_session(self._database, token)

    def close_session(self, token: str) -> None:
        """Close a session; an unknown token is not an error."""
        audit_and_sessions.close_session(self._database, token)

    def close_sessions_of(self, names: Collection[str]) -> None:
        """Close all sessions of these users."""
        audit_and_sessions.close_sessions_of(self._database, names)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings that administrators change at run time: JSON values by name."""
        return audit_and_sessions.read_settings(self._database)

    def put_setting(self, name: str, value: Any, *, by: str) -> None:
        """Store a setting, a JSON value. Raises StoreError ``bad_setting``."""
        audit_and_sessions.write_setting(self._database, name, value, by=by)

    def counts(self) -> Counts:
        """Return the numbers for readiness and metrics. Raises StoreError ``database_unreachable``."""
        return worklist.count_all(self._database, alive_within=self.jobs.lease_time)

    def time(self) -> datetime:
        """Return the time of the database's clock, UTC. Raises StoreError ``database_unreachable``."""
        with self._database.reading() as connection:
            return server_time(connection)

    def clock_watch(self) -> ClockWatch:
        """Return what tells whether that clock can be trusted with what is deleted by age; keep it."""
        return ClockWatch(self._database)

    def check_storage(self) -> None:
        """Check that the folder is still this store's, and can be written to.

        Raises:
            StoreError: ``storage_unusable`` or ``storage_full``.
        """
        check_paired(self.folder, self.store_id)
        self.folder.check_writable()

    def check_database(self) -> None:
        """Change a row of the database and take it back. Raises StoreError ``database_unreachable`` or ``_full``."""
        with self._database.writing() as connection:
            tables.tick(connection)
            connection.rollback()

    def close(self) -> None:
        """Close the database connections."""
        self._database.close()
