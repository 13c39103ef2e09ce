"""Lesions in stacks: a bleed continues in adjacent slices, and a stack of one slice equals that slice."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.labels import SUBTYPES, Hemorrhage
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.stacked_lesions import paste_in_stack, synthesize_in_stack
from hemoscope.training.synthetic_lesions import inside_skull, paste_lesion, synthesize_lesion

SIZE = 160
Stack = NDArray[np.float32]


@pytest.fixture(scope="module")
def head() -> Stack:
    """Five slices of a head that does not bleed, read-only."""
    stack = np.array(make_phantom(seed=11, shape=(9, SIZE, SIZE)).hounsfield[2:7], dtype=np.float32)
    stack.flags.writeable = False
    return stack


@pytest.fixture(scope="module")
def bleeding() -> tuple[Stack, NDArray[np.bool_]]:
    """Five slices of a head with a bleed in the brain, and the mask in the middle one."""
    phantom = make_phantom(seed=12, shape=(9, SIZE, SIZE), bleeds=frozenset({Hemorrhage.INTRAPARENCHYMAL}))
    middle = int(np.argmax(phantom.masks["any"][2:7].sum(axis=(1, 2)))) + 2
    stack = np.array(phantom.hounsfield[middle - 2 : middle + 3], dtype=np.float32)
    return stack, np.array(phantom.masks["any"][middle])


@pytest.mark.parametrize("kind", SUBTYPES)
def test_a_stack_of_one_slice_is_that_slice(head: Stack, kind: Hemorrhage) -> None:
    """With the same random numbers after it, too: models without neighbours train as they did."""
    for seed in range(5):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        stacked, alone = synthesize_in_stack(head[2:3], kind, one), synthesize_lesion(head[2], kind, other)
        assert (stacked is None) == (alone is None)
        if stacked is not None and alone is not None:
            assert np.array_equal(stacked[0][0], alone[0])
            assert np.array_equal(stacked[1], alone[1])
        assert one.random() == other.random()


def test_a_paste_into_one_slice_is_that_of_the_slice(head: Stack, bleeding: tuple[Stack, NDArray[np.bool_]]) -> None:
    donor, mask = bleeding
    for seed in range(5):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        stacked = paste_in_stack(head[2:3], donor[2:3], mask, one)
        alone = paste_lesion(head[2], donor[2], mask, other)
        assert stacked is not None
        assert alone is not None
        assert np.array_equal(stacked[0][0], alone[0])
        assert np.array_equal(stacked[1], alone[1])
        assert one.random() == other.random()


@pytest.mark.parametrize("kind", [Hemorrhage.INTRAPARENCHYMAL, Hemorrhage.EPIDURAL, Hemorrhage.SUBDURAL])
def test_a_synthetic_lesion_narrows_within_its_mask_from_slice_to_slice(head: Stack, kind: Hemorrhage) -> None:
    goes_on = []
    for seed in range(20):
        made = synthesize_in_stack(head, kind, np.random.default_rng(seed))
        if made is None:
            continue
        new, mask = made
        near = ndimage.binary_dilation(mask, iterations=5)  # the soft edge reaches a little past it
        changed = np.abs(new - head) > 5
        assert not changed[:, ~near].any()
        for below, above in ((1, 2), (0, 1)):  # the farther from the middle, the less
            assert changed[below].sum() <= changed[above].sum() * 1.1 + 10
        goes_on.append(bool(changed[1].any() or changed[3].any()))
        assert (new[1] >= head[1] - 1e-3).all()  # blood is added, never taken
        inside = inside_skull(head[1])
        assert inside is None or not (changed[1] & ~ndimage.binary_dilation(inside.mask, iterations=3)).any()
    assert 0.3 < np.mean(goes_on) < 1.0  # some go on, some end


def test_the_blood_of_a_neighbour_is_as_bright_and_its_noise_its_own(head: Stack) -> None:
    brightness, likeness = [], []
    for seed in range(40):
        made = synthesize_in_stack(head, Hemorrhage.INTRAPARENCHYMAL, np.random.default_rng(seed))
        if made is None:
            continue
        new, mask = made
        core = ndimage.binary_erosion((new[3] - head[3] > 10) & mask, iterations=2)
        if core.sum() < 30:
            continue
        brightness.append(float(np.median(new[3][core]) - np.median(new[2][core])))
        noise = [slice_ - ndimage.gaussian_filter(slice_, 2.0) for slice_ in (new[3], new[2])]
        likeness.append(float(np.corrcoef(noise[0][core], noise[1][core])[0, 1]))
    assert len(brightness) >= 5
    assert abs(np.median(brightness)) < 8
    assert np.median(likeness) < 0.7


def test_a_pasted_bleed_ends_where_it_ended_in_its_donor(
    head: Stack, bleeding: tuple[Stack, NDArray[np.bool_]]
) -> None:
    donor, mask = bleeding
    short = np.array(donor)
    short[3:] = np.where(mask, 32, short[3:])  # nothing above the middle
    short[:2] = np.where(mask, 70, short[:2])  # blood below it
    for seed in range(8):
        pasted = paste_in_stack(head, short, mask, np.random.default_rng(seed))
        assert pasted is not None
        new, shape = pasted
        core = ndimage.binary_erosion(shape)
        assert core.sum() > 10
        assert np.median(new[1][core]) > 55
        assert np.median(new[3][core]) < 45


def test_lesions_leave_stack_and_donor_alone(head: Stack, bleeding: tuple[Stack, NDArray[np.bool_]]) -> None:
    donor, mask = bleeding
    before = donor.tobytes(), mask.tobytes()
    for seed, kind in enumerate(SUBTYPES):
        synthesize_in_stack(head, kind, np.random.default_rng(seed))  # read-only: writing would raise
    paste_in_stack(head, donor, mask, np.random.default_rng(1))
    assert before == (donor.tobytes(), mask.tobytes())


def test_a_stack_without_a_place_for_a_lesion_gets_none(bleeding: tuple[Stack, NDArray[np.bool_]]) -> None:
    air = np.full((3, SIZE, SIZE), -1000, dtype=np.float32)
    assert synthesize_in_stack(air, Hemorrhage.EPIDURAL, np.random.default_rng(0)) is None
    assert paste_in_stack(air, bleeding[0][1:4], bleeding[1], np.random.default_rng(0)) is None


def test_a_lesion_ends_at_a_neighbour_without_a_skull(head: Stack) -> None:
    stack = np.array(head[1:4])
    stack[2] = -1000
    for seed in range(10):
        made = synthesize_in_stack(stack, Hemorrhage.SUBDURAL, np.random.default_rng(seed))
        if made is not None:
            assert np.array_equal(made[0][2], stack[2])
