"""Findings: what the probabilities say at the operating points, for slices and for the study."""

from dataclasses import dataclass
from enum import StrEnum

from hemoscope.dicom.slices import QualityNote
from hemoscope.labels import Hemorrhage, PerLabel


class Urgency(StrEnum):
    """How soon a reader should look, most urgent first."""

    IMMEDIATE = "immediate"
    PROMPT = "prompt"
    ROUTINE = "routine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One label in one study.

    ``established`` is False where the model's validation does not support this label: it then raises no finding alone.
    ``slices`` are the SOP Instance UIDs of the key slices, most probable first.
    """

    label: Hemorrhage
    present: bool
    established: bool
    probability: float
    threshold: float
    slices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFindings:
    """One slice: calibrated probabilities and the labels at or above their slice thresholds."""

    sop_instance_uid: str
    source: str
    frame: int
    position_mm: float | None
    probabilities: PerLabel[float]
    present: tuple[Hemorrhage, ...]
    quality: tuple[QualityNote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedSeries:
    """A series of the study that was not read, and why."""

    series_instance_uid: str
    reason: str
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFindings:
    """The result for one study: six findings in label order, slices in anatomical order."""

    study_instance_uid: str
    series_instance_uid: str
    urgency: Urgency
    probabilities: PerLabel[float]
    findings: tuple[Finding, ...]
    slices: tuple[SliceFindings, ...]
    quality: tuple[QualityNote, ...]
    skipped_series: tuple[SkippedSeries, ...]
