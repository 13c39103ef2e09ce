"""Augmentation: spatial changes apply to the mask too, intensity changes do not, and zero changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemoscope.inference.preprocess import AIR
from hemoscope.training.augment import AugmentConfig, intensity_augmentation, spatial_augmentation

NOTHING = AugmentConfig(flip=0, rotation=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
SIZE = 64


@pytest.fixture
def head() -> NDArray[np.float32]:
    """A stack of one slice with a block of tissue off the middle, read-only."""
    image = np.full((1, SIZE, SIZE), AIR, dtype=np.float32)
    image[0, 16:44, 12:40] = 35
    image.flags.writeable = False
    return image


@pytest.fixture
def mask() -> NDArray[np.float32]:
    """A lesion within the block, read-only."""
    shape = np.zeros((SIZE, SIZE), dtype=np.float32)
    shape[20:32, 16:28] = 1
    shape.flags.writeable = False
    return shape


def only(**changes: float) -> AugmentConfig:
    plain = dict.fromkeys(AugmentConfig.__slots__, 0.0)
    return AugmentConfig(**{**plain, **changes})


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 5]))
def test_zeroes_change_nothing_to_the_last_bit(seed: int, slices: int) -> None:
    random = np.random.default_rng(seed)
    image = random.normal(30, 300, (slices, SIZE, SIZE)).astype(np.float32)
    mask = (random.random((SIZE, SIZE)) < 0.2).astype(np.float32)
    moved, moved_mask = spatial_augmentation(image, mask, NOTHING, random)
    assert np.array_equal(moved, image)
    assert np.array_equal(moved_mask, mask)
    assert np.array_equal(intensity_augmentation(image, NOTHING, random), image)


@given(st.integers(0, 10_000))
def test_all_slices_of_a_stack_are_moved_and_recalibrated_alike(seed: int) -> None:
    """And noise alone is drawn for each of them."""
    slice_ = np.random.default_rng(seed).normal(30, 50, (1, SIZE, SIZE)).astype(np.float32)
    mask = (slice_[0] > 60).astype(np.float32)
    stack = np.repeat(slice_, 3, axis=0)
    alone = spatial_augmentation(slice_, mask, AugmentConfig(), np.random.default_rng(seed))
    together = spatial_augmentation(stack, mask, AugmentConfig(), np.random.default_rng(seed))
    assert np.array_equal(together[0], np.repeat(alone[0], 3, axis=0))
    assert np.array_equal(together[1], alone[1])
    quiet = intensity_augmentation(stack, only(gain=0.05, offset=4, blur=1), np.random.default_rng(seed))
    assert np.array_equal(quiet, np.repeat(quiet[:1], 3, axis=0))
    noisy = intensity_augmentation(stack, only(noise=8), np.random.default_rng(seed))
    changed = not np.array_equal(noisy, stack)
    assert changed == (not np.array_equal(noisy[0], noisy[1]))


def test_the_mirror_swaps_left_and_right_of_both(head: NDArray[np.float32], mask: NDArray[np.float32]) -> None:
    moved, moved_mask = spatial_augmentation(head, mask, only(flip=1), np.random.default_rng(1))
    assert np.allclose(moved, head[:, :, ::-1], atol=0.05)
    assert np.allclose(moved_mask, mask[:, ::-1], atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_lesion_and_its_mask_move_together(seed: int, head: NDArray[np.float32], mask: NDArray[np.float32]) -> None:
    bleeding = head + 400 * mask
    moved, moved_mask = spatial_augmentation(bleeding, mask, AugmentConfig(), np.random.default_rng(seed))
    assert moved.dtype == np.float32
    assert moved_mask.sum() > 40
    assert ((moved[0] > 235) == (moved_mask > 0.5)).mean() > 0.98


def test_air_comes_in_from_outside() -> None:
    full = np.full((1, SIZE, SIZE), 35, dtype=np.float32)
    away = spatial_augmentation(full, np.zeros_like(full[0]), only(shift=0.4), np.random.default_rng(0))[0]
    assert away.min() == AIR
    assert away.max() == pytest.approx(35, abs=0.1)


def test_rotation_turns_about_the_middle_and_keeps_the_area(head: NDArray[np.float32]) -> None:
    tissue = (head > 0).sum()
    for seed in range(6):
        moved = spatial_augmentation(head, np.zeros_like(head[0]), only(rotation=30), np.random.default_rng(seed))[0]
        assert (moved > -482).sum() == pytest.approx(tissue, rel=0.05)
        assert abs(moved - head).max() > 100


def test_scale_changes_the_area_both_ways(head: NDArray[np.float32]) -> None:
    areas = [
        int(
            (
                spatial_augmentation(head, np.zeros_like(head[0]), only(scale=0.3), np.random.default_rng(seed))[0]
                > -482
            ).sum()
        )
        for seed in range(12)
    ]
    assert min(areas) < 0.9 * (head > 0).sum()
    assert max(areas) > 1.1 * (head > 0).sum()


def test_gain_and_offset_change_the_calibration_within_their_bounds(head: NDArray[np.float32]) -> None:
    for seed in range(20):
        changed = intensity_augmentation(head, only(gain=0.05, offset=4), np.random.default_rng(seed))
        tissue = changed[head > 0]
        assert np.ptp(tissue) == 0
        assert 35 * 0.95 - 4 <= tissue[0] <= 35 * 1.05 + 4


def test_noise_is_drawn_in_seven_of_ten_and_stays_bounded(head: NDArray[np.float32]) -> None:
    spread = [
        float(intensity_augmentation(head, only(noise=8), np.random.default_rng(seed))[head > 0].std())
        for seed in range(60)
    ]
    assert 0.5 < np.mean(np.array(spread) > 0) < 0.9
    assert max(spread) < 10


def test_blur_softens_edges(head: NDArray[np.float32]) -> None:
    soft = intensity_augmentation(head, only(blur=1), np.random.default_rng(1))
    assert abs(np.diff(soft[0], axis=0)).max() < abs(np.diff(head[0], axis=0)).max()
    assert soft.dtype == np.float32


def test_the_same_random_numbers_give_the_same_slice(head: NDArray[np.float32], mask: NDArray[np.float32]) -> None:
    def augmented() -> NDArray[np.float32]:
        random = np.random.default_rng(9)
        return intensity_augmentation(
            spatial_augmentation(head, mask, AugmentConfig(), random)[0], AugmentConfig(), random
        )

    assert np.array_equal(augmented(), augmented())
