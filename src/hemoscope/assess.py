"""Scoring a model on labelled DICOM: what a user gets, against the truth."""

from pathlib import PurePath

import numpy as np

from hemoscope.card import ScoreTable
from hemoscope.data.label_table import LabelTable
from hemoscope.dicom.archive import Archive
from hemoscope.errors import DataError
from hemoscope.evaluation.score_table import score_table
from hemoscope.labels import LABELS
from hemoscope.predict import Predictor, Progress


def assess(
    predictor: Predictor,
    archive: Archive,
    table: LabelTable,
    *,
    name: str,
    description: str,
    progress: Progress | None = None,
) -> tuple[ScoreTable, ScoreTable]:
    """Score the calibrated probabilities of slices and studies, as ``hemoscope predict`` reports them.

    An image belongs to the file of its name (``ID.dcm``). A study's truth is the highest of its labelled slices, and
    unknown where none is labelled; images without any label are read with their study and not scored.

    Returns:
        The table by slice and the table by study, intervals by patient.

    Raises:
        DataError: a labelled image was not read.
    """
    row_of = {image_id: row for row, image_id in enumerate(table.image_ids)}
    labelled = np.asarray(np.isfinite(table.labels).any(axis=1), dtype=np.bool_)
    slices: dict[int, list[float]] = {}
    studies: list[tuple[list[float], list[int]]] = []
    for outcome in predictor.studies(archive, progress=progress):
        if outcome.reading is None:
            continue
        findings = outcome.reading.findings
        rows = {row_of.get(PurePath(part.source).stem, -1): part.probabilities for part in findings.slices}
        known = {row: probabilities for row, probabilities in rows.items() if row >= 0 and labelled[row]}
        slices |= {row: list(probabilities.values) for row, probabilities in known.items()}
        if known:
            studies.append((list(findings.probabilities.values), sorted(known)))
    unread = [table.image_ids[row] for row in np.flatnonzero(labelled) if int(row) not in slices]
    if unread:
        msg = f"{len(unread)} labelled images were not read, first {unread[0]}. See what hemoscope predict refuses"
        raise DataError(msg)
    by_slice = _table(list(slices.values()), [[row] for row in slices], table, name, description, studies=False)
    by_study = _table([p for p, _ in studies], [rows for _, rows in studies], table, name, description, studies=True)
    return by_slice, by_study


def _table(
    probabilities: list[list[float]],
    rows: list[list[int]],
    table: LabelTable,
    name: str,
    description: str,
    *,
    studies: bool,
) -> ScoreTable:
    values = np.array(probabilities, dtype=np.float64).reshape(-1, len(LABELS))
    truth = np.array([np.fmax.reduce(table.labels[members], axis=0) for members in rows])
    return score_table(
        ranked=values,
        probabilities=values,
        truth=truth,
        patients=[table.patients[members[0]] for members in rows],
        name=f"{name}, by {'study' if studies else 'slice'}",
        description=description,
        level="patient" if studies else "slice",
    )
