"""What lies beside the head becomes air; the head does not change: no scalp, no ear, nothing inside the skull."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemoscope.inference.head_mask import blocks, kept_pixels
from hemoscope.inference.preprocess import AIR, Preprocessing, cropped, model_input, slice_box, square_pixels
from hemoscope.labels import SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

SIDE = 256
Image = NDArray[np.int16]
AIRED, KEPT = (Preprocessing(size=128, outside=word) for word in ("air", "kept"))


def heads(seed: int = 1, side: int = SIDE, **options: object) -> Image:
    """Three slices of a head."""
    return np.array(make_phantom(seed=seed, shape=(3, side, side), **options).hounsfield)  # type: ignore[arg-type]


def volume_of(hounsfield: Image, spacing_mm: tuple[float | None, ...] = (5.0, 0.9, 0.9)) -> HounsfieldVolume:
    positions = tuple(5.0 * index for index in range(len(hounsfield)))
    return HounsfieldVolume(
        hounsfield=hounsfield.copy(),
        spacing_mm=spacing_mm,  # type: ignore[arg-type]
        positions_mm=positions,
        orientation=None,
    )


def kept(volume: HounsfieldVolume, index: int = 1) -> NDArray[np.bool_]:
    mask = kept_pixels(volume, index, 5.0, partial(square_pixels, volume=volume))
    assert mask is not None
    return mask


def aired(volume: HounsfieldVolume) -> HounsfieldVolume:
    masks = np.stack([kept(volume, index) for index in range(len(volume))])
    return replace(volume, hounsfield=np.where(masks, volume.hounsfield, np.int16(AIR)))


def disk(row: float, column: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.indices((SIDE, SIDE))
    return np.asarray(np.hypot(rows - row, columns - column) < radius)


def edge(hounsfield: Image) -> tuple[int, int]:
    """Row and column of the scalp's right edge in the middle row of a slice."""
    row = SIDE // 2
    return row, int(np.flatnonzero(hounsfield[row] > -150).max())


def with_finger(gap: float, slices: slice = slice(None)) -> tuple[Image, NDArray[np.bool_]]:
    """A head and a finger of 20 pixels so far from the scalp (0: it touches), with a bone in it."""
    head = heads()
    row, column = edge(head[1])
    finger = disk(row, column + gap + 10, 10)
    head[slices, finger] = 40
    head[slices, disk(row, column + gap + 10, 5)] = 700
    return head, finger


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.sets(st.sampled_from(SUBTYPES)))
def test_no_pixel_of_the_head_changes(seed: int, table: bool, bleeds: set[str]) -> None:
    bare = heads(seed, bleeds=frozenset(bleeds))
    volume = volume_of(heads(seed, bleeds=frozenset(bleeds), table=table))
    changed = aired(volume).hounsfield != volume.hounsfield
    assert not (changed & (bare > -300)).any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([240, 250, 256]))
def test_the_mirror_commutes_and_a_second_pass_changes_nothing(seed: int, side: int) -> None:
    volume = volume_of(heads(seed, side, table=True))
    once = aired(volume)
    assert np.array_equal(aired(once).hounsfield, once.hounsfield)
    mirrored = aired(replace(volume, hounsfield=volume.hounsfield[:, :, ::-1]))
    assert np.array_equal(mirrored.hounsfield[:, :, ::-1], once.hounsfield)


def test_a_finger_beside_the_head_becomes_air_and_the_crop_is_that_of_the_head_alone() -> None:
    hounsfield, finger = with_finger(gap=14)
    volume, alone = volume_of(hounsfield), volume_of(heads())
    assert not kept(volume)[finger].any()
    assert slice_box(volume, 1, AIRED) == slice_box(alone, 1, AIRED)
    assert np.array_equal(model_input(volume, 1, AIRED), model_input(alone, 1, AIRED))
    assert not np.array_equal(model_input(volume, 1, KEPT), model_input(alone, 1, KEPT))


def test_a_finger_that_touches_the_scalp_is_separated_from_it() -> None:
    hounsfield, finger = with_finger(gap=0)
    shown = kept(volume_of(hounsfield))
    assert not shown[disk(SIDE // 2, np.nonzero(finger)[1].max() - 5, 5)].any()
    assert shown[(heads()[1] > -150) & ~finger].all()


def test_a_nose_or_an_ear_without_bone_is_kept_where_it_touches() -> None:
    hounsfield, finger = with_finger(gap=0)
    hounsfield[:, finger & (hounsfield[1] > 300)] = 40
    assert kept(volume_of(hounsfield))[finger].all()


def test_the_tip_of_an_ear_is_kept_where_it_meets_the_head_in_an_adjacent_slice() -> None:
    hounsfield = heads()
    row, column = edge(hounsfield[1])
    tip = disk(row, column + 16, 5)
    hounsfield[1, tip] = 20
    assert not kept(volume_of(hounsfield))[tip].any()
    rows, columns = np.indices((SIDE, SIDE))
    ear = (np.abs(rows - row) < 6) & (columns > column - 4) & (columns < column + 21)
    hounsfield[0, ear] = 20
    assert kept(volume_of(hounsfield))[tip].all()


def test_a_head_that_the_field_of_view_cuts_and_an_open_skull_are_kept_whole() -> None:
    cut = heads()[:, :, 60:]
    assert kept(volume_of(cut))[cut[1] > -150].all()
    opened = heads()
    row, column = edge(opened[1])
    window = disk(row, column, 30) & (opened[1] > 200)
    opened[:, window] = 40  # a craniectomy
    assert kept(volume_of(opened))[opened[1] > -150].all()


def test_noise_costs_no_pixel_of_the_head() -> None:
    clean = heads()
    noisy = (clean + np.random.default_rng(0).normal(0, 60, clean.shape)).astype(np.int16)
    assert kept(volume_of(noisy))[clean[1] > -150].all()


def test_halves_of_a_head_that_metal_cut_apart_are_kept_if_no_slice_beside_it_tells() -> None:
    hounsfield = heads()[1:2]
    hounsfield[:, :, 122:134] = AIR
    assert kept(volume_of(hounsfield), 0)[hounsfield[0] > -150].all()


def test_without_a_head_nothing_becomes_air() -> None:
    hounsfield = np.full((3, 64, 64), AIR, dtype=np.int16)
    hounsfield[:, 2:5, 2:5] = 40
    volume = volume_of(hounsfield)
    assert kept_pixels(volume, 1, 5.0, partial(square_pixels, volume=volume)) is None
    assert np.array_equal(model_input(volume, 1, AIRED), model_input(volume, 1, KEPT))


def test_pixels_that_are_not_square_and_thin_slices_keep_their_head() -> None:
    tall = volume_of(heads()[:, ::2], spacing_mm=(5.0, 1.8, 0.9))
    square = square_pixels(tall.hounsfield[1], tall)
    assert kept(tall).shape == square.shape
    assert kept(tall)[square > -150].all()
    thin = heads().repeat(4, axis=0)
    volume = replace(
        volume_of(thin, spacing_mm=(1.25, 0.9, 0.9)), positions_mm=tuple(1.25 * index for index in range(len(thin)))
    )
    box = slice_box(volume, 5, AIRED)
    assert box == slice_box(volume, 5, KEPT)
    difference = np.abs(cropped(volume, 5, box, AIRED) - cropped(volume, 5, box, KEPT))
    assert difference[cropped(volume, 5, box, KEPT) > -150].max() == 0


@pytest.mark.parametrize("side", [8, 10, 12, 14])
def test_blocks_count_the_pixels_of_four_by_four(side: int) -> None:
    chosen = np.random.default_rng(side).random((side, side)) < 0.5
    found = blocks(chosen, 8)
    assert found.shape == (-(-side // 4),) * 2
    assert np.array_equal(blocks(chosen[:, ::-1], 8)[:, ::-1], found)
    if side % 4 == 0:
        counts = chosen.reshape(side // 4, 4, side // 4, 4).sum(axis=(1, 3))
        assert np.array_equal(found, counts >= 8)
