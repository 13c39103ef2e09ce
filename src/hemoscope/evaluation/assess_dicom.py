"""Scores a model on labelled DICOM: the predictions that a user gets, compared with the truth."""

from collections.abc import Mapping, Sequence

import numpy as np

from hemoscope.data.image_ids import match_ids
from hemoscope.dicom.archive import Archive
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DataError
from hemoscope.evaluation.assessment import Assessment
from hemoscope.evaluation.flow import Flow, Step, rejected_steps
from hemoscope.evaluation.prediction_files import LabelTable
from hemoscope.evaluation.scored_rows import ScoredRows
from hemoscope.evaluation.strata import SliceFacts, joined_facts, series_facts
from hemoscope.evaluation.worst_errors import ScoredVolume, WorstErrors
from hemoscope.inference.predictor import Predictor, StudyReading
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.progress import StageProgress


def assess_dicom(
    predictor: Predictor,
    archive: Archive,
    truth: LabelTable,
    *,
    root: str = "",
    gallery: int = 0,
    progress: StageProgress | None = None,
) -> Assessment:
    """Score the calibrated probabilities of slices and studies, as ``hemoscope predict`` reports them.

    Image ids are matched with file names as ``hemoscope.data.image_ids`` says. A study's truth is the highest label of
    its labelled slices; its name is that of its first image in the table. Images without any label are predicted with
    their study and not scored.

    Args:
        predictor: the model.
        archive: the images.
        truth: labels and patients of images.
        root: name of the folder of the images, which their ids may contain.
        gallery: number of worst errors to keep for each label and kind; 0 for none.
        progress: as for ``Predictor.studies``.

    Raises:
        DataError: an image of the table was not read: scoring only the others would hide the failure; an id fits
            several files, or a file several ids; an image has several frames.
    """
    rows = rows_of(archive, truth, root=root)
    worst = WorstErrors(predictor.bundle.card, gallery)
    slices, series, rejected = ScoredRows(), ScoredRows(), list(archive.rejected)
    spacings: dict[str, float | None] = {}
    predicted = 0
    facts: list[SliceFacts] = []
    for outcome in predictor.studies(archive, maps=gallery > 0, progress=progress):
        rejected.extend(outcome.rejected)
        if outcome.reading is not None:
            predicted += len(outcome.reading.findings.slices)
            study = _add(outcome.reading, rows, truth, slices, series)
            facts.append(_facts(outcome.reading, rows, truth))
            spacings[study] = outcome.reading.volume.slice_spacing_mm
            _show(outcome.reading, rows, truth, worst)
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
        facts=joined_facts(facts).rows(np.array(order, dtype=np.intp)) if order else None,
        spacings_mm=spacings,
    )


def rows_of(archive: Archive, truth: LabelTable, *, root: str) -> dict[str, int]:
    """Return the row of the table for each source that has one; errors as for ``assess_dicom``."""
    row_of = {image_id: row for row, image_id in enumerate(truth.image_ids)}
    matched = match_ids(truth.image_ids, archive.sources, root=root)
    matched.check(truth.name)
    return {source: row_of[image_id] for source, image_id in matched.id_of.items()}


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


def _add(
    reading: StudyReading, rows: Mapping[str, int], truth: LabelTable, slices: ScoredRows, series: ScoredRows
) -> str:
    """Add the slices that are in the table, and their study if any of them has a label. Return the study's name."""
    found = [(rows[part.source], part) for part in reading.findings.slices if part.source in rows]
    if not found:
        return ""
    members = [row for row, _ in found]
    study = truth.image_ids[members[0]]
    if len(set(members)) < len(members):
        source = next(part.source for row, part in found if members.count(row) > 1)
        msg = f"{source} has several frames, but {truth.name} has one row for it. Give files of one slice"
        raise DataError(msg)
    for row, part in found:
        six = np.array(part.probabilities.values)
        slices.add(truth.image_ids[row], six, truth.labels[row], patient=truth.patients[row], series=study)
    labels = truth.labels[members]
    if np.isfinite(labels).any():
        six = np.array(reading.findings.probabilities.values)
        patient = truth.patients[members[0]]
        series.add(study, six, np.fmax.reduce(labels, axis=0), patient=patient, series=study)
    return study


def _facts(reading: StudyReading, rows: Mapping[str, int], truth: LabelTable) -> SliceFacts:
    """Return the facts of the slices that are in the table, in their order in the series."""
    found = [rows.get(part.source) for part in reading.findings.slices]
    return _series_facts(found, truth).rows(np.array([row is not None for row in found]))


def _series_facts(members: Sequence[int | None], truth: LabelTable) -> SliceFacts:
    """Return the facts of all slices of a series, whose rows in the table are ``members``."""
    first = LABELS.index(Hemorrhage.ANY)
    return series_facts(np.array([np.nan if row is None else truth.labels[row, first] for row in members]))


def _show(reading: StudyReading, rows: Mapping[str, int], truth: LabelTable, worst: WorstErrors) -> None:
    """Add a study with its heat maps to the error gallery; by study only if every slice has a label.

    A slice without one could bleed: then nothing shows that the study was falsely flagged.
    """
    if reading.maps is None:
        return
    members = [rows.get(part.source) for part in reading.findings.slices]
    unknown = np.full(len(LABELS), np.nan)
    labels = np.array([unknown if row is None else truth.labels[row] for row in members])
    whole = np.isfinite(labels).any(axis=1).all()
    worst.add(
        ScoredVolume(
            volume=reading.volume,
            maps=reading.maps,
            probabilities=reading.probabilities.slice_probabilities,
            labels=labels,
            image_ids=[
                part.source if row is None else truth.image_ids[row]
                for row, part in zip(members, reading.findings.slices, strict=True)
            ],
            facts=_series_facts(members, truth),
            study=reading.probabilities.study_probabilities if whole else None,
        )
    )
