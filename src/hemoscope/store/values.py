"""What the store gives and takes: plain frozen values, so that the web room never sees a table. All times are UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from hemoscope.labels import Hemorrhage


class StudyState(StrEnum):
    """Where a study is on its way; the last two are final."""

    QUEUED = "queued"
    READING = "reading"
    SCORING = "scoring"
    DONE = "done"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a reader says about one finding."""

    AGREE = "agree"
    CORRECTED = "corrected"


class Role(StrEnum):
    """What a user may do: readers read and give feedback, admins delete, export and set the site up."""

    READER = "reader"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who was scanned; stored only where the site turned identity on."""

    name: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEntry:
    """One study as the worklist and the page show it.

    Attributes:
        study_id: 32 hexadecimal digits, random.
        upload_id: of the upload that brought it, 32 hexadecimal digits; one upload may hold several studies.
        version: of its last change; grows over the whole store.
        received_at: when the upload was accepted, UTC.
        acquired_at: DICOM StudyDate and StudyTime as UTC, or None.
        stage_done, stage_total: progress within ``state``; 0 of 0 before it is known.
        instances: slices found in the study, 0 before it is known.
        urgency: the study's triage: ``immediate``, ``prompt``, ``unsure``, ``routine``, or None before the result.
        suspected: values of the labels that are present, in label order.
        not_established: values of the labels that the model's validation does not support.
        error_code, error_message, error_cure: why it failed, and what can be done, else None.
        has_pixels: slices can be read; ``has_maps``: heat maps too.
        findings: the ``hemoscope.findings/2`` document, or 1 of an earlier program; only ``get`` fills it.
        geometry: slices, spacing, probabilities by slice, see ``store.geometry``; only ``get`` fills it.
        feedback: number of feedback entries by verdict.
    """

    study_id: str
    upload_id: str
    version: int
    received_at: datetime
    acquired_at: datetime | None = None
    state: StudyState = StudyState.QUEUED
    stage_done: int = 0
    stage_total: int = 0
    instances: int = 0
    urgency: str | None = None
    suspected: tuple[str, ...] = ()
    not_established: tuple[str, ...] = ()
    error_code: str | None = None
    error_message: str | None = None
    error_cure: str | None = None
    has_pixels: bool = False
    has_maps: bool = False
    submitted_by: str = ""
    identity: Identity | None = None
    feedback: Mapping[str, int] = field(default_factory=dict)
    findings: dict[str, Any] | None = None
    geometry: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistQuery:
    """Which studies to list; empty means all.

    ``search`` holds words, all of which must occur in the study's id, its urgency, its suspected labels, its error code
    or, with ``identity``, the patient's name and id where they are stored. ``urgency`` may name ``unknown``.
    """

    search: str = ""
    identity: bool = False
    states: tuple[StudyState, ...] = ()
    urgency: tuple[str, ...] = ()
    limit: int = 100
    offset: int = 0

    def __post_init__(self) -> None:
        """Reject numbers that no page could mean."""
        if not 1 <= self.limit <= 1000 or not 0 <= self.offset <= 1_000_000_000:
            msg = f"limit must be 1 to 1000 and offset 0 to 1000000000, got {self.limit} and {self.offset}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A study that is gone; nothing but its random id is kept, for a week."""

    study_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed after a version: ``version`` is the one to ask from next; both lists ascend by version."""

    version: int
    studies: tuple[StudyEntry, ...] = ()
    deleted: tuple[Deletion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What one reader said about one label of one study.

    Attributes:
        present: whether the reader sees this kind of bleed in the study.
        slices: indices of slices (``SliceRef.index``) where the reader sees it, or None where not told.
    """

    feedback_id: int
    study_id: str
    at: datetime
    by: str
    label: Hemorrhage
    verdict: Verdict
    present: bool
    slices: tuple[int, ...] | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, when; ``study_id`` is None for what concerns no study, and for a study since deleted."""

    audit_id: int
    at: datetime
    user: str
    action: str
    study_id: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who is logged in, or may be."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser's session; ``csrf`` is the value its state-changing requests must carry."""

    user: User
    csrf: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBeat:
    """A worker process as the database knows it; it is alive while it beats every second or so."""

    worker_id: str
    host: str
    pid: int
    started_at: datetime
    beat_at: datetime
    upload_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers for readiness and metrics.

    Attributes:
        queue_depth: uploads that wait for a worker; ``running``: those that have one.
        oldest_waiting_s: seconds since the oldest waiting upload was accepted, None for an empty queue.
        studies: number by state, all states named.
        workers: those that beat within the last lease.
        feedback: entries ever given, by verdict, those of deleted studies too.
        deleted: studies ever deleted.
        version: of the last change.
    """

    queue_depth: int
    running: int
    oldest_waiting_s: float | None
    studies: Mapping[StudyState, int]
    workers: tuple[WorkerBeat, ...]
    feedback: Mapping[Verdict, int]
    deleted: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """How much one upload may bring: bytes in a file, files, and bytes in all."""

    file_bytes: int = 1 << 30
    files: int = 20_000
    upload_bytes: int = 4 << 30

    def __post_init__(self) -> None:
        """Reject a limit that would refuse everything."""
        for one in fields(self):
            if getattr(self, one.name) < 1:
                msg = f"limit {one.name} must be at least 1, got {getattr(self, one.name)}"
                raise ValueError(msg)
