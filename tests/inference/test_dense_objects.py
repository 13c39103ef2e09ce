"""Small objects denser than blood become what is around them; blood and the skull stay."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hemoscope.inference.dense_objects import without_dense_objects
from hemoscope.inference.preprocess import Preprocessing, cropped, slice_box
from hemoscope.volume import HounsfieldVolume

SIDE = 256
BRAIN, BONE, AIR = 30.0, 900.0, -1000.0


def disk(row: float, column: float, radius: float) -> NDArray[np.bool_]:
    """Pixels within a radius."""
    rows, columns = np.ogrid[:SIDE, :SIDE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def head(*, noise: float = 0.0) -> NDArray[np.float32]:
    """A round head of brain in a skull, in air."""
    slice_ = np.full((SIDE, SIDE), AIR, dtype=np.float32)
    slice_[disk(128, 128, 110)] = BONE
    inside = disk(128, 128, 100)
    slice_[inside] = BRAIN + noise * np.random.default_rng(0).standard_normal(int(inside.sum()))
    return slice_


def test_calcium_and_its_edge_become_the_brain_around_it() -> None:
    slice_ = head(noise=4)
    slice_[disk(120, 150, 5)] = 75  # calcium mixed with brain: as dense as blood
    slice_[disk(120, 150, 3)] = 300
    found = without_dense_objects(slice_)
    changed = disk(120, 150, 5)
    assert np.all(np.abs(found[changed] - BRAIN) < 15)
    assert np.array_equal(found[~disk(120, 150, 8)], slice_[~disk(120, 150, 8)])
    assert slice_[120, 150] == 300, "the input is not written to"


@pytest.mark.parametrize(("radius", "hounsfield"), [(4, 70), (20, 75), (30, 95)])
def test_blood_stays_even_where_noise_brings_it_above_100(radius: float, hounsfield: float) -> None:
    slice_ = head(noise=4)
    bleed = disk(110, 140, radius)
    slice_[bleed] = hounsfield + 8 * np.random.default_rng(1).standard_normal(int(bleed.sum()))
    slice_[110, 140] = 115
    assert np.array_equal(without_dense_objects(slice_), slice_)


def test_calcium_in_a_bleed_becomes_blood() -> None:
    slice_ = head()
    slice_[disk(110, 140, 25)] = 70
    slice_[disk(110, 140, 2)] = 300
    found = without_dense_objects(slice_)
    assert np.all(found[disk(110, 140, 25)] == 70)


def test_what_touches_the_skull_stays() -> None:
    slice_ = head()
    slice_[disk(128, 31, 5)] = 300  # a plaque on the inner table
    assert np.array_equal(without_dense_objects(slice_), slice_)


def test_what_lies_beside_the_head_stays() -> None:
    slice_ = head()
    slice_[disk(20, 20, 4)] = 300
    assert np.array_equal(without_dense_objects(slice_), slice_)


def test_a_gap_in_the_skull_does_not_matter() -> None:
    slice_ = head()
    slice_[100:106, 15:30] = BRAIN  # a fracture
    slice_[disk(128, 128, 3)] = 300
    assert np.all(without_dense_objects(slice_)[disk(128, 128, 3)] == BRAIN)


def test_large_objects_stay() -> None:
    slice_ = head()
    slice_[disk(128, 128, 20)] = 300
    assert np.array_equal(without_dense_objects(slice_), slice_)


def test_a_slice_without_a_skull_stays() -> None:
    slice_ = np.full((SIDE, SIDE), BRAIN, dtype=np.float32)
    slice_[disk(128, 128, 3)] = 300
    assert np.array_equal(without_dense_objects(slice_), slice_)


def test_a_mirrored_head_gives_the_mirrored_result() -> None:
    slice_ = head(noise=4)
    for row, column in ((60, 90), (128, 128), (190, 170), (120, 36)):
        slice_[disk(row, column, 3.5)] = 250
    assert np.array_equal(without_dense_objects(slice_[:, ::-1].copy())[:, ::-1], without_dense_objects(slice_))


@pytest.mark.parametrize(("setting", "hounsfield"), [("kept", 300), ("replaced", BRAIN)])
def test_the_setting_decides(setting: str, hounsfield: float) -> None:
    slice_ = head()
    slice_[disk(128, 128, 4)] = 300
    volume = HounsfieldVolume(
        hounsfield=slice_[None].astype(np.int16), spacing_mm=(5.0, 0.8, 0.8), positions_mm=(None,), orientation=None
    )
    settings = Preprocessing.from_json({**Preprocessing().to_json(), "dense_objects": setting})
    seen = cropped(volume, 0, slice_box(volume, 0, settings), settings)
    assert seen[120:136, 120:136].max() == pytest.approx(hounsfield, abs=30)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="dense_objects must be one of kept, replaced, got gone"):
        Preprocessing.from_json({**Preprocessing().to_json(), "dense_objects": "gone"})
