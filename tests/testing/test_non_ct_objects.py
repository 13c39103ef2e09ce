"""Objects other than CT slices are written as scanners write them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from hemoscope.testing.non_ct_objects import (
    write_colour,
    write_dose_report,
    write_localizer,
    write_monochrome1,
    write_secondary_capture,
    write_without_rescale,
)

VALID = (write_localizer, write_monochrome1, write_secondary_capture, write_colour, write_dose_report)


@pytest.mark.reference_tool("dciodvfy")
@pytest.mark.parametrize("write", VALID)
def test_dciodvfy_finds_no_error(
    write: Callable[[Path], Path], tmp_path: Path, reference_tool: Callable[[str], Path]
) -> None:
    path = write(tmp_path / "object.dcm")
    answer = subprocess.run([reference_tool("dciodvfy"), path], capture_output=True, text=True, check=False)
    assert "Error" not in answer.stderr, answer.stderr


@pytest.mark.parametrize(
    ("write", "keyword", "value"),
    [
        (write_localizer, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        (write_monochrome1, "PhotometricInterpretation", "MONOCHROME1"),
        (write_secondary_capture, "BitsAllocated", 8),
        (write_colour, "PhotometricInterpretation", "RGB"),
        (write_dose_report, "Modality", "SR"),
    ],
)
def test_each_neighbour_is_what_it_is_called(
    write: Callable[[Path], Path], keyword: str, value: object, tmp_path: Path
) -> None:
    assert pydicom.dcmread(write(tmp_path / "object.dcm"))[keyword].value == value


def test_neighbours_with_pixels_can_be_decoded_and_the_dose_report_has_none(tmp_path: Path) -> None:
    for write in (write_localizer, write_monochrome1, write_secondary_capture, write_colour):
        assert pydicom.dcmread(write(tmp_path / "object.dcm")).pixel_array.size
    assert "PixelData" not in pydicom.dcmread(write_dose_report(tmp_path / "object.dcm"))


def test_a_slice_without_rescale_lacks_it(tmp_path: Path) -> None:
    assert "RescaleIntercept" not in pydicom.dcmread(write_without_rescale(tmp_path / "object.dcm"))
