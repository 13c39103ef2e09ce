"""A volume without DICOM headers is read as one file of many frames, with UIDs of its own."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import UID

from hemoscope.dicom.series_from_volume import series_of_volume
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume


@pytest.fixture
def volume() -> HounsfieldVolume:
    return make_phantom(seed=2, shape=(24, 48, 48)).volume


def codes(volume: HounsfieldVolume) -> list[str]:
    return [note.code for note in series_of_volume(volume).quality]


def test_each_slice_is_a_frame_of_one_file(volume: HounsfieldVolume) -> None:
    series = series_of_volume(volume, source="head.nii")
    assert series.volume is volume
    assert [header.frame for header in series.slices] == list(range(24))
    assert {header.source for header in series.slices} == {"head.nii"}
    assert len({header.sop_instance_uid for header in series.slices}) == 1
    assert [header.position_mm for header in series.slices] == list(volume.origins_mm or ())


def test_uids_are_valid_and_follow_from_voxels_and_places(volume: HounsfieldVolume) -> None:
    def uids(one: HounsfieldVolume) -> set[str]:
        first = series_of_volume(one).slices[0]
        return {first.study_instance_uid, first.series_instance_uid, first.sop_instance_uid}

    assert len(uids(volume)) == 3
    assert all(UID(uid).is_valid for uid in uids(volume))
    assert uids(replace(volume, hounsfield=volume.hounsfield.copy())) == uids(volume)
    changed = volume.hounsfield.copy()
    changed[0, 0, 0] += 1
    assert not uids(replace(volume, hounsfield=changed)) & uids(volume)
    assert not uids(replace(volume, spacing_mm=(4.0, 1.0, 1.0))) & uids(volume)


def test_a_whole_head_is_noted_for_its_missing_headers_alone(volume: HounsfieldVolume) -> None:
    assert codes(volume) == ["no_dicom_headers"]


def test_geometry_is_noted_as_that_of_a_series(volume: HounsfieldVolume) -> None:
    tilted = replace(volume, orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(0.2)), float(-np.sin(0.2))))
    assert "gantry_tilt" in codes(tilted)
    few = replace(volume, hounsfield=volume.hounsfield[:3], positions_mm=volume.positions_mm[:3], origins_mm=None)
    assert "few_slices" in codes(few)
    assert series_of_volume(few).slices[1].position_mm == pytest.approx((0.0, 0.0, volume.positions_mm[1]))


def test_an_unknown_place_stays_unknown(volume: HounsfieldVolume) -> None:
    unknown = replace(
        volume, spacing_mm=(None, None, None), positions_mm=(None,) * 24, orientation=None, origins_mm=None
    )
    (header, *_) = series_of_volume(unknown).slices
    assert (header.position_mm, header.orientation, header.pixel_spacing_mm) == (None, None, None)
    assert "positions_unknown" in codes(unknown)
