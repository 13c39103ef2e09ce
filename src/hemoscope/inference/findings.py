"""Findings: what the probabilities say at the operating points, for slices and for the study."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.slices import QualityNote, SliceHeader, SliceRef, UnreadSlices
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.inference.card import ModelCard
from hemoscope.inference.probabilities import StudyProbabilities, calibrated, consistent
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

KEY_SLICES = 3
# A study is incomplete while a larger share of the slices of its series went unread.
UNREAD_SHARE = 0.05
# Quality notes of series that cover clearly less than a head: nothing is known about the rest of it.
PARTIAL_HEAD = ("single_slice", "few_slices")


class Triage(StrEnum):
    """How soon a reader should look, most urgent first; ``unsure`` only by a card with a rule for it."""

    IMMEDIATE = "immediate"
    PROMPT = "prompt"
    UNSURE = "unsure"
    ROUTINE = "routine"


INCOMPLETE = "incomplete"
# Most urgent first.
URGENCIES = (*(triage.value for triage in Triage if triage is not Triage.ROUTINE), INCOMPLETE, Triage.ROUTINE.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One label in one study.

    ``established`` is False where the model's validation does not support this label: it then raises no finding alone.
    ``slices`` are the key slices, those of the highest own score first; none where the label is not present.
    """

    label: Hemorrhage
    present: bool
    established: bool
    probability: float
    threshold: float
    slices: tuple[SliceRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFindings:
    """One slice: calibrated probabilities and the labels at or above their slice thresholds.

    ``scored`` is False where the probabilities were interpolated between the scores of slices above and below.
    """

    ref: SliceRef
    source: str
    position_mm: float | None
    probabilities: PerLabel[float]
    present: tuple[Hemorrhage, ...]
    quality: tuple[QualityNote, ...]
    scored: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedSeries:
    """A series of the study that was not read, and why."""

    series_instance_uid: str
    reason: str
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFindings:
    """The result for one study: six findings in label order, slices in anatomical order.

    ``unread`` are slices of the series that was read which are not in the result; a count of 0 is an unknown number.
    """

    study_instance_uid: str
    series_instance_uid: str
    triage: Triage
    probabilities: PerLabel[float]
    findings: tuple[Finding, ...]
    slices: tuple[SliceFindings, ...]
    quality: tuple[QualityNote, ...]
    skipped_series: tuple[SkippedSeries, ...]
    unread: tuple[UnreadSlices, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the head was read: 95 % of the slices, none of them in unknown number, and not clearly less of it."""
        missing = sum(one.count for one in self.unread)
        partial = any(note.code in PARTIAL_HEAD for note in self.quality)
        unknown = any(one.count == 0 for one in self.unread)
        return not partial and not unknown and missing <= UNREAD_SHARE * (missing + len(self.slices))

    @property
    def state(self) -> str:
        """``complete`` or ``incomplete``."""
        return "complete" if self.complete else INCOMPLETE

    @property
    def unread_reasons(self) -> tuple[UnreadSlices, ...]:
        """Why the head was not read in full: ``unread`` and, with a count of 0, that the series covers less of it."""
        notes = (note for note in self.quality if note.code in PARTIAL_HEAD)
        return (*self.unread, *(UnreadSlices(code=note.code, message=note.message, count=0) for note in notes))

    @property
    def urgency(self) -> str:
        """The triage, or ``incomplete`` where it is routine only for what was read; for lists of work."""
        return INCOMPLETE if self.triage is Triage.ROUTINE and not self.complete else self.triage.value

    @property
    def key_slices(self) -> PerLabel[tuple[SliceRef, ...]]:
        """The key slices of each label, those of the highest own score first."""
        return PerLabel.of([finding.slices for finding in self.findings])


def present_labels(
    probabilities: PerLabel[float], points: PerLabel[OperatingPoint], established: PerLabel[bool]
) -> tuple[Hemorrhage, ...]:
    """Return the labels at or above their thresholds.

    A label that is not established raises no finding alone: it counts only beside an established ``any``.
    """
    reached = PerLabel.build(lambda label: probabilities[label] >= points[label].threshold)
    supported = reached[Hemorrhage.ANY] and established[Hemorrhage.ANY]
    return tuple(label for label in LABELS if reached[label] and (established[label] or supported))


def study_triage(probabilities: PerLabel[float], present: Sequence[Hemorrhage], card: ModelCard) -> Triage:
    """Return how soon to look; only established labels count.

    Immediate where ``any`` reaches the card's urgent threshold, prompt where a label is present, else routine. If the
    card has a rule for it, the first two need ``any`` in the high set, routine needs it in the low set, and all other
    studies are unsure.
    """
    reached = _reached_triage(probabilities, present, card)
    if card.unsure is None or not card.established[Hemorrhage.ANY]:
        return reached
    sets, likely = card.unsure.used, probabilities[Hemorrhage.ANY]
    sure = likely < sets.low if reached is Triage.ROUTINE else likely >= sets.high
    return reached if sure else Triage.UNSURE


def _reached_triage(probabilities: PerLabel[float], present: Sequence[Hemorrhage], card: ModelCard) -> Triage:
    """Return the triage by the thresholds alone."""
    if card.established[Hemorrhage.ANY] and probabilities[Hemorrhage.ANY] >= card.operating_points.urgent.threshold:
        return Triage.IMMEDIATE
    return Triage.PROMPT if any(card.established[label] for label in present) else Triage.ROUTINE


def key_slices(
    probabilities: NDArray[np.float64], positions_mm: Sequence[float | None], *, apart_mm: float
) -> tuple[int, ...]:
    """Return the indices of up to three slices to look at first, highest score first.

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
    unread: tuple[UnreadSlices, ...] = (),
    card: ModelCard,
) -> StudyFindings:
    """Say what the probabilities of one series mean for its study, at the operating points of the card.

    Key slices are chosen by each slice's own score, before the slice rule smooths it: smoothing moves the peak onto a
    neighbor, whose heat map shows less.

    Args:
        probabilities: of the series, slices in anatomical order.
        slices: the header of each slice; all of one series.
        positions_mm: place of each slice along the normal, or None.
        slice_quality: what reading noted about each slice.
        quality: what reading noted about the series.
        skipped_series: the study's other series, and why they were not read.
        unread: slices of the series that are not in the result.
        card: of the model that gave the probabilities.
    """
    study = PerLabel.of(probabilities.study_probabilities.tolist())
    present = present_labels(study, card.operating_points.study, card.established)
    rows = map(PerLabel.of, probabilities.slice_probabilities.tolist())
    of_slices = enumerate(zip(slices, positions_mm, rows, slice_quality, probabilities.scored.tolist(), strict=True))
    found = tuple(_slice_findings(index, *of_slice, card) for index, of_slice in of_slices)

    own = consistent(calibrated(probabilities.slice_logits, card.calibration.slice), card.established)

    def keys(label: Hemorrhage) -> tuple[SliceRef, ...]:
        scores, apart_mm = own[:, LABELS.index(label)], card.study_rule.nominal_spacing_mm
        chosen = key_slices(scores, positions_mm, apart_mm=apart_mm) if label in present else ()
        return tuple(found[index].ref for index in chosen)

    return StudyFindings(
        study_instance_uid=slices[0].study_instance_uid,
        series_instance_uid=slices[0].series_instance_uid,
        triage=study_triage(study, present, card),
        probabilities=study,
        findings=tuple(_finding(label, study, present, keys(label), card) for label in LABELS),
        slices=found,
        quality=quality,
        skipped_series=skipped_series,
        unread=unread,
    )


def _finding(
    label: Hemorrhage,
    study: PerLabel[float],
    present: Sequence[Hemorrhage],
    keys: tuple[SliceRef, ...],
    card: ModelCard,
) -> Finding:
    return Finding(
        label=label,
        present=label in present,
        established=card.established[label],
        probability=study[label],
        threshold=card.operating_points.study[label].threshold,
        slices=keys,
    )


def _slice_findings(
    index: int,
    header: SliceHeader,
    position_mm: float | None,
    probabilities: PerLabel[float],
    quality: tuple[QualityNote, ...],
    scored: bool,
    card: ModelCard,
) -> SliceFindings:
    return SliceFindings(
        ref=SliceRef(index=index, sop_instance_uid=header.sop_instance_uid, frame=header.frame),
        source=header.source,
        position_mm=position_mm,
        probabilities=probabilities,
        present=present_labels(probabilities, card.operating_points.slice, card.established),
        quality=quality,
        scored=scored,
    )
