"""Requests and answers of the REST interface that are not values of the store, see ``store.values``."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hemoscope.labels import Hemorrhage
from hemoscope.store.values import (
    AuditEntry,
    Count,
    Document,
    Feedback,
    Measurement,
    MeasurementKind,
    OutboxCounts,
    Probability,
    Role,
    SentResults,
    StudyId,
    StudySummary,
    User,
    Verdict,
)


class ProblemDocument(BaseModel):
    """RFC 9457, with what to do (``cure``) and a stable code."""

    type: str
    title: str
    status: int
    detail: str
    cure: str
    code: str


class Accepted(Document):
    """The upload is durable on the server's disk and waits for a worker."""

    study: StudySummary


class Worklist(Document):
    """One page of the worklist; ``total`` counts all that match, pass ``version`` to ``/events``."""

    studies: list[StudySummary]
    total: Count
    version: Count


class FeedbackGiven(Document):
    """A reader's feedback on one label of a study."""

    label: Hemorrhage
    verdict: Verdict
    present: bool
    slices: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(max_length=10_000)] | None = None
    note: Annotated[str, Field(max_length=2000)] = ""


class FeedbackList(Document):
    """All feedback of a study, oldest first."""

    feedback: list[Feedback]


class MeasurementGiven(Document):
    """A measurement to make: points are (row, column) in pixels of the slice, the first pixel from 0 to 1."""

    slice: Annotated[int, Field(ge=0, lt=1 << 31)]
    kind: MeasurementKind
    points: Annotated[
        list[tuple[Annotated[float, Field(ge=0, le=65536)], Annotated[float, Field(ge=0, le=65536)]]],
        Field(min_length=1, max_length=2),
    ]


class MeasurementList(Document):
    """All measurements on a study, by slice."""

    measurements: list[Measurement]


class ClaimGiven(Document):
    """A sign of life of a reader, who claims the study if nobody else reads it, or ``take_over`` is true."""

    take_over: bool = False


class InitialsGiven(Document):
    """By which the other readers see a user."""

    initials: Annotated[str, Field(min_length=1, max_length=4)]


class AuditPage(Document):
    """Entries, newest first; give the last one's ``audit_id`` as ``before`` for the next page."""

    entries: list[AuditEntry]


class ModelName(Document):
    """The model that computes the findings; ``precision`` is the setting, each study says which it became."""

    name: str
    version: str
    sha256: str
    precision: str


class SiteInfo(Document):
    """What a page needs before it shows anything; ``csrf_token`` goes back in the header X-CSRF-Token."""

    disclaimer: str
    model: ModelName
    prevalence: Probability | None
    identity_shown: bool
    login_required: bool
    roles: list[Role]
    user: User
    initials: str
    claim_seconds: Annotated[float, Field(description="How long a claim lasts without a sign of life")]
    csrf_token: str | None


class Prevalence(Document):
    """Share of studies with a bleed at this site; null if unknown."""

    prevalence: Annotated[float, Field(gt=0, lt=1)] | None


class LoginGiven(Document):
    """Either a user's name and password, or a token."""

    user: Annotated[str, Field(max_length=64)] | None = None
    password: Annotated[str, Field(max_length=1024)] | None = None
    token: Annotated[str, Field(max_length=1024)] | None = None


class LoggedIn(Document):
    """Who logged in; the session itself is in the cookie."""

    user: User
    csrf_token: str


class Health(Document):
    """The process answers; ``warning`` says what could not be reloaded, and is left out if nothing."""

    status: Literal["ok"]
    warning: str | None = None


class Readiness(Document):
    """The database answers and a worker is alive."""

    status: Literal["ready"]
    workers: Count
    queue_depth: Count
    results: OutboxCounts


class OutboxList(Document):
    """Results for the site's destinations, by study and destination; the newest study first, a thousand objects."""

    counts: OutboxCounts
    results: list[SentResults]


class ResendGiven(Document):
    """A study, or null for everything that failed; a destination, or null for each that the results were for."""

    study_id: StudyId | None
    destination: Annotated[str, Field(max_length=64)] | None = None
