"""Findings as CSV, for spreadsheets and statistics: one table with a row a slice, one with a row a study.

Lists stand in one cell, separated by spaces. Slice numbers count from 1, as in the table and the pictures: frames of
one file share a SOP Instance UID. Flags are 1 and 0. An unknown position is an empty cell. A name that a spreadsheet
would run as a formula (it begins with ``=``, ``+``, ``-``, ``@``, tab or return) gets an apostrophe before it, as OWASP
advises against CSV injection: file names come from strangers.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from hemoscope.files import inert_text, valid_text
from hemoscope.inference.findings import SliceFindings, StudyFindings
from hemoscope.labels import LABELS
from hemoscope.reports.report import PatientIdentity, Report, ReportedStudy

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
    """Return the table of slices of every study."""
    return slice_table(report.studies)


def studies_csv(report: Report) -> str:
    """Return the table of studies; the patient columns are there only where the report holds identities."""
    return study_table(report.studies, identify=any(study.patient for study in report.studies))


def slice_table(studies: Iterable[ReportedStudy], *, header: bool = True) -> str:
    """Return one row a slice of every study, in anatomical order: source, position, six probabilities, six flags.

    Args:
        studies: to write.
        header: False for rows that are added to a table.
    """
    rows = (_slice_row(study.findings, one) for study in studies for one in study.findings.slices)
    return _table(SLICE_COLUMNS if header else None, rows)


def study_table(studies: Iterable[ReportedStudy], *, identify: bool = False, header: bool = True) -> str:
    """Return one row a study.

    Args:
        studies: to write.
        identify: add columns of the patient.
        header: False for rows that are added to a table.
    """
    columns = STUDY_COLUMNS + PATIENT_COLUMNS if identify else STUDY_COLUMNS
    more = _patient_cells if identify else _nothing
    return _table(columns if header else None, (_study_row(one.findings) + more(one.patient) for one in studies))


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


def _nothing(_patient: PatientIdentity | None) -> list[Cell]:
    return []


def _table(columns: Sequence[str] | None, rows: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if columns is not None:
        writer.writerow(columns)
    writer.writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue()


def _inert(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    return inert_text(valid_text(cell))
