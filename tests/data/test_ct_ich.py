"""CT-ICH: Hounsfield units from two windowed 8-bit images per slice, compared with the HU of the images' source."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemoscope.data.ct_ich import BONE_JPEG, BRAIN_JPEG, read_hounsfield, read_mask, read_table
from hemoscope.errors import DataError
from hemoscope.inference.preprocess import AIR
from hemoscope.inference.windows import Window
from hemoscope.labels import Hemorrhage

SHAPE = (40, 40)


def grey_of(hounsfield: NDArray[np.float64], window: Window) -> NDArray[np.uint8]:
    return np.rint(window.apply(hounsfield.astype(np.float32)) * 255).astype(np.uint8)


def save(folder: Path, name: str, grey: NDArray[np.uint8]) -> Path:
    Image.fromarray(grey).save(folder / name)
    return folder / name


def read_made(folder: Path, hounsfield: NDArray[np.float64], *, image_id: str = "ctich_100_001") -> NDArray[np.int16]:
    """HU through the two windows into files, and back."""
    brain = save(folder, "brain.png", grey_of(hounsfield, BRAIN_JPEG))
    bone = save(folder, "bone.png", grey_of(hounsfield, BONE_JPEG))
    return read_hounsfield(brain, bone, image_id=image_id)


def test_soft_tissue_comes_from_the_brain_window_within_its_step(tmp_path: Path) -> None:
    hounsfield = np.random.default_rng(1).uniform(-17, 96, SHAPE)
    found = read_made(tmp_path, hounsfield)
    assert found.dtype == np.int16
    assert abs(found - hounsfield).max() <= 1.0  # half a step of 0.47, dither of as much, whole HU
    assert abs((found - hounsfield).mean()) < 0.05


def test_bone_comes_from_the_bone_window_within_its_step(tmp_path: Path) -> None:
    hounsfield = np.random.default_rng(2).uniform(110, 2200, SHAPE)
    found = read_made(tmp_path, hounsfield)
    assert abs(found - hounsfield).max() <= 13.1
    assert abs((found - hounsfield).mean()) < 1


def test_fat_below_the_brain_window_comes_from_the_bone_window(tmp_path: Path) -> None:
    found = read_made(tmp_path, np.full(SHAPE, -100.0))
    assert abs(found + 100).max() <= 13.1


def test_dither_hides_the_steps_of_the_bone_window(tmp_path: Path) -> None:
    found = read_made(tmp_path, np.linspace(300, 800, 1600).reshape(SHAPE))
    steps = BONE_JPEG.width / 255
    assert len(np.unique(found)) > 5 * 500 / steps


def test_dither_follows_from_the_image_id_alone(tmp_path: Path) -> None:
    hounsfield = np.full(SHAPE, 700.0)
    first, again = (read_made(tmp_path, hounsfield) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, read_made(tmp_path, hounsfield, image_id="ctich_100_002"))


def test_air_is_exactly_air(tmp_path: Path) -> None:
    assert (read_made(tmp_path, np.full(SHAPE, -1000.0)) == AIR).all()


def test_what_saturates_the_bone_window_stays_at_its_top(tmp_path: Path) -> None:
    found = read_made(tmp_path, np.full(SHAPE, 3000.0))
    assert abs(found - 2300).max() <= 7


def test_a_bone_image_that_disagrees_never_pulls_a_bright_place_into_the_brain_window(tmp_path: Path) -> None:
    """JPEG rings: a saturated brain pixel whose bone pixel reads low is still above the brain window."""
    brain = save(tmp_path, "brain.png", np.full(SHAPE, 255, dtype=np.uint8))
    bone = save(tmp_path, "bone.png", grey_of(np.full(SHAPE, 30.0), BONE_JPEG))
    assert (read_hounsfield(brain, bone, image_id="ctich_100_001") == 98).all()


def test_without_a_bone_image_values_stay_at_the_ends_of_the_brain_window(tmp_path: Path) -> None:
    hounsfield = np.concatenate([np.full((1, 40), -1000.0), np.full((1, 40), 35.0), np.full((1, 40), 900.0)])
    brain = save(tmp_path, "brain.png", grey_of(hounsfield, BRAIN_JPEG))
    found = read_hounsfield(brain, None, image_id="ctich_084_036")
    assert (found[0] == AIR).all()
    assert abs(found[1] - 35).max() <= 1
    assert (found[2] == 100).all()


def test_the_bone_images_of_patient_050_are_read_90_hu_higher(tmp_path: Path) -> None:
    brain = save(tmp_path, "brain.png", np.full(SHAPE, 255, dtype=np.uint8))
    bone = save(tmp_path, "bone.png", grey_of(np.full(SHAPE, 700.0), BONE_JPEG))
    usual, higher = (read_hounsfield(brain, bone, image_id=f"{patient}_001") for patient in ("ctich_051", "ctich_050"))
    assert usual.mean() == pytest.approx(700, abs=7)
    assert higher.mean() - usual.mean() == pytest.approx(90, abs=1)


def test_an_image_that_cannot_be_read_is_named_without_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "7.jpg"
    path.write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(DataError, match=r"^7\.jpg: not a readable image .*Restore the file"):
        read_hounsfield(path, None, image_id="ctich_100_007")
    with pytest.raises(DataError, match=r"^8\.jpg: not a readable image \(FileNotFoundError\)"):
        read_mask(tmp_path / "8.jpg")


def test_a_truncated_image_is_refused_and_not_filled_up(tmp_path: Path) -> None:
    whole = save(tmp_path, "whole.jpg", np.random.default_rng(3).integers(0, 255, SHAPE, dtype=np.uint8))
    part = tmp_path / "part.jpg"
    part.write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"part\.jpg: not a readable image"):
        read_hounsfield(part, None, image_id="ctich_100_001")


def test_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    brain = save(tmp_path, "brain.png", np.zeros((40, 40), dtype=np.uint8))
    bone = save(tmp_path, "bone.png", np.zeros((40, 41), dtype=np.uint8))
    with pytest.raises(DataError, match=r"bone\.png: bone image of \(40, 41\) pixels for a brain image of \(40, 40\)"):
        read_hounsfield(brain, bone, image_id="ctich_100_001")


def test_a_mask_is_where_the_outline_is_white_despite_jpeg(tmp_path: Path) -> None:
    outline = np.zeros(SHAPE, dtype=np.uint8)
    outline[8:24, 8:24] = 255
    assert np.array_equal(read_mask(save(tmp_path, "mask.jpg", outline)), outline > 0)


def test_the_table_gives_slices_by_patient_and_number_with_labels_in_order(
    tmp_path: Path, make_ct_ich: Callable[..., Path]
) -> None:
    bleeds = frozenset({Hemorrhage.SUBDURAL})
    make_ct_ich(tmp_path, {"b": bleeds, "a": frozenset()}, slices=11, size=32, without_bone=frozenset({"b_010"}))
    table = read_table(tmp_path)
    assert [(row.patient_id, row.number) for row in table] == [(p, n) for p in "ab" for n in range(1, 12)]
    assert table[0].labels == (0, 0, 0, 0, 0, 0)
    assert table[0].mask_file is None
    middle = table[11 + 5]
    assert middle.labels == (1, 0, 0, 0, 0, 1)
    assert middle.mask_file == "patients/b/brain/6_mask.png"
    assert [row.image_id for row in table if row.bone_file is None] == ["b_010"]


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv is not in the given folder"):
        read_table(tmp_path)


def test_a_table_without_a_column_is_refused_by_the_columns_name(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_id,patient_id,slice,brain_file,bone_file,any\n")
    with pytest.raises(DataError, match=r"lacks the columns mask_file, epidural, .*subdural"):
        read_table(tmp_path)


# One slice of the middle of the head each. Patient 050 is the one whose bone images are off.
REAL = ("ctich_066_022", "ctich_089_022", "ctich_127_020")
MENDED = "ctich_050_016"


@pytest.fixture(scope="module")
def real_folder(shared_data_dir: Path) -> Path:
    folder = shared_data_dir / "ct-ich"
    if not (folder / "labels.csv").is_file():
        pytest.skip("no CT-ICH here: put its folder as ct-ich into the folder of HEMOSCOPE_DATA")
    return folder


@pytest.mark.shared_data
def test_tissue_of_real_slices_measures_as_it_should(real_folder: Path) -> None:
    """Brain peaks at 30 to 41 HU, air is -1000, and the densest bone is cortical."""
    for row in (row for row in read_table(real_folder) if row.image_id in REAL):
        brain, bone = real_folder / row.brain_file, real_folder / str(row.bone_file)
        hounsfield = read_hounsfield(brain, bone, image_id=row.image_id)
        soft = hounsfield[(hounsfield > 5) & (hounsfield < 70)]
        assert 30 <= np.bincount(soft).argmax() <= 41
        assert np.median(hounsfield[:20, :20]) == AIR
        assert 1000 < np.quantile(hounsfield[hounsfield > 200], 0.95) < 2300


@pytest.mark.shared_data
def test_both_windows_of_real_slices_agree_where_both_see(real_folder: Path) -> None:
    """Well inside the brain window the bone image says the same within 2 HU; in patient 050 within 5, once mended."""
    for row in (row for row in read_table(real_folder) if row.image_id in (*REAL, MENDED)):
        brain, bone = (
            np.asarray(Image.open(real_folder / str(name)).convert("L"), dtype=np.float64)
            for name in (row.brain_file, row.bone_file)
        )
        inside = (brain > 60) & (brain < 200)
        level, most = (790.0, 5) if row.image_id == MENDED else (BONE_JPEG.center, 2)
        soft = BRAIN_JPEG.bounds[0] + brain[inside] * BRAIN_JPEG.width / 255
        hard = level - BONE_JPEG.width / 2 + bone[inside] * BONE_JPEG.width / 255
        assert abs(float(np.median(hard - soft))) < most
