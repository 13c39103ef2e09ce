"""Scoring a model on labelled DICOM: what a user gets, against the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from hemoscope.card import ScoreTable
from hemoscope.dicom.archive import Archive
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DataError
from hemoscope.evaluation.prediction_files import LabelTable
from hemoscope.evaluation.score_table import score_table
from hemoscope.labels import PerLabel
from hemoscope.predict import Predictor, Progress
from hemoscope.probabilities import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """How a model did: the probabilities of each labelled image, score tables, and what could not be read."""

    probabilities: Mapping[str, PerLabel[float]]
    by_slice: ScoreTable
    by_study: ScoreTable
    rejected: tuple[Rejected, ...]


def assess(
    predictor: Predictor,
    archive: Archive,
    truth: LabelTable,
    *,
    name: str,
    description: str,
    progress: Progress | None = None,
) -> Assessment:
    """Score the calibrated probabilities of slices and studies, as ``hemoscope predict`` reports them.

    An image belongs to the file of its name (``ID.dcm``). A study's truth is the highest of its labelled slices;
    images of the table without any label are read with their study and count for nothing.

    Raises:
        DataError: an image of the table was not read: scoring the others would hide the failure.
    """
    row_of = {image_id: row for row, image_id in enumerate(truth.image_ids)}
    slices: dict[int, PerLabel[float]] = {}
    studies: list[tuple[PerLabel[float], list[int]]] = []
    rejected = list(archive.rejected)
    for outcome in predictor.studies(archive, progress=progress):
        rejected.extend(outcome.rejected)
        if outcome.reading is None:
            continue
        findings = outcome.reading.findings
        named = [(row_of.get(PurePath(part.source).stem), part.probabilities) for part in findings.slices]
        known = {row: probabilities for row, probabilities in named if row is not None}
        slices |= known
        labelled = [row for row in known if np.isfinite(truth.labels[row]).any()]
        if labelled:
            studies.append((findings.probabilities, labelled))
    unread = [image_id for image_id, row in row_of.items() if row not in slices]
    if unread:
        msg = f"{len(unread)} images of the table were not read, first {unread[0]}. See what hemoscope predict refuses"
        raise DataError(msg)
    labelled_slices = [row for row in slices if np.isfinite(truth.labels[row]).any()]
    return Assessment(
        probabilities={truth.image_ids[row]: slices[row] for row in sorted(slices)},
        by_slice=_table([slices[row] for row in labelled_slices], [[row] for row in labelled_slices], truth).named(
            name, description, "slice"
        ),
        by_study=_table([found for found, _ in studies], [rows for _, rows in studies], truth).named(
            name, description, "study"
        ),
        rejected=tuple(rejected),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    probabilities: Floats
    labels: Floats
    patients: list[str]

    def named(self, name: str, description: str, what: str) -> ScoreTable:
        """Score the rows; nothing was fitted on them, so one set of probabilities serves for order and calibration."""
        return score_table(
            ranked=self.probabilities,
            probabilities=self.probabilities,
            truth=self.labels,
            patients=self.patients,
            name=f"{name}, by {what}",
            description=description,
            level="slice" if what == "slice" else "patient",
        )


def _table(probabilities: Sequence[PerLabel[float]], members: Sequence[list[int]], truth: LabelTable) -> _Rows:
    return _Rows(
        probabilities=np.array([found.values for found in probabilities], dtype=np.float64),
        labels=np.array([np.fmax.reduce(truth.labels[rows], axis=0) for rows in members], dtype=np.float64),
        patients=[truth.patients[rows[0]] for rows in members],
    )
