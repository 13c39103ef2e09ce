"""The output folder: whole files or none, other files left alone, no way out of it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hemoscope.errors import ConfigError
from hemoscope.labels import Hemorrhage
from hemoscope.reports.output_folder import folder_name, make_output_folder, write_picture, write_report
from hemoscope.reports.report import Report

from .conftest import make_reported, make_slice


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_report_becomes_three_files_and_nothing_temporary_remains(tmp_path: Path, report: Report) -> None:
    output = tmp_path / "a" / "b"
    make_output_folder(output)
    write_report(report, output)
    assert names_in(output) == ["findings.csv", "findings.json", "studies.csv"]
    assert json.loads((output / "findings.json").read_text())["schema"] == "hemoscope.findings/2"


def test_files_of_other_runs_are_left_alone_and_own_names_replaced(tmp_path: Path, report: Report) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "findings.json").write_text("old")
    write_report(report, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "findings.json").read_text() != "old"


def test_a_file_in_place_of_the_folder_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "results"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="results is a file"):
        make_output_folder(path)
    assert path.read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to results: Not a directory. Give --output a folder"):
        make_output_folder(tmp_path / "file" / "results")


def test_a_write_that_fails_halfway_keeps_the_old_file(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "findings.csv").write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_report(report, tmp_path)
    assert names_in(tmp_path) == ["findings.csv"]
    assert (tmp_path / "findings.csv").read_text() == "old"


def test_undecodable_file_names_do_not_stop_the_tables(tmp_path: Path, report: Report) -> None:
    slices = (make_slice(0, source="CT/\udcff.dcm"),)
    studies = (make_reported(slices=slices),)
    write_report(Report(model=report.model, studies=studies, rejected=()), tmp_path)
    assert "CT/\\xff.dcm" in (tmp_path / "findings.csv").read_text()


def test_a_picture_is_named_by_study_slice_and_label(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 3))
    path = write_picture(image, tmp_path, study_uid="1.2.3", number=7, label=Hemorrhage.SUBDURAL)
    assert path == tmp_path / "overlays" / "1.2.3" / "slice-007-subdural.png"
    with Image.open(path) as read:
        assert read.size == (4, 3)


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "overlays").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot write to"):
        write_picture(Image.new("RGB", (4, 3)), tmp_path, study_uid="1.2", number=1, label=Hemorrhage.ANY)


@given(st.text())
def test_no_uid_leads_out_of_the_folder(uid: str) -> None:
    name = folder_name(uid)
    assert name
    assert name not in {".", ".."}
    assert not set(name) & set("/\\:\0")
    assert len(name) <= 80


@given(st.text(max_size=5), st.text(max_size=5))
def test_two_uids_never_share_a_folder(one: str, other: str) -> None:
    assert (folder_name(one) == folder_name(other)) == (one == other)
