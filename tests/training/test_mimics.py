"""Mimics: blood-like findings inside the skull, at their HU, on a copy, and with labels that stay as they were."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import AIR, Preprocessing, head_box, resized
from hemoscope.testing.phantom import make_phantom
from hemoscope.training import dataset as dataset_module
from hemoscope.training.anatomy import anatomy
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import load_crops
from hemoscope.training.dataset import Sample, SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.mimics import Mimic, add_mimic, mimic_in_stack

SIZE = 192
ARTEFACTS = {Mimic.MOTION, Mimic.NOISE}
CALCIUM = (Mimic.CHOROID, Mimic.PINEAL, Mimic.FALX_CALCIUM, Mimic.BASAL_GANGLIA)
Stack = NDArray[np.float32]


def cropped(hounsfield: NDArray[np.int16]) -> NDArray[np.float32]:
    middle = hounsfield[len(hounsfield) // 2]
    return np.stack([resized(image, head_box(middle, margin=0.06), SIZE) for image in hounsfield])


@pytest.fixture(scope="module")
def head() -> Stack:
    """Three slices through the ventricles, read-only."""
    stack = cropped(make_phantom(seed=4, shape=(9, 256, 256)).hounsfield[4:7])
    stack.flags.writeable = False
    return stack


@pytest.fixture(scope="module")
def base(head: Stack) -> Stack:
    """The same with air and bone of a face in front of the brain, as a slice through the orbits has."""
    stack = np.full_like(head, AIR)
    for i, image in enumerate(head):
        small = ndimage.zoom(image, 0.72, order=1)
        left = (SIZE - small.shape[1]) // 2
        stack[i, SIZE - small.shape[0] :, left : left + small.shape[1]] = small
    rows, columns = np.indices(head.shape[1:])
    face = (np.abs(columns - SIZE / 2) < 35) & (rows > 10) & (rows < SIZE // 3)
    stack[:, face & (stack[1] < -200)] = 40
    stack.flags.writeable = False
    return stack


def drawn(head: Stack, base: Stack, kind: Mimic, seed: int) -> tuple[Stack, Stack | None]:
    stack = base if kind is Mimic.BEAM_HARDENING else head
    return stack, add_mimic(stack, kind, np.random.default_rng(seed))


def test_the_phantoms_base_and_middle_are_told_apart(head: Stack, base: Stack) -> None:
    middle, low = anatomy(head[1]), anatomy(base[1])
    assert middle is not None
    assert low is not None
    assert not middle.at_base
    assert low.at_base


@pytest.mark.parametrize("kind", Mimic)
def test_a_mimic_shows_and_follows_from_the_random_numbers_alone(kind: Mimic, head: Stack, base: Stack) -> None:
    placed = 0
    for seed in range(8):
        stack, changed = drawn(head, base, kind, seed)
        _, again = drawn(head, base, kind, seed)
        assert (changed is None) == (again is None)
        if changed is not None and again is not None:
            placed += 1
            assert changed.dtype == np.float32
            assert np.array_equal(changed, again)
            assert (np.abs(changed[1] - stack[1]) > 6).sum() >= 3
    assert placed >= 4


@pytest.mark.parametrize("kind", sorted(set(Mimic) - ARTEFACTS))
def test_what_lies_in_the_brain_changes_nothing_outside_the_skull(kind: Mimic, head: Stack, base: Stack) -> None:
    for seed in range(8):
        stack, changed = drawn(head, base, kind, seed)
        for before, after in zip(stack, stack if changed is None else changed, strict=True):
            place = anatomy(before)
            assert place is not None
            assert np.array_equal(before[~place.inside.mask], after[~place.inside.mask])
            assert np.array_equal(before[before > 300], after[before > 300])


@pytest.mark.parametrize("kind", CALCIUM)
def test_calcium_is_small_and_denser_than_brain_but_no_metal(kind: Mimic, head: Stack) -> None:
    brightest = []
    for seed in range(12):
        changed = add_mimic(head, kind, np.random.default_rng(seed))
        if changed is not None:
            raised = changed[1] - head[1] > 6
            assert raised.mean() < 0.02  # of the crop
            brightest.append(float(changed[1][raised].max()))
    assert 60 < np.median(brightest) < 350
    assert max(brightest) < 450


@pytest.mark.parametrize("kind", [Mimic.DENSE_FALX, Mimic.DENSE_TENTORIUM, Mimic.SINUS, Mimic.VESSEL])
def test_membranes_and_vessels_have_the_hu_of_blood(kind: Mimic, head: Stack) -> None:
    for seed in range(8):
        changed = add_mimic(head, kind, np.random.default_rng(seed))
        if changed is not None:
            raised = changed[1] - head[1] > 10
            assert not raised.any() or 35 < np.median(changed[1][raised]) < 90


def test_midline_mimics_lie_in_the_midline(head: Stack) -> None:
    place = anatomy(head[1])
    assert place is not None
    for kind in (Mimic.PINEAL, Mimic.FALX_CALCIUM, Mimic.DENSE_FALX):
        for seed in range(8):
            changed = add_mimic(head, kind, np.random.default_rng(seed))
            if changed is not None:
                raised = np.abs(changed[1] - head[1]) > 6
                assert np.abs(place.lateral[raised]).mean() < 0.12


@pytest.mark.parametrize("kind", sorted(set(Mimic) - ARTEFACTS))
def test_where_there_is_no_brain_nothing_is_drawn(kind: Mimic) -> None:
    air = np.full((3, SIZE, SIZE), AIR, dtype=np.float32)
    assert add_mimic(air, kind, np.random.default_rng(1)) is None


def test_noise_leaves_the_air_as_it_is_and_a_random_mimic_is_one_of_the_kinds(head: Stack) -> None:
    noisy = add_mimic(head, Mimic.NOISE, np.random.default_rng(1))
    assert noisy is not None
    assert np.array_equal(noisy[head < -500], head[head < -500])
    assert mimic_in_stack(head, np.random.default_rng(2)) is not None


SMALL = Preprocessing(size=96)
UNCHANGED = AugmentConfig(flip=0, rotation=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)


def dataset(cache: Cache, sampling: SamplingConfig) -> SliceDataset:
    crops = load_crops(cache, list(cache.manifest["image_id"]), SMALL)
    return SliceDataset(crops, SMALL, UNCHANGED, sampling, seed=5)


def equal(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_mimics_samples_are_those_of_before(phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """No random number is drawn for mimics, so that a run can be repeated that knew of none."""

    def never(*_: object) -> None:
        raise AssertionError

    plain = dataset(phantom_cache, SamplingConfig())
    monkeypatch.setattr(dataset_module, "mimic_in_stack", never)
    assert SamplingConfig().mimics == 0
    assert SamplingConfig().shapes == "simple"
    for place in range(18):
        assert equal(
            plain[SampleIndex(place, 0, place)],
            dataset(phantom_cache, SamplingConfig(mimics=0))[SampleIndex(place, 0, place)],
        )


def test_a_mimic_changes_pictures_and_neither_labels_nor_masks(phantom_cache: Cache) -> None:
    """Also of slices that bleed; and lesions are drawn as they would have been without it."""
    lesions = SamplingConfig(pasted=0.5, made=0.5)
    without, with_mimics = (
        dataset(phantom_cache, SamplingConfig(pasted=0.5, made=0.5, mimics=share)) for share in (0.0, 1.0)
    )
    assert lesions.mimics == 0
    changed = 0
    for place in range(36):
        index = SampleIndex(place % 18, 1, place)
        before, after = without[index], with_mimics[index]
        if without.crops.labels[place % 18, 0] == 1:
            assert torch.equal(before.labels, after.labels)
            assert torch.equal(before.mask, after.mask)
        changed += not torch.equal(before.image, after.image)
        assert equal(after, with_mimics[index])
    assert changed > 20


def test_a_lesion_lies_where_it_would_without_the_mimic(phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calcium is as dense as bone: an epidural must not lie around it as if it were the skull."""

    def calcified(stack: Stack, _: np.random.Generator) -> Stack:
        new = np.array(stack)
        new[:, 40:56, 40:56] = 300
        return new

    monkeypatch.setattr(dataset_module, "mimic_in_stack", calcified)
    without, with_mimics = (
        dataset(phantom_cache, SamplingConfig(pasted=0, made=1, mimics=share)) for share in (0.0, 1.0)
    )
    normal = np.flatnonzero(without.crops.labels[:, 0] == 0)
    compared = 0
    for place in range(60):
        index = SampleIndex(int(normal[place % len(normal)]), 1, place)
        before, after = without[index], with_mimics[index]
        if before.labels[1] and after.labels[1]:  # epidural
            free = torch.ones_like(before.mask)
            free[38:58, 38:58] = 0  # where the calcium itself lies, no blood is drawn
            assert torch.equal(before.mask * free, after.mask * free)
            compared += 1
    assert compared > 3


def test_a_normal_slice_with_a_mimic_stays_normal(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, SamplingConfig(pasted=0, made=0, mimics=1))
    for row in np.flatnonzero(slices.crops.labels[:, 0] == 0):
        sample = slices[SampleIndex(int(row), 0, int(row))]
        assert not sample.labels.any()
        assert not sample.mask.any()
        assert float(sample.mask_known) == 1


def test_crops_stay_as_they_are(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, SamplingConfig(mimics=1, shapes="anatomical"))
    before = slices.crops.hounsfield.tobytes()
    for place in range(18):
        slices[SampleIndex(place, 0, place)]
    assert slices.crops.hounsfield.tobytes() == before


@pytest.mark.parametrize("change", [{"mimics": -0.1}, {"mimics": 1.1}, {"shapes": "cubic"}])
def test_shares_and_shapes_that_do_not_exist_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        SamplingConfig(**change)  # type: ignore[arg-type]
