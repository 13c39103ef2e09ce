"""``hemoscope predict --dicom``: the objects stand in the folder of their study, or the result says why not."""

from pathlib import Path

import pytest
from pydicom import dcmread

from hemoscope.cli import main
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.testing.dicom_writer import save, write_series
from hemoscope.testing.phantom import make_phantom


def phantom(folder: Path) -> tuple[Path, ...]:
    return write_series(make_phantom(seed=2, shape=(4, 64, 64)), folder)


def test_each_study_has_its_objects(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = phantom(tmp_path / "images")
    out = tmp_path / "objects"
    code = main(["predict", str(tmp_path / "images"), "--model", str(tiny_bundle), "--dicom", str(out)])
    assert code in (ExitCode.OK, ExitCode.INCOMPLETE)
    study = dcmread(first).StudyInstanceUID
    found = {path.name: dcmread(path) for path in (out / study).iterdir()}
    assert {"report.dcm", "pictures.dcm"} <= set(found)
    assert {one.StudyInstanceUID for one in found.values()} == {study}
    assert {one.PatientID for one in found.values()} == {dcmread(first).PatientID}
    assert "Results in DICOM: objects" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_study_without_valid_uids_is_read_and_says_why_it_has_no_objects(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in phantom(tmp_path / "images"):
        data_set = dcmread(path)
        data_set.StudyInstanceUID = "ID_f10de2d018"
        save(data_set, path)
    arguments = ["predict", str(tmp_path / "images"), "--model", str(tiny_bundle), "--dicom", str(tmp_path / "objects")]
    assert main(arguments) == ExitCode.SOME_REFUSED
    printed = capsys.readouterr().out
    assert "no_dicom_result" in printed
    assert "Any hemorrhage" in printed
    assert not list((tmp_path / "objects").iterdir())
    assert main([*arguments, "--allow-refused", "no_dicom_result"]) in (ExitCode.OK, ExitCode.INCOMPLETE)


def test_the_extra_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hemoscope.reports.dicom_results.files.find_spec", lambda _name: None)
    assert main(["predict", str(tmp_path), "--dicom", str(tmp_path / "objects")]) == ExitCode.USAGE
    assert "hemoscope[hospital]" in capsys.readouterr().err
