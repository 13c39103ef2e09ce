"""What goes over the wire, described for OpenAPI. Values of the store become these here, and nowhere else."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from hemoscope.labels import Hemorrhage
from hemoscope.store.values import AuditEntry, Feedback, Role, StudyEntry, StudyState, Verdict
from hemoscope.web.scan_time import rounded_scan_time

Label = Hemorrhage
StudyId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="32 hexadecimal digits, made by the server")]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Message(BaseModel):
    """What all have in common: names come from values by attribute, unknown fields of a request are refused."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")


class ProblemDocument(BaseModel):
    """RFC 9457, with the remedy in words and a stable code."""

    type: str
    title: str
    status: int
    detail: str
    cure: str
    code: str


class IdentityDocument(Message):
    """Who was scanned; only where the site turned identity on."""

    name: str
    id: str


class Box(BaseModel):
    """The square of a slice that its heat map covers, in pixels."""

    top: float
    left: float
    side: float


class Geometry(BaseModel):
    """Where the slices lie and what each scored; lists go by slice, in the order of the volume."""

    model_config = ConfigDict(extra="allow")

    slices: Count
    rows: Count
    columns: Count
    spacing_mm: list[float | None]
    orientation: list[float] | None
    positions_mm: list[float | None]
    boxes: list[Box]
    heatmap_shape: list[int] | None
    assumed: bool
    labels: list[Label]
    sop_instance_uids: list[str]
    probabilities: list[list[Probability]]
    thresholds: dict[str, Probability]
    key_slices: dict[str, list[int]]


class StudySummary(Message):
    """One study as the worklist shows it."""

    study_id: StudyId
    upload_id: str
    version: Count
    received_at: datetime
    acquired_at: datetime | None
    state: StudyState
    stage_done: Count
    stage_total: Count
    instances: Count
    urgency: str | None
    suspected: list[str]
    not_established: list[str]
    error_code: str | None
    error_message: str | None
    error_cure: str | None
    has_pixels: bool
    has_maps: bool
    submitted_by: str
    identity: IdentityDocument | None
    feedback: dict[str, Count]

    @classmethod
    def of(cls, entry: StudyEntry, *, identity_shown: bool) -> Self:
        """Describe a study; who was scanned, and exactly when, only where the site shows identity."""
        document = cls.model_validate(entry)
        if identity_shown:
            return document
        taken = entry.acquired_at and rounded_scan_time(entry.acquired_at, now=datetime.now(UTC))
        return document.model_copy(update={"identity": None, "acquired_at": taken})


class StudyDocument(StudySummary):
    """One study with its findings (the document of ``hemoscope predict --format json``) and its geometry."""

    findings: dict[str, Any] | None
    geometry: Geometry | None


class Accepted(Message):
    """The upload is safe on the server's disk and waits for a worker."""

    study: StudySummary


class Worklist(Message):
    """One page of the worklist; ``total`` counts all that match, ``version`` is where ``/events`` goes on."""

    studies: list[StudySummary]
    total: Count
    version: Count


class FeedbackGiven(Message):
    """What a reader says about one label of a study."""

    label: Label
    verdict: Verdict
    present: bool
    slices: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(max_length=10_000)] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""


class FeedbackDocument(Message):
    """Feedback as it is kept."""

    feedback_id: int
    study_id: StudyId
    at: datetime
    by: str
    label: Label
    verdict: Verdict
    present: bool
    slices: list[int] | None
    note: str

    @classmethod
    def of(cls, feedback: Feedback) -> Self:
        """Describe one entry."""
        return cls.model_validate(feedback)


class FeedbackList(Message):
    """All feedback of a study, oldest first."""

    feedback: list[FeedbackDocument]


class AuditDocument(Message):
    """Who did what, when."""

    audit_id: int
    at: datetime
    user: str
    action: str
    study_id: str | None
    detail: str

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """Describe one entry."""
        return cls.model_validate(entry)


class AuditPage(Message):
    """Entries, newest first; give the last one's ``audit_id`` as ``before`` for the next page."""

    entries: list[AuditDocument]


class UserDocument(Message):
    """Who is asking."""

    name: str
    role: Role


class ModelName(Message):
    """Which model gives the findings."""

    name: str
    version: str
    sha256: str


class Site(Message):
    """What a page must know before it shows anything; ``csrf_token`` goes back in the header X-CSRF-Token."""

    disclaimer: str
    model: ModelName
    prevalence: Probability | None
    identity_shown: bool
    login_required: bool
    roles: list[Role]
    user: UserDocument
    csrf_token: str | None


class Prevalence(Message):
    """Share of studies with a bleed at this site; null where unknown."""

    prevalence: Annotated[float, Field(gt=0, lt=1)] | None


class LoginGiven(Message):
    """Either a user's name and password, or a token."""

    user: Annotated[str, Field(max_length=64)] | None = None
    password: Annotated[str, Field(max_length=1024)] | None = None
    token: Annotated[str, Field(max_length=1024)] | None = None


class LoggedIn(Message):
    """Who logged in; the session itself is in the cookie."""

    user: UserDocument
    csrf_token: str


class Health(Message):
    """The process answers."""

    status: Literal["ok"]


class Readiness(Message):
    """The database answers and a worker is alive."""

    status: Literal["ready"]
    workers: Count
    queue_depth: Count
