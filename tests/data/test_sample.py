"""The bundled sample: real slices, valid DICOM, no identity, small, and reproducible by its script."""

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted((EXAMPLES / "sample").glob("*.dcm"))


def test_the_sample_is_ten_slices_in_under_three_megabytes_with_its_attribution() -> None:
    assert len(FILES) == 10
    assert sum(path.stat().st_size for path in FILES) < 3_000_000
    attribution = (EXAMPLES / "ATTRIBUTION.md").read_text()
    for words in ("CC BY 4.0", "10.13026/w8q8-ky94", "Data* 2020, 5(1):14", "Changes made", "Geometry is assumed"):
        assert words in attribution


def test_positions_rise_with_the_slice_number_and_every_file_states_that_they_are_assumed() -> None:
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in FILES]
    assert [ds.InstanceNumber for ds in slices] == list(range(16, 26))
    assert np.allclose(np.diff([ds.ImagePositionPatient[2] for ds in slices]), 5.0)
    assert all(ds.ImageComments.startswith("Geometry assumed") for ds in slices)
    assert len({ds.SeriesInstanceUID for ds in slices}) == 1
    assert len({ds.SOPInstanceUID for ds in slices}) == 10
    assert all(ds.SOPInstanceUID.startswith("2.25.") for ds in slices)


def test_no_identity_is_in_the_sample() -> None:
    for path in FILES:
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert ds.PatientName == "CT-ICH^Anonymous"
        assert ds.PatientIdentityRemoved == "YES"
        assert not ds.StudyDate
        assert not ds.PatientBirthDate
        assert not ds.AccessionNumber


def test_the_sample_measures_what_tissue_measures() -> None:
    volume = np.stack([pydicom.dcmread(path).pixel_array - 1024.0 for path in FILES])
    assert volume.min() == -1000
    assert volume.max() > 1000
    brain = volume[:, 250:350, 250:400]
    assert 25 < np.median(brain) < 42


@pytest.mark.reference_tool("dciodvfy")
def test_dciodvfy_finds_no_error_in_the_sample(reference_tool: Callable[[str], Path]) -> None:
    for path in FILES:
        answer = subprocess.run([reference_tool("dciodvfy"), path], capture_output=True, text=True, check=False)
        assert "Error" not in answer.stderr, answer.stderr


@pytest.mark.shared_data
def test_the_script_makes_the_committed_sample_again(shared_data_dir: Path, tmp_path: Path) -> None:
    make = runpy.run_path(str(EXAMPLES / "make_sample.py"))["make_sample"]
    for made, committed in zip(make(shared_data_dir / "ct-ich", tmp_path), FILES, strict=True):
        new, old = pydicom.dcmread(made), pydicom.dcmread(committed)
        assert np.array_equal(new.pixel_array, old.pixel_array)
        del new.PixelData, old.PixelData
        assert new == old
