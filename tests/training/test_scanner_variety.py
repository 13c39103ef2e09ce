"""Scanner variety: what each setting changes, and that a recipe without it draws the same random numbers."""

from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import AIR
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.augment import AugmentConfig, intensity_augmentation, spatial_augmentation
from hemoscope.training.scanner_variety import lower_dose, other_kernel, thicker_slices, tilted

SIZE = 96
NEW = ("kernel", "dose", "thickness", "tilt", "field", "turn")
Stack = NDArray[np.float32]


@pytest.fixture(scope="module")
def head() -> Stack:
    """Three slices of a head, read-only."""
    stack = np.array(make_phantom(seed=3, shape=(3, SIZE, SIZE)).hounsfield, dtype=np.float32)
    stack.flags.writeable = False
    return stack


def only(**changes: float) -> AugmentConfig:
    return AugmentConfig(**{**{item.name: 0.0 for item in fields(AugmentConfig)}, **changes})


def augmented(stack: Stack, config: AugmentConfig, seed: int) -> tuple[Stack, float]:
    rng = np.random.default_rng(seed)
    moved, _ = spatial_augmentation(stack, np.zeros_like(stack[0]), config, rng)
    return intensity_augmentation(moved, config, rng), float(rng.random())


def test_the_default_recipe_has_no_scanner_variety() -> None:
    assert {getattr(AugmentConfig(), name) for name in NEW} == {0.0}


@pytest.mark.parametrize("name", NEW)
def test_every_setting_changes_samples_and_off_it_draws_nothing(head: Stack, name: str) -> None:
    """The random number after the augmentation tells how many were drawn."""
    plain, after = augmented(head, AugmentConfig(), 5)
    assert augmented(head, AugmentConfig(**{name: 0.0}), 5)[1] == after
    strong = {"dose": 20.0, "tilt": 0.5, "field": 0.3}
    changed, _ = augmented(head, AugmentConfig(**{name: strong.get(name, 1.0)}), 5)
    assert changed.shape == plain.shape
    assert changed.dtype == np.float32
    assert not np.allclose(changed, plain, atol=0.5)


def roughness(stack: Stack) -> float:
    """Mean absolute difference from pixel to pixel, edges included."""
    return float(np.abs(np.diff(stack, axis=-1)).mean())


def test_kernels_are_smoother_and_sharper_and_keep_the_mean(head: Stack) -> None:
    changed = [other_kernel(head, np.random.default_rng(seed)) for seed in range(40)]
    ratios = [roughness(one) / roughness(head) for one in changed]
    assert min(ratios) < 0.9
    assert max(ratios) > 1.1
    for one in changed:
        assert one.min() >= -1024
        assert one.max() <= 3071
        inner = ndimage.binary_erosion((head[1] > 0) & (head[1] < 80), iterations=6)
        assert one[1][inner].mean() == pytest.approx(head[1][inner].mean(), abs=2)


def test_noise_of_a_low_dose_is_correlated_and_its_own_in_each_slice() -> None:
    flat = np.full((3, SIZE, SIZE), 35, dtype=np.float32)
    noise = lower_dose(flat, 20, np.random.default_rng(1)) - flat
    beside = np.corrcoef(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())[0, 1]
    assert beside > 0.3
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    assert abs(noise.mean()) < 0.2 * noise.std()
    levels = [lower_dose(flat, 20, np.random.default_rng(seed)).std() for seed in range(40)]
    assert max(levels) <= 20.5
    assert min(levels) < 5


def test_noise_grows_with_the_bone_of_a_slice() -> None:
    stack = np.full((2, SIZE, SIZE), 35, dtype=np.float32)
    stack[1, : SIZE // 2] = 900
    noise = lower_dose(stack, 20, np.random.default_rng(3)) - stack
    assert noise[1].std() == pytest.approx(2.5 * noise[0].std(), rel=0.1)


def test_thick_slices_are_means_over_neighbours_and_less_noisy() -> None:
    noisy = np.random.default_rng(0).normal(35, 10, (5, SIZE, SIZE)).astype(np.float32)
    thick = thicker_slices(noisy, np.random.default_rng(1))
    assert thick[2].std() < 0.95 * noisy[2].std()
    assert thick.mean() == pytest.approx(noisy.mean(), abs=0.2)
    same = np.repeat(noisy[:1], 3, axis=0)
    assert np.allclose(thicker_slices(same, np.random.default_rng(1)), same, atol=1e-3)


def test_a_tilt_moves_front_and_back_in_opposite_directions_and_keeps_the_middle_row() -> None:
    ramp = np.broadcast_to(np.arange(3, dtype=np.float32)[:, None, None] * 100, (3, 65, 65))
    moved = tilted(ramp, 0.5, np.random.default_rng(2))[1] - 100
    assert moved[32] == pytest.approx(0, abs=1e-3)
    assert moved[0, 0] == pytest.approx(-moved[-1, 0], abs=1e-3)
    assert 0 < abs(moved[0, 0]) <= 50


@pytest.mark.parametrize("change", [thicker_slices, lambda stack, rng: tilted(stack, 0.5, rng)])
def test_a_single_slice_has_no_neighbours_to_mix_with(head: Stack, change: object) -> None:
    assert callable(change)
    assert np.array_equal(change(head[:1], np.random.default_rng(0)), head[:1])


def test_another_field_of_view_changes_the_size_of_the_head(head: Stack) -> None:
    def areas(config: AugmentConfig) -> list[int]:
        mask = np.zeros_like(head[0])
        moved = (spatial_augmentation(head, mask, config, np.random.default_rng(seed))[0] for seed in range(12))
        return [int((one[1] > AIR / 2).sum()) for one in moved]

    area = int((head[1] > AIR / 2).sum())
    found = areas(only(field=0.2))
    assert min(found) < 0.9 * area
    assert max(areas(only(field=0.2))) > 1.02 * area


def test_a_turned_head_takes_its_mask_along(head: Stack) -> None:
    mask = (ndimage.gaussian_filter(head[1], 2) > 300).astype(np.float32)
    moved, moved_mask = spatial_augmentation(head, mask, only(turn=1), np.random.default_rng(4))
    bone = ndimage.gaussian_filter(moved[1], 2) > 300
    assert (bone == (moved_mask > 0.5)).mean() > 0.95
    assert np.abs(moved - head).max() > 500


@pytest.mark.parametrize(
    ("name", "value", "most"), [("kernel", 1.1, "1"), ("dose", -1, "100"), ("tilt", 0.6, "0.5"), ("turn", 2, "1")]
)
def test_a_variety_that_cannot_be_is_refused(name: str, value: float, most: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be 0 to {most}"):
        AugmentConfig(**{name: value})
