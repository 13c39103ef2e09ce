"""Findings: what the probabilities say at the operating points, for slices and for the study."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.inference.card import ModelCard
from hemoscope.inference.probabilities import StudyProbabilities
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

KEY_SLICES = 3


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


def present_labels(
    probabilities: PerLabel[float], points: PerLabel[OperatingPoint], established: PerLabel[bool]
) -> tuple[Hemorrhage, ...]:
    """Return the labels at or above their thresholds.

    A label that is not established raises no finding alone: it counts only beside an established ``any``.
    """
    reached = PerLabel.build(lambda label: probabilities[label] >= points[label].threshold)
    supported = reached[Hemorrhage.ANY] and established[Hemorrhage.ANY]
    return tuple(label for label in LABELS if reached[label] and (established[label] or supported))


def study_urgency(probabilities: PerLabel[float], present: Sequence[Hemorrhage], card: ModelCard) -> Urgency:
    """Return how soon to look; only established labels count.

    Immediate where ``any`` reaches the card's urgent threshold, prompt where a label is present, else routine.
    """
    if card.established[Hemorrhage.ANY] and probabilities[Hemorrhage.ANY] >= card.operating_points.urgent.threshold:
        return Urgency.IMMEDIATE
    return Urgency.PROMPT if any(card.established[label] for label in present) else Urgency.ROUTINE


def key_slices(
    probabilities: NDArray[np.float64], positions_mm: Sequence[float | None], *, apart_mm: float
) -> tuple[int, ...]:
    """Return the indices of up to three slices to look at first, most probable first.

    Slices of known place are at least ``apart_mm`` apart, so that a thin series does not show one spot three times.

    Args:
        probabilities: of one label, shape (slices,).
        positions_mm: place of each slice along the normal, or None.
        apart_mm: the least distance between two of them.
    """
    chosen: list[int] = []
    for index in np.argsort(-probabilities, kind="stable").tolist():
        if all(_apart(positions_mm[index], positions_mm[other], apart_mm) for other in chosen):
            chosen.append(index)
        if len(chosen) == KEY_SLICES:
            break
    return tuple(chosen)


def key_slices_of(
    probabilities: StudyProbabilities,
    positions_mm: Sequence[float | None],
    *,
    present: Sequence[Hemorrhage],
    apart_mm: float,
) -> PerLabel[tuple[int, ...]]:
    """Return the key slices of every label; none for a label that is not present."""
    return PerLabel.build(
        lambda label: (
            key_slices(probabilities.slice_probabilities[:, LABELS.index(label)], positions_mm, apart_mm=apart_mm)
            if label in present
            else ()
        )
    )


def _apart(first: float | None, second: float | None, apart_mm: float) -> bool:
    """Whether two places are far enough apart; positions carry rounding, so a thousandth of a mm is forgiven."""
    return first is None or second is None or abs(first - second) >= apart_mm - 1e-3


def study_findings(
    probabilities: StudyProbabilities,
    *,
    slices: Sequence[SliceHeader],
    positions_mm: Sequence[float | None],
    slice_quality: Sequence[tuple[QualityNote, ...]],
    quality: tuple[QualityNote, ...],
    skipped_series: tuple[SkippedSeries, ...],
    card: ModelCard,
) -> StudyFindings:
    """Say what the probabilities of one series mean for its study, at the operating points of the card.

    Args:
        probabilities: of the series, slices in anatomical order.
        slices: the header of each slice; all of one series.
        positions_mm: place of each slice along the normal, or None.
        slice_quality: what reading noted about each slice.
        quality: what reading noted about the series.
        skipped_series: the study's other series, and why they were not read.
        card: of the model that gave the probabilities.
    """
    study = PerLabel.of(probabilities.study_probabilities.tolist())
    present = present_labels(study, card.operating_points.study, card.established)
    keys = key_slices_of(probabilities, positions_mm, present=present, apart_mm=card.study_rule.nominal_spacing_mm)
    rows = map(PerLabel.of, probabilities.slice_probabilities.tolist())
    of_slices = zip(slices, positions_mm, rows, slice_quality, strict=True)
    return StudyFindings(
        study_instance_uid=slices[0].study_instance_uid,
        series_instance_uid=slices[0].series_instance_uid,
        urgency=study_urgency(study, present, card),
        probabilities=study,
        findings=tuple(_finding(label, study, present, keys, slices, card) for label in LABELS),
        slices=tuple(_slice_findings(*of_slice, card) for of_slice in of_slices),
        quality=quality,
        skipped_series=skipped_series,
    )


def _finding(
    label: Hemorrhage,
    study: PerLabel[float],
    present: Sequence[Hemorrhage],
    keys: PerLabel[tuple[int, ...]],
    slices: Sequence[SliceHeader],
    card: ModelCard,
) -> Finding:
    return Finding(
        label=label,
        present=label in present,
        established=card.established[label],
        probability=study[label],
        threshold=card.operating_points.study[label].threshold,
        slices=tuple(slices[index].sop_instance_uid for index in keys[label]),
    )


def _slice_findings(
    header: SliceHeader,
    position_mm: float | None,
    probabilities: PerLabel[float],
    quality: tuple[QualityNote, ...],
    card: ModelCard,
) -> SliceFindings:
    return SliceFindings(
        sop_instance_uid=header.sop_instance_uid,
        source=header.source,
        frame=header.frame,
        position_mm=position_mm,
        probabilities=probabilities,
        present=present_labels(probabilities, card.operating_points.slice, card.established),
        quality=quality,
    )
