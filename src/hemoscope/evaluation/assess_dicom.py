"""Scores a model on labelled DICOM: the predictions that a user gets, compared with the truth."""

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from hemoscope.dicom.archive import Archive
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DataError
from hemoscope.evaluation.assessment import Assessment
from hemoscope.evaluation.flow import Flow, Step, rejected_steps
from hemoscope.evaluation.prediction_files import LabelTable
from hemoscope.evaluation.scored_rows import ScoredRows
from hemoscope.evaluation.worst_errors import ScoredVolume, WorstErrors
from hemoscope.inference.predictor import Predictor, StudyReading
from hemoscope.labels import LABELS
from hemoscope.progress import StageProgress


def assess_dicom(
    predictor: Predictor,
    archive: Archive,
    truth: LabelTable,
    *,
    gallery: int = 0,
    progress: StageProgress | None = None,
) -> Assessment:
    """Score the calibrated probabilities of slices and studies, as ``hemoscope predict`` reports them.

    An image is the file of its name (``ID.dcm``). A study's truth is the highest label of its labelled slices; its name
    is that of its first image in the table. Images without any label are predicted with their study and not scored.

    Args:
        predictor: the model.
        archive: the images.
        truth: labels and patients of images.
        gallery: number of worst errors to keep for each label and kind; 0 for none.
        progress: as for ``Predictor.studies``.

    Raises:
        DataError: an image of the table was not read: scoring only the others would hide the failure.
    """
    row_of = {image_id: row for row, image_id in enumerate(truth.image_ids)}
    worst = WorstErrors(predictor.bundle.card, gallery)
    slices, series, rejected = ScoredRows(), ScoredRows(), list(archive.rejected)
    spacings: dict[str, float | None] = {}
    predicted = 0
    for outcome in predictor.studies(archive, maps=gallery > 0, progress=progress):
        rejected.extend(outcome.rejected)
        if outcome.reading is not None:
            predicted += len(outcome.reading.findings.slices)
            study = _add(outcome.reading, row_of, truth, slices, series)
            spacings[study] = outcome.reading.volume.slice_spacing_mm
            _show(outcome.reading, row_of, truth, worst)
    place_of = {image_id: place for place, image_id in enumerate(slices.names)}
    unread = [image_id for image_id in truth.image_ids if image_id not in place_of]
    if unread:
        msg = f"{len(unread)} images of the table were not read, first {unread[0]}. Run hemoscope predict to see why"
        raise DataError(msg)
    order = [place_of[image_id] for image_id in truth.image_ids]
    return Assessment(
        slices=slices.table(order),
        series=series.table(),
        series_of=tuple(slices.series[place] for place in order),
        errors=worst.pictures() if gallery else None,
        rejected=tuple(rejected),
        flow=_flow(archive, rejected, predicted, len(truth.image_ids)),
        spacings_mm=spacings,
    )


def _flow(archive: Archive, rejected: Sequence[Rejected], predicted: int, listed: int) -> Flow:
    """Return the counts of files: those refused, and slices that were not read, or are not in the table."""
    slices = sum(len(one.headers) + len(one.left_out) for study in archive.studies for one in study.series)
    undecoded = len(rejected) - len(archive.rejected)
    steps = (
        *rejected_steps(rejected),
        Step(
            count=slices - undecoded - predicted,
            unit="slices",
            reason="not in the series that was read, repeated in it, or in a refused file",
        ),
        Step(count=predicted - listed, unit="slices", reason="not in the table of labels: predicted, not scored"),
    )
    inputs = len(archive.rejected) + slices
    unit = "DICOM slices and refused files" if rejected else "DICOM slices"
    return Flow(inputs=inputs, unit=unit, left=tuple(step for step in steps if step.count))


def _names(reading: StudyReading) -> list[str]:
    return [PurePath(part.source).stem for part in reading.findings.slices]


def _add(
    reading: StudyReading, row_of: dict[str, int], truth: LabelTable, slices: ScoredRows, series: ScoredRows
) -> str:
    """Add the slices that are in the table, and their study if any of them has a label. Return the study's name."""
    found = [
        (name, part) for name, part in zip(_names(reading), reading.findings.slices, strict=True) if name in row_of
    ]
    if not found:
        return ""
    study = found[0][0]
    for name, part in found:
        row = row_of[name]
        six = np.array(part.probabilities.values)
        slices.add(name, six, truth.labels[row], patient=truth.patients[row], series=study)
    labels = truth.labels[[row_of[name] for name, _ in found]]
    if np.isfinite(labels).any():
        six = np.array(reading.findings.probabilities.values)
        patient = truth.patients[row_of[study]]
        series.add(study, six, np.fmax.reduce(labels, axis=0), patient=patient, series=study)
    return study


def _show(reading: StudyReading, row_of: dict[str, int], truth: LabelTable, worst: WorstErrors) -> None:
    """Add a study with its heat maps to the error gallery."""
    if reading.maps is None:
        return
    names = _names(reading)
    unknown = np.full(len(LABELS), np.nan)
    worst.add(
        ScoredVolume(
            volume=reading.volume,
            maps=reading.maps,
            probabilities=reading.probabilities.slice_probabilities,
            labels=np.array([truth.labels[row_of[name]] if name in row_of else unknown for name in names]),
            image_ids=names,
        )
    )
