"""The store's one door for the web room: studies in and out, feedback, audit, sessions, settings, numbers.

Every method is short, blocks, and may be called from any thread; several processes may hold the same store.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from hemoscope.labels import Hemorrhage
from hemoscope.store.uploads import Upload
from hemoscope.store.values import (
    AuditEntry,
    Changes,
    Counts,
    Feedback,
    Session,
    StudyEntry,
    UploadLimits,
    User,
    Verdict,
    WorklistQuery,
)


def open_store(url: str, storage: Path, *, limits: UploadLimits = UploadLimits()) -> "Store":  # noqa: B008 - frozen
    """Open a store, making and migrating its database and folder where needed; several processes may do so at once.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST/DATABASE``.
        storage: the private folder for pixels; made with mode 0700.
        limits: of one upload.

    Raises:
        ConfigError: the URL is of another database, the database is newer than this program, or the folder cannot be
            made private.
        StoreError: ``database_unreachable``.
    """
    raise NotImplementedError


class Store:
    """Studies and all that belongs to them. Make one by ``open_store`` for each process and keep it."""

    # Uploads
    def begin_upload(self) -> Upload:
        """Return a context that takes files into a private folder; without ``accept`` nothing of it stays."""
        raise NotImplementedError

    def accept(self, upload: Upload, *, submitted_by: str) -> StudyEntry:
        """Make files durable, then queue them, in one transaction; from now on they survive any crash.

        Raises:
            StoreError: ``empty_upload``, or ``storage_full``.
        """
        raise NotImplementedError

    # Studies
    def studies(self, query: WorklistQuery = WorklistQuery()) -> tuple[tuple[StudyEntry, ...], int]:  # noqa: B008
        """Return one page of the worklist and the number of all that match; most urgent, then longest waiting first."""
        raise NotImplementedError

    def get(self, study_id: str) -> StudyEntry:
        """Return a study with findings and geometry. Raises StoreError ``no_such_study``."""
        raise NotImplementedError

    def findings_json(self, study_id: str) -> str:
        """Return the text that ``hemoscope predict --format json`` prints. Raises ``no_such_study``, ``no_findings``."""
        raise NotImplementedError

    def pixels(self, study_id: str, index: int) -> bytes:
        """Return one slice as HU: int16, little endian, row by row.

        Raises:
            StoreError: ``no_such_study``, ``no_pixels``, ``no_such_slice``.
        """
        raise NotImplementedError

    def heatmap(self, study_id: str, index: int, label: str) -> bytes:
        """Return the heat of one label over one slice's box: uint8, 255 for probability 1, row by row.

        Raises:
            StoreError: ``no_such_study``, ``no_maps``, ``no_such_slice``, ``no_such_label``.
        """
        raise NotImplementedError

    def delete(self, study_id: str, *, by: str) -> None:
        """Delete a study's files and rows; of its feedback and audit only counts survive. Raises ``no_such_study``."""
        raise NotImplementedError

    def changes_since(self, version: int) -> Changes:
        """Return the studies changed or deleted after ``version``; no commit is ever missed between two calls."""
        raise NotImplementedError

    def retention(self, days: int) -> int:
        """Delete the studies received more than ``days`` days ago, and return how many."""
        raise NotImplementedError

    def sweep(self) -> None:
        """Remove what crashes left: uploads never accepted, half-done deletions, and sessions that ended."""
        raise NotImplementedError

    # Feedback
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
        """Keep what a reader says about one label. Raises StoreError ``no_such_study`` or ``bad_feedback``."""
        raise NotImplementedError

    def feedback(self, study_id: str) -> tuple[Feedback, ...]:
        """Return all feedback of a study, oldest first. Raises StoreError ``no_such_study``."""
        raise NotImplementedError

    def export_feedback(self) -> str:
        """Return CSV that ``hemoscope prepare table`` reads: a row a slice that is known of, empty labels unknown."""
        raise NotImplementedError

    # Site
    def audit(self, *, user: str, action: str, study_id: str | None = None, detail: str = "") -> None:
        """Record who did what. ``detail`` must hold no patient identity."""
        raise NotImplementedError

    def audit_log(self, *, limit: int = 100, before: int | None = None) -> tuple[AuditEntry, ...]:
        """Return entries, newest first; ``before`` is the ``audit_id`` of the last one already seen."""
        raise NotImplementedError

    def open_session(self, user: User, *, lasting: timedelta = timedelta(hours=12)) -> tuple[str, Session]:
        """Begin a session and return its secret token (for the cookie; only its hash is stored) and the session."""
        raise NotImplementedError

    def session(self, token: str) -> Session | None:
        """Return the session of a token, or None where it is unknown or has ended."""
        raise NotImplementedError

    def close_session(self, token: str) -> None:
        """End a session; an unknown token is no error."""
        raise NotImplementedError

    def settings(self) -> Mapping[str, Any]:
        """Return the site's settings, by name, as JSON values."""
        raise NotImplementedError

    def put_setting(self, name: str, value: Any) -> None:
        """Keep a setting, a JSON value. Raises StoreError ``bad_setting``."""
        raise NotImplementedError

    def counts(self) -> Counts:
        """Return the numbers for readiness and metrics. Raises StoreError ``database_unreachable``."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the database connections back."""
        raise NotImplementedError
