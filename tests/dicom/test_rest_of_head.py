"""Halves of one head in two series: the study says that another series shows the rest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.readable_series import read_best_series
from hemoscope.dicom.rest_of_head import rest_in_other_series
from hemoscope.dicom.series import Study, build_studies
from hemoscope.dicom.slices import SliceHeader
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Make = Callable[..., SliceHeader]


def study_of(make: Make, low: np.ndarray, high: np.ndarray, **changes: object) -> Study:
    """Two series of one scan; ``changes`` are those of the lower one."""
    shared = {"frame_of_reference_uid": "1.9", "image_type": ("ORIGINAL", "PRIMARY", "AXIAL")}
    headers = [
        make(float(z), **{**shared, "sop_instance_uid": f"1.{uid}.{index}", "series_instance_uid": f"1.2.{uid}", **own})
        for uid, places, own in ((3, low, changes), (4, high, {}))
        for index, z in enumerate(places)
    ]
    (study,) = build_studies(headers)
    return study


def counted(study: Study) -> list[tuple[str, int]]:
    chosen = next(series for series in study.series if series.series_instance_uid == "1.2.4")
    return [(one.code, one.count) for one in rest_in_other_series(study, chosen)]


LOW, HIGH = np.arange(0, 50, 5.0), np.arange(50, 160, 5.0)


def test_the_other_half_is_counted(make_header: Make) -> None:
    assert counted(study_of(make_header, LOW, HIGH)) == [("other_series", 10)]


def test_so_is_another_tilt_or_thickness(make_header: Make) -> None:
    cosine, sine = np.cos(np.deg2rad(15)), np.sin(np.deg2rad(15))
    tilted = {"orientation": (1.0, 0.0, 0.0, 0.0, float(cosine), -float(sine))}
    assert counted(study_of(make_header, LOW, HIGH, **tilted)) == [("other_series", 10)]
    thin = {"slice_thickness_mm": 2.5}
    assert counted(study_of(make_header, np.arange(0, 47, 2.5), HIGH, **thin)) == [("other_series", 19)]


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_of_reference_uid": "1.8"},
        {"frame_of_reference_uid": None},
        {"convolution_kernel": "H60s"},
        {"image_type": ("DERIVED", "SECONDARY", "AXIAL")},
        {"contrast_agent": "IOMERON"},
        {"body_part": "CSPINE"},
    ],
)
def test_another_scan_is_not(make_header: Make, changes: dict[str, object]) -> None:
    assert counted(study_of(make_header, LOW, HIGH, **changes)) == []


def test_neither_is_a_spine_a_distant_stack_or_what_the_series_shows_itself(make_header: Make) -> None:
    spine = np.arange(-200, 50, 5.0)
    assert counted(study_of(make_header, spine, HIGH)) == []
    assert counted(study_of(make_header, LOW - 60, HIGH)) == []
    assert counted(study_of(make_header, HIGH + 1, HIGH)) == []
    assert counted(study_of(make_header, np.arange(50, 170, 2.5), HIGH)) == []


def test_the_study_is_incomplete_and_says_why(tmp_path: Path) -> None:
    head = make_phantom(seed=5, shape=(32, 64, 64)).hounsfield
    for number, part, low in ((1, head[:10], 0.0), (2, head[10:], 50.0)):
        acquisition = Acquisition(series_number=number, origin_mm=(-77.0, -77.0, low))
        write_series(part, tmp_path / str(number), spacing_mm=(5.0, 2.4, 2.4), acquisition=acquisition)
    for path in tmp_path.rglob("*.dcm"):
        dataset = dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(path)
    archive = open_archive(tmp_path)
    (study,) = archive.studies
    found = read_best_series(archive, study)
    assert found.decoded is not None
    assert len(found.decoded.slices) == 22
    ((code, count, message),) = [(one.code, one.count, one.message) for one in found.decoded.unread]
    assert (code, count) == ("other_series", 10)
    assert message == "another series of 10 slices shows a part of the head that this one does not"
