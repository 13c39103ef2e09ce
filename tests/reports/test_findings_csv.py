"""CSV tables: one row a slice, one row a study, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace

import pytest

from hemoscope.dicom.slices import QualityNote
from hemoscope.labels import LABELS
from hemoscope.reports.findings_csv import SLICE_COLUMNS, STUDY_COLUMNS, slices_csv, studies_csv
from hemoscope.reports.report import PatientIdentity, Report

from .conftest import make_frame, make_reported


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_each_slice_has_a_row_with_source_position_probabilities_and_flags(report: Report) -> None:
    rows = read(slices_csv(report))
    study = report.studies[0].findings
    assert len(rows) == len(study.slices)
    for row, one in zip(rows, study.slices, strict=True):
        assert tuple(row) == SLICE_COLUMNS
        assert row["source"] == one.source
        assert row["sop_instance_uid"] == one.ref.sop_instance_uid
        assert float(row["position_mm"]) == one.position_mm
        for label in LABELS:
            assert float(row[label]) == one.probabilities[label]
            assert row[f"{label}_present"] == str(int(label in one.present))


def test_each_study_has_a_row_with_thresholds_flags_and_key_slices(report: Report) -> None:
    (row,) = read(studies_csv(report))
    assert tuple(row) == STUDY_COLUMNS
    assert row["urgency"] == "immediate"
    assert row["slices"] == "4"
    assert row["quality"] == "gantry_tilt"
    for finding in report.studies[0].findings.findings:
        assert float(row[finding.label]) == finding.probability
        assert float(row[f"{finding.label}_threshold"]) == finding.threshold
        assert row[f"{finding.label}_present"] == str(int(finding.present))
        assert row[f"{finding.label}_established"] == str(int(finding.established))
        assert row[f"{finding.label}_key_slices"].split() == [ref.sop_instance_uid for ref in finding.slices]


def test_frames_of_one_file_are_told_apart_by_their_numbers(change_study: Callable[..., Report]) -> None:
    report = change_study(slices=tuple(make_frame(index) for index in range(4)), keys=(3, 1))
    rows = read(slices_csv(report))
    assert [(row["frame"], row["slice_number"]) for row in rows] == [("3", "1"), ("2", "2"), ("1", "3"), ("0", "4")]
    (study,) = read(studies_csv(report))
    assert study["any_key_slice_numbers"] == "4 2"
    assert study["epidural_key_slice_numbers"] == ""


def test_an_unknown_position_is_an_empty_cell(change_slice: Callable[..., Report]) -> None:
    assert read(slices_csv(change_slice(position_mm=None)))[0]["position_mm"] == ""


def test_quality_codes_share_a_cell(change_slice: Callable[..., Report]) -> None:
    notes = tuple(QualityNote(code=code, message="x") for code in ("first_code", "second_code"))
    assert read(slices_csv(change_slice(quality=notes)))[0]["quality"] == "first_code second_code"


@pytest.mark.parametrize("source", ["=cmd|calc", "+1", "-1", "@sum", "\tx"])
def test_no_file_name_becomes_a_formula(change_slice: Callable[..., Report], source: str) -> None:
    assert read(slices_csv(change_slice(source=source)))[0]["source"] == f"'{source}"


def test_commas_quotes_and_newlines_in_names_stay_in_their_cell(change_slice: Callable[..., Report]) -> None:
    assert read(slices_csv(change_slice(source='a,"b"\nc')))[0]["source"] == 'a,"b"\nc'


def test_identity_columns_are_there_only_on_request(report: Report) -> None:
    assert "patient_name" not in studies_csv(report)
    someone = PatientIdentity(name="Roe^Jane", id="7", study_date="20190101")
    identified = replace(report, studies=(make_reported(patient=someone), make_reported()))
    row, other = read(studies_csv(identified))
    assert other["patient_name"] == ""
    assert (row["patient_name"], row["patient_id"], row["study_date"]) == ("Roe^Jane", "7", "20190101")
    assert "Roe" not in slices_csv(identified)


def test_a_run_that_read_nothing_gives_headers_alone(report: Report) -> None:
    nothing = replace(report, studies=())
    assert slices_csv(nothing) == ",".join(SLICE_COLUMNS) + "\n"
    assert studies_csv(nothing) == ",".join(STUDY_COLUMNS) + "\n"
