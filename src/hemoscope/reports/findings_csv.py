"""Findings as CSV, for spreadsheets and statistics: one table with a row a slice, one with a row a study.

Lists stand in one cell, separated by spaces. Slice numbers count from 1, as in the table and the pictures: frames of
one file share a SOP Instance UID. Flags are 1 and 0. An unknown position is an empty cell. A name that a spreadsheet
would run as a formula (it begins with ``=``, ``+``, ``-``, ``@``, tab or return) gets an apostrophe before it, as OWASP
advises against CSV injection: file names come from strangers.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from hemoscope.inference.findings import SliceFindings, StudyFindings
from hemoscope.labels import LABELS
from hemoscope.reports.report import PatientIdentity, Report

Cell = str | int | float

SLICE_COLUMNS: tuple[str, ...] = (
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "frame",
    "slice_number",
    "source",
    "position_mm",
    *LABELS,
    *(f"{label}_present" for label in LABELS),
    "quality",
)
STUDY_COLUMNS: tuple[str, ...] = (
    "study_instance_uid",
    "series_instance_uid",
    "urgency",
    "slices",
    *LABELS,
    *(f"{label}_threshold" for label in LABELS),
    *(f"{label}_present" for label in LABELS),
    *(f"{label}_established" for label in LABELS),
    *(f"{label}_key_slices" for label in LABELS),
    *(f"{label}_key_slice_numbers" for label in LABELS),
    "quality",
    "state",
)
PATIENT_COLUMNS = ("patient_name", "patient_id", "study_date")


def slices_csv(report: Report) -> str:
    """One row a slice of every study, in anatomical order: source, position, six probabilities, six flags."""
    return _table(
        SLICE_COLUMNS, (_slice_row(study.findings, one) for study in report.studies for one in study.findings.slices)
    )


def studies_csv(report: Report) -> str:
    """One row a study; the patient columns are there only where the report holds identities."""
    if not any(study.patient for study in report.studies):
        return _table(STUDY_COLUMNS, (_study_row(study.findings) for study in report.studies))
    rows = (_study_row(study.findings) + _patient_cells(study.patient) for study in report.studies)
    return _table(STUDY_COLUMNS + PATIENT_COLUMNS, rows)


def _slice_row(study: StudyFindings, one: SliceFindings) -> list[Cell]:
    return [
        study.study_instance_uid,
        study.series_instance_uid,
        one.ref.sop_instance_uid,
        one.ref.frame,
        one.ref.number,
        one.source,
        "" if one.position_mm is None else one.position_mm,
        *one.probabilities.values,
        *(int(label in one.present) for label in LABELS),
        " ".join(note.code for note in one.quality),
    ]


def _study_row(study: StudyFindings) -> list[Cell]:
    return [
        study.study_instance_uid,
        study.series_instance_uid,
        study.triage.value,
        len(study.slices),
        *study.probabilities.values,
        *(finding.threshold for finding in study.findings),
        *(int(finding.present) for finding in study.findings),
        *(int(finding.established) for finding in study.findings),
        *(" ".join(ref.sop_instance_uid for ref in finding.slices) for finding in study.findings),
        *(" ".join(str(ref.number) for ref in finding.slices) for finding in study.findings),
        " ".join(note.code for note in study.quality),
        study.state,
    ]


def _patient_cells(patient: PatientIdentity | None) -> list[Cell]:
    return ["", "", ""] if patient is None else [patient.name, patient.id, patient.study_date]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue()


def _inert(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
