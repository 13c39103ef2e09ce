"""The scripts of ``examples/`` run as they stand, on the sample that is beside them."""

import runpy
import shutil
import sys
from pathlib import Path

import nibabel as nib
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> object:
    """``run("data_frame.py", ...)``: what an example prints, run in a folder that holds ``examples/sample`` alone."""
    if not (REPOSITORY / "src/hemoscope/bundles/default/card.json").is_file():
        pytest.skip("the default model is not in this clone: src/hemoscope/bundles/default")
    shutil.copytree(EXAMPLES / "sample", tmp_path / "examples" / "sample")
    monkeypatch.chdir(tmp_path)

    def call(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_a_folder_is_read_study_by_study(run, tmp_path: Path) -> None:
    out = run("read_folder.py")
    assert "immediate" in out
    assert "suspected" in out
    assert "refused" not in out
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no image")
    assert "refused: a.txt: " in run("read_folder.py", "notes")


def test_nifti_goes_in_and_out(run, tmp_path: Path) -> None:
    assert "the heat map is nifti/any.nii.gz" in run("read_nifti.py")
    head, heat = (nib.load(tmp_path / "nifti" / name) for name in ("head.nii.gz", "any.nii.gz"))
    assert head.shape == heat.shape
    assert "650" in run("read_nifti.py", tmp_path / "nifti" / "head.nii.gz")


def test_a_heat_map_lies_over_its_slice(run, tmp_path: Path) -> None:
    assert "Subdural: " in run("heat_map.py", "examples/sample", "subdural")
    with Image.open(tmp_path / "heat_map.png") as picture:
        assert (picture.size, picture.mode) == ((650, 650), "RGB")


def test_a_bundle_of_ones_own_is_read_with(run, tiny_bundle: Path, tmp_path: Path) -> None:
    assert run("own_bundle.py", tiny_bundle).startswith("tiny 1.0, sha256 ")
    with pytest.raises(SystemExit, match="not a bundle: "):
        run("own_bundle.py", tmp_path)


def test_a_study_becomes_tables(run, tmp_path: Path) -> None:
    assert "0 inputs were refused" in run("data_frame.py")
    assert len((tmp_path / "slices.csv").read_text().splitlines()) == 11


def test_every_example_is_tested_and_named_in_the_tutorial() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {"make_sample.py", "ct_ich_labels.py"}
    assert len(scripts) == 5
    tested, page = Path(__file__).read_text(), (REPOSITORY / "docs/tutorial/python.md").read_text()
    assert not [name for name in scripts if f'"{name}"' not in tested or f"examples/{name}" not in page]
