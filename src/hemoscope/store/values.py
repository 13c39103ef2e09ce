"""The values that the store takes and returns; ``web`` sends those made of ``Document`` as JSON. All times are UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NotRequired

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from hemoscope.labels import Hemorrhage

StudyId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="32 hexadecimal digits, made by the server")]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class StudyState(StrEnum):
    """The states of a study; the last two are final."""

    QUEUED = "queued"
    READING = "reading"
    SCORING = "scoring"
    DONE = "done"
    FAILED = "failed"


class WorklistSort(StrEnum):
    """What the worklist is sorted by; "-" means descending. Equal studies follow in the order of ``urgency``."""

    URGENCY = "urgency"
    SCAN = "scan"
    SCAN_DESCENDING = "-scan"
    WAITING = "waiting"
    WAITING_DESCENDING = "-waiting"
    STUDY = "study"
    STUDY_DESCENDING = "-study"
    SLICES = "slices"
    SLICES_DESCENDING = "-slices"


class Verdict(StrEnum):
    """A reader's verdict on one finding."""

    AGREE = "agree"
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"


class MeasurementKind(StrEnum):
    """What a reader measures on a slice."""

    PROBE = "probe"
    LENGTH = "length"
    ELLIPSE = "ellipse"
    RECTANGLE = "rectangle"


class Role(StrEnum):
    """What a user may do: readers read and give feedback, admins delete, export and set the site up."""

    READER = "reader"
    ADMIN = "admin"


class Document(BaseModel):
    """A value with one form in the store, in Python and as JSON: frozen, and without fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Identity(Document):
    """Who was scanned; only where the site turned identity on."""

    name: str
    id: str


class Claim(Document):
    """Who reads a study at this moment."""

    by: str
    since: datetime


class Review(Document):
    """Who has reviewed a study."""

    by: str
    at: datetime


@with_config(ConfigDict(extra="ignore"))
class HeatMapBox(TypedDict):
    """The part of a slice that its heat map covers, in pixels."""

    top: int
    left: int
    side: Annotated[int, Field(description="Rows, and columns if there is no width")]
    width: Annotated[NotRequired[int], Field(description="Columns, of slices whose pixels are not square")]


@with_config(ConfigDict(extra="allow"))
class Geometry(TypedDict):
    """Where the slices lie and what each scored; lists go by slice, in the order of the volume.

    Boxes, probabilities, thresholds and key slices are empty, and the shape of heat maps is null, before the result.
    """

    slices: Count
    rows: Count
    columns: Count
    spacing_mm: Annotated[list[float | None], Field(description="Between slices, rows, columns; null if unknown")]
    orientation: Annotated[list[float] | None, Field(description="Six direction cosines")]
    positions_mm: list[float | None]
    origins_mm: Annotated[
        NotRequired[list[tuple[float, float, float]] | None],
        Field(description="Centre of each slice's first pixel, LPS; null if unknown, missing in earlier versions"),
    ]
    boxes: list[HeatMapBox]
    heatmap_shape: list[int] | None
    assumed: Annotated[bool, Field(description="The files do not say where the slices lie: show no millimetres")]
    labels: list[Hemorrhage]
    sop_instance_uids: list[str]
    frames: Annotated[NotRequired[list[Count]], Field(description="By slice; missing in studies of earlier versions")]
    probabilities: Annotated[list[list[Probability]], Field(description="By slice, in the order of labels")]
    thresholds: Annotated[dict[str, Probability], Field(description="For slices, by label")]
    key_slices: Annotated[dict[str, list[int]], Field(description="Indices by label")]


class KeptSeries(Document):
    """Another series of a study, to be looked at; the model has not read it."""

    number: Annotated[int, Field(ge=1)]
    description: Annotated[str, Field(description="Thickness, kernel, and whether a contrast agent was given")]
    geometry: Geometry


class StudySummary(Document):
    """One study as the worklist shows it."""

    study_id: StudyId
    upload_id: Annotated[str, Field(description="32 hexadecimal digits; one upload may hold several studies")]
    version: Annotated[Count, Field(description="Of the last change; grows over the whole store")]
    received_at: Annotated[datetime, Field(description="When the upload was accepted, UTC")]
    acquired_at: Annotated[datetime | None, Field(description="DICOM StudyDate and StudyTime as UTC")]
    state: StudyState
    stage_done: Annotated[Count, Field(description="Progress within the state, of stage_total")]
    stage_total: Annotated[Count, Field(description="0 until it is known")]
    instances: Annotated[Count, Field(description="Slices in the study, 0 until it is known")]
    urgency: Annotated[str | None, Field(description="Triage, and incomplete before routine; null before the result")]
    suspected: Annotated[tuple[str, ...], Field(description="Labels that are suspected, in label order")]
    not_established: Annotated[
        tuple[str, ...], Field(description="Labels that the model's validation does not support")
    ]
    error_code: Annotated[str | None, Field(description="Why the study failed, a stable word")]
    error_message: str | None
    error_cure: Annotated[str | None, Field(description="What can be done about the error")]
    has_pixels: Annotated[bool, Field(description="Slices can be read")]
    has_maps: Annotated[bool, Field(description="Heat maps can be read")]
    submitted_by: str
    identity: Identity | None
    reading: Annotated[
        int, Field(ge=1, description="Which reading of the study this is, if the DICOM node received it")
    ]
    superseded_by: Annotated[
        StudyId | None, Field(description="The later reading that the worklist shows in place of this one")
    ]
    feedback: Annotated[Mapping[str, Count], Field(description="Number of labels by their newest verdict")]
    verdicts: Annotated[Mapping[str, Verdict], Field(description="The newest verdict on each label")] = {}
    readers: Annotated[tuple[str, ...], Field(description="Whose feedback stands")] = ()
    claim: Annotated[Claim | None, Field(description="Who reads it at this moment")] = None
    reviews: Annotated[tuple[Review, ...], Field(description="Who has reviewed it, oldest first")] = ()
    initials: Annotated[Mapping[str, str], Field(description="Of everybody in readers, claim and reviews")] = {}
    unread: Annotated[str | None, Field(description="What of the head was not read, and why; null if all was")] = None
    same_as: Annotated[StudyId | None, Field(description="The study that came first with the same slices")] = None
    kept_series: Annotated[Count, Field(description="Number of other series that are kept")] = 0


class DeliveryState(StrEnum):
    """What became of results at a destination; of several objects, the first that any of them has."""

    FAILED = "failed"
    WAITING = "waiting"
    SENT = "sent"
    DELIVERED = "delivered"
    COMMITTED = "committed"


class SentResults(Document):
    """The results of one study at one destination."""

    study_id: StudyId
    destination: str
    objects: Count
    state: Annotated[
        DeliveryState, Field(description="failed: given up; sent: storage commitment is awaited; committed: it came")
    ]
    made_at: datetime
    sent_at: datetime | None
    error: Annotated[str, Field(description="Why they wait, or were given up; empty if all is well")]


class OutboxCounts(Document):
    """Numbers of results in the outbox, by what became of them."""

    waiting: Count
    sent: Annotated[Count, Field(description="Accepted; storage commitment is awaited")]
    delivered: Annotated[Count, Field(description="Accepted by a destination without storage commitment")]
    committed: Count
    failed: Annotated[Count, Field(description="Given up")]
    oldest_waiting_s: Annotated[float | None, Field(description="Age of the oldest that is not delivered")]


class Resent(Document):
    """Results that were queued again, and those whose objects are not kept any more, or damaged."""

    queued: Count
    gone: Annotated[Count, Field(description="They are made and sent again when the study is read again")]


class StudyDetail(StudySummary):
    """One study with its findings (the document of ``hemoscope predict --format json``) and its geometry."""

    findings: dict[str, Any] | None
    geometry: Geometry | None
    earlier: Annotated[tuple[StudyId, ...], Field(description="Earlier readings of the study, the newest first")]
    series: Annotated[tuple[KeptSeries, ...], Field(description="Its other series, if the site keeps them")] = ()
    deliveries: Annotated[tuple[SentResults, ...], Field(description="Its results at the site's destinations")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistQuery:
    """Which studies to list; empty means all.

    ``search`` holds words, all of which must occur in the study's id, its urgency, its suspected labels, its error code
    or, with ``identity``, the patient's name and id where they are stored. ``urgency`` may name ``unknown``.
    ``reviewed`` asks for studies that a reader has, or has not, marked as reviewed. ``limit`` and ``offset`` count in
    the order of ``sort``.
    """

    search: str = ""
    identity: bool = False
    states: tuple[StudyState, ...] = ()
    urgency: tuple[str, ...] = ()
    reviewed: bool | None = None
    sort: WorklistSort = WorklistSort.URGENCY
    limit: int = 100
    offset: int = 0

    def __post_init__(self) -> None:
        """Reject a limit or offset out of range."""
        if not 1 <= self.limit <= 1000 or not 0 <= self.offset <= 1_000_000_000:
            msg = f"limit must be 1 to 1000 and offset 0 to 1000000000, got {self.limit} and {self.offset}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A deleted study; only its random id is kept, for a week."""

    study_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What changed after a version: pass ``version`` to the next call; both lists ascend by version."""

    version: int
    studies: tuple[StudySummary, ...] = ()
    deleted: tuple[Deletion, ...] = ()


class Feedback(Document):
    """Feedback of one reader about one label of one study."""

    feedback_id: int
    study_id: StudyId
    at: datetime
    by: str
    label: Hemorrhage
    verdict: Verdict
    present: Annotated[bool, Field(description="Whether the reader sees this kind of bleed in the study")]
    slices: Annotated[tuple[int, ...] | None, Field(description="Indices into the volume where the reader sees it")]
    note: str


class Measured(Document):
    """The values of a measurement: a length, or Hounsfield units of pixels, in a region with its area."""

    length_mm: float | None = None
    area_mm2: float | None = None
    mean_hu: float | None = None
    sd_hu: Annotated[float | None, Field(description="Of all pixels of the region, divided by their number")] = None
    lowest_hu: int | None = None
    highest_hu: int | None = None
    pixels: int | None = None


class Measurement(Document):
    """One measurement of a reader on one slice."""

    measurement_id: int
    study_id: StudyId
    at: datetime
    by: str
    slice: Annotated[int, Field(description="Index into the volume")]
    kind: MeasurementKind
    points: Annotated[
        tuple[tuple[float, float], ...], Field(description="(row, column) in pixels; the first pixel is 0 to 1")
    ]
    found: Measured


class AuditEntry(Document):
    """Who did what, when."""

    audit_id: int
    at: datetime
    user: str
    action: str
    study_id: Annotated[str | None, Field(description="null if no study is concerned, or it was deleted since")]
    detail: str


class ChainedAuditEntry(AuditEntry):
    """An entry with what the hash chain needs (``audit_chain``): salt and digest of the study's ID, and two hashes."""

    study_salt: str | None
    study_digest: str | None
    previous_hash: str
    entry_hash: str


class User(Document):
    """A user, who is logged in or may log in."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser's session; ``csrf`` is the value its state-changing requests must carry."""

    user: User
    csrf: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHeartbeat:
    """A worker process as the database knows it; it is alive while ``beat_at``, its last heartbeat, is recent."""

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
        workers: those with a heartbeat within the last lease.
        feedback: entries ever given, by verdict, those of deleted studies too.
        deleted: studies ever deleted.
        version: of the last change.
    """

    queue_depth: int
    running: int
    oldest_waiting_s: float | None
    studies: Mapping[StudyState, int]
    workers: tuple[WorkerHeartbeat, ...]
    feedback: Mapping[Verdict, int]
    deleted: int
    version: int
