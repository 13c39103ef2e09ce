"""The table a person reads: every fact in words, at 80 columns, with hostile names made harmless."""

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from hemoscope.dicom.slices import QualityNote, Rejected
from hemoscope.inference.findings import Triage
from hemoscope.reports.report import PatientIdentity, Report
from hemoscope.reports.table import print_report, short_uid
from hemoscope.version import DISCLAIMER

from .conftest import make_frame, make_reported, make_slice, make_study


def shown(report: Report, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    print_report(report, console)
    return console.file.getvalue()


def line_of(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(word))


def test_each_label_shows_its_own_probability_threshold_and_flag(report: Report) -> None:
    text = shown(report)
    for name, probability, threshold, flag in (
        ("Any hemorrhage", "0.91", "0.30", "Suspected"),
        ("Epidural", "0.12", "0.31", "Not established"),
        ("Intraparenchymal", "0.83", "0.32", "Suspected"),
        ("Intraventricular", "0.04", "0.33", "Below threshold"),
        ("Subarachnoid", "0.45", "0.34", "Not established"),
        ("Subdural", "0.26", "0.35", "Below threshold"),
    ):
        line = line_of(text, name)
        assert probability in line
        assert threshold in line
        assert flag in line


def test_a_label_that_is_not_established_never_reads_as_present(report: Report) -> None:
    text = shown(report)
    assert "uspected" not in line_of(text, "Subarachnoid")
    assert "Suspected only together with any hemorrhage" in " ".join(text.split())


@pytest.mark.parametrize("triage", Triage)
def test_triage_stands_in_a_word(change_study: Callable[..., Report], triage: Triage) -> None:
    assert f" {triage.value.upper()} " in shown(change_study(triage=triage))


def test_key_slices_are_given_by_number_and_position(report: Report) -> None:
    assert "1 (-10.0), 2 (-5.0)" in line_of(shown(report), "Any hemorrhage")
    assert "Key slices (mm)" in shown(report)


def test_frames_that_share_a_uid_are_numbered_one_by_one(change_study: Callable[..., Report]) -> None:
    frames = tuple(make_frame(index) for index in range(4))
    text = shown(change_study(slices=frames, keys=(3, 1)))
    assert "4 (5.0), 2 (-5.0)" in line_of(text, "Any hemorrhage")


def test_assumed_positions_are_not_shown_as_millimetres(change_study: Callable[..., Report]) -> None:
    note = QualityNote(code="geometry_assumed", message="Spacing and position are assumed")
    text = shown(change_study(quality=(note,)))
    assert "1, 2" in line_of(text, "Any hemorrhage")
    assert "(mm)" not in text
    assert "Spacing and position are assumed" in text


def test_key_slices_of_unknown_position_are_numbered_as_they_came(change_study: Callable[..., Report]) -> None:
    slices = tuple(make_slice(index, position_mm=None) for index in range(3))
    text = shown(change_study(slices=slices))
    assert "1, 2" in line_of(text, "Any hemorrhage")
    assert "as they came" in text


def test_quality_notes_skipped_series_and_refusals_are_told_in_words(report: Report) -> None:
    text = shown(report)
    assert "The gantry was tilted by 12 degrees" in text
    assert "was not read (64 slices): bone kernel" in text
    assert "1 input was refused" in text
    assert "CT/notes.txt: it is not a DICOM file. Leave it out" in text


def test_one_note_on_many_slices_is_one_line(change_study: Callable[..., Report]) -> None:
    note = QualityNote(code="twelve_bit_repair", message="Stored values were repaired")
    slices = tuple(make_slice(index, quality=(note,) if index != 2 else ()) for index in range(10))
    text = shown(change_study(slices=slices))
    assert text.count("Stored values were repaired") == 1
    assert "9 of 10 slices" in text
    few = tuple(make_slice(index, quality=(note,) if index < 2 else ()) for index in range(10))
    assert "slice 1, 2" in shown(change_study(slices=few))


def test_many_studies_are_counted_by_triage(report: Report) -> None:
    assert "studies:" not in shown(report)
    triages = (Triage.ROUTINE, Triage.UNSURE, Triage.IMMEDIATE, Triage.ROUTINE)
    studies = tuple(make_reported(triage=triage) for triage in triages)
    assert "4 studies: 1 immediate, 1 unsure, 2 routine" in shown(replace(report, studies=studies))


def test_one_slice_alone_is_not_numbered_by_place(change_study: Callable[..., Report]) -> None:
    assert "numbered" not in shown(change_study(slices=(make_slice(0),)))


def test_a_refusal_names_its_input_once(report: Report) -> None:
    refused = Rejected(source="a.txt", code="not_dicom", message="a.txt: not a DICOM file. Leave it out")
    text = shown(replace(report, rejected=(refused,)))
    assert "1 input was refused" in text
    assert text.count("a.txt: not a DICOM file") == 1
    assert "a.txt: a.txt" not in text


def test_refusals_of_one_kind_are_one_line_with_the_count_and_the_first_names(report: Report) -> None:
    def capture(number: int, message: str) -> Rejected:
        return Rejected(source=f"SC{number:02d}", code="not_ct", message=message)

    captures = [capture(number, f"SC{number:02d}: a screen. Leave it out") for number in range(11)]
    text = shown(
        replace(report, rejected=(*captures, capture(11, "another reason"), capture(12, "a screen. Leave it out")))
    )
    assert "13 inputs were refused" in text
    assert "12 inputs: SC00, SC01, SC02 and 9 more: a screen. Leave it out" in " ".join(text.split())
    assert "SC11: another reason" in text
    assert text.count("a screen") == 1


def test_the_disclaimer_and_the_model_always_stand_at_the_end(report: Report) -> None:
    for one in (report, replace(report, studies=(), rejected=())):
        lines = shown(one).strip().splitlines()
        assert lines[-1].startswith(DISCLAIMER)
        assert lines[-2].startswith("Model default 1.0 (sha256 abababababab, float32)")


def test_identity_is_shown_only_on_request(report: Report, change_study: Callable[..., Report]) -> None:
    assert "Roe" not in shown(report)
    text = shown(change_study(patient=PatientIdentity(name="Roe^Jane", id="", study_date="20190101")))
    assert "Patient Roe^Jane  ID (none)  date 20190101" in text


def test_names_from_strangers_cannot_steer_the_terminal(report: Report) -> None:
    hostile = Rejected(source="[red]x\x1b]0;owned\x07", code="not_dicom", message="no\x1b[2J. Leave it out")
    text = shown(replace(report, rejected=(hostile,)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x" in text


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off_at_usual_widths(report: Report, width: int) -> None:
    text = shown(report, width)
    study = report.studies[0].findings
    for uid in (study.study_instance_uid, study.series_instance_uid, study.skipped_series[0].series_instance_uid):
        text = text.replace(short_uid(uid), "")
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(("probability", "text"), [(0.0, "0.00"), (0.001, "<.01"), (0.999, ">.99"), (1.0, "1.00")])
def test_rounding_never_claims_certainty(change_study: Callable[..., Report], probability: float, text: str) -> None:
    study = make_study()
    first = replace(study.findings[0], probability=probability)
    assert text in line_of(shown(change_study(findings=(first, *study.findings[1:]))), "Any hemorrhage")


def test_a_short_uid_is_shown_whole() -> None:
    assert short_uid("ID_0123456789") == "ID_0123456789"
