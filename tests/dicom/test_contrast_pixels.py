"""Contrast agent in the pixels: a bright sagittal sinus is noted however the slices are stored, blood is not."""

from dataclasses import replace

import numpy as np
import pytest

from hemoscope.dicom.contrast_pixels import BRIGHT, sinus_hounsfield
from hemoscope.dicom.plausibility import check_plausible
from hemoscope.labels import Hemorrhage
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

SUPINE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def volume_of(
    values: np.ndarray, orientation: tuple | None = SUPINE, spacing: tuple = (5.0, 1.8, 1.8)
) -> HounsfieldVolume:
    return HounsfieldVolume(
        hounsfield=np.ascontiguousarray(values, dtype=np.int16),
        spacing_mm=spacing,
        positions_mm=tuple(5.0 * index for index in range(len(values))),
        orientation=orientation,
    )


def with_sinus(plain: np.ndarray, level: int) -> np.ndarray:
    """A wedge at the midline inside the back of the skull, 9 mm wide and 14 mm deep."""
    filled = plain.copy()
    for one in filled:
        columns = np.flatnonzero((one > 300).any(0))
        if columns.size > 30:
            middle = (columns[0] + columns[-1]) // 2
            back = np.flatnonzero(one[: np.flatnonzero(one[:, middle] > 300)[-1], middle] < 300)[-1]
            one[back - 7 : back + 1, middle - 2 : middle + 3] = level
    return filled


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    return make_phantom(seed=1, shape=(24, 128, 128)).hounsfield


def codes(volume: HounsfieldVolume, header) -> list[str]:
    return [note.code for note in check_plausible(volume, [header])]


def test_a_bright_sinus_is_noted(plain: np.ndarray, make_header) -> None:
    assert codes(volume_of(with_sinus(plain, 140)), make_header()) == ["contrast_suspected"]


def test_blood_in_the_sinus_without_contrast_is_not(plain: np.ndarray, make_header) -> None:
    assert codes(volume_of(with_sinus(plain, 65)), make_header()) == []


def test_contrast_that_the_header_states_is_not_noted_twice(plain: np.ndarray, make_header) -> None:
    header = replace(make_header(), contrast_agent="ISOVUE")
    assert codes(volume_of(with_sinus(plain, 140)), header) == []


def test_nothing_is_suspected_in_noise_of_a_sharp_kernel_or_where_the_back_is_unknown(plain, make_header) -> None:
    bright = with_sinus(plain, 140)
    assert "contrast_suspected" not in codes(volume_of(bright), replace(make_header(), convolution_kernel="H70h"))
    assert codes(volume_of(bright, orientation=None), make_header()) == []


@pytest.mark.parametrize("bleed", list(Hemorrhage)[1:])
def test_no_bleed_looks_like_contrast(bleed: Hemorrhage) -> None:
    level = sinus_hounsfield(
        volume_of(make_phantom(bleeds=frozenset({bleed}), seed=2, shape=(24, 128, 128)).hounsfield)
    )
    assert level is not None
    assert level < BRIGHT


@pytest.mark.parametrize(
    ("stored", "orientation"),
    [
        (lambda v: v[:, ::-1, ::-1], (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)),
        (lambda v: v[:, :, ::-1], (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        (lambda v: v.swapaxes(1, 2), (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)),
        (lambda v: v[:, ::-1].swapaxes(1, 2), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)),
    ],
)
def test_the_storing_changes_nothing(plain: np.ndarray, stored, orientation: tuple) -> None:
    bright = with_sinus(plain, 140)
    assert sinus_hounsfield(volume_of(stored(bright), orientation)) == sinus_hounsfield(volume_of(bright))


def test_pixels_need_not_be_square(plain: np.ndarray) -> None:
    for level, is_bright in ((140, True), (65, False)):
        stretched = np.repeat(with_sinus(plain, level), 2, axis=2)
        found = sinus_hounsfield(volume_of(stretched, spacing=(5.0, 1.8, 0.9)))
        assert found is not None
        assert (found >= BRIGHT) is is_bright


def test_without_a_closed_skull_nothing_is_said(plain: np.ndarray) -> None:
    assert sinus_hounsfield(volume_of(np.full_like(plain, -1000))) is None
    assert sinus_hounsfield(volume_of(plain[10:12])) is None
