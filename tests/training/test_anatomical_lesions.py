"""Lesions that follow anatomy: blood where its type collects, seen, in the slices beside it, and on a copy."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.inference.preprocess import AIR, head_box, resized
from hemoscope.labels import SUBTYPES, Hemorrhage
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.anatomical_lesions import anatomical_lesion
from hemoscope.training.anatomy import Anatomy, anatomy, csf, falx, sulci, ventricles
from hemoscope.training.stacked_lesions import synthesize_in_stack

SIZE = 192
TRIES = 12
Stack = NDArray[np.float32]


@pytest.fixture(scope="module")
def head() -> Stack:
    """Five slices through the ventricles, read-only."""
    phantom = make_phantom(seed=4, shape=(9, 256, 256)).hounsfield[3:8]
    stack = np.stack([resized(image, head_box(phantom[2], margin=0.06), SIZE) for image in phantom])
    stack.flags.writeable = False
    return stack


@pytest.fixture(scope="module")
def place(head: Stack) -> Anatomy:
    found = anatomy(head[2])
    assert found is not None
    return found


def lesions(head: Stack, kind: Hemorrhage) -> list[tuple[Stack, NDArray[np.bool_]]]:
    made = [anatomical_lesion(head, kind, np.random.default_rng(seed)) for seed in range(TRIES)]
    return [lesion for lesion in made if lesion is not None]


def test_positions_lead_to_pixels_and_back(place: Anatomy) -> None:
    for lateral, posterior in ((0.0, 0.0), (0.5, -0.4), (-0.3, 0.7)):
        row, column = place.pixel(lateral, posterior)
        assert place.lateral[round(row), round(column)] == pytest.approx(lateral, abs=0.02)
        assert place.posterior[round(row), round(column)] == pytest.approx(posterior, abs=0.02)


def test_a_turned_head_turns_its_midline(head: Stack) -> None:
    for degrees in (-12, 9):
        turned = anatomy(ndimage.rotate(head[2], degrees, reshape=False, order=1, cval=AIR))
        straight = anatomy(head[2])
        assert turned is not None
        assert straight is not None
        assert np.rad2deg(turned.turn - straight.turn) == pytest.approx(-degrees, abs=2)


def test_ventricles_are_deep_csf_beside_the_midline(place: Anatomy) -> None:
    found = ventricles(place)
    assert found.sum() > 100
    assert np.median(place.hounsfield[found]) < 15
    assert place.inside.depth[found].min() > 10
    assert (found & csf(place)).sum() == found.sum()


def test_the_falx_runs_from_front_to_back_in_the_midline(place: Anatomy) -> None:
    path = falx(place)
    along = place.posterior[tuple(np.rint(path).astype(int).T)]
    assert along.min() < -0.9
    assert along.max() > 0.9
    across = place.lateral[tuple(np.rint(path).astype(int).T)]
    assert np.abs(across).max() < 0.15


@pytest.mark.parametrize("kind", SUBTYPES)
def test_a_lesion_is_seen_lies_in_the_skull_and_leaves_the_rest(kind: Hemorrhage, head: Stack, place: Anatomy) -> None:
    made = lesions(head, kind)
    assert len(made) >= TRIES // 2
    for stack, mask in made:
        assert stack.dtype == np.float32
        assert mask.sum() >= 12
        assert not (mask & ~place.inside.mask).any()
        assert np.array_equal(stack[:, ~place.inside.mask][2], head[:, ~place.inside.mask][2])
        assert np.array_equal(stack[2][head[2] > 300], head[2][head[2] > 300])
        assert (stack[2] - head[2])[mask].mean() > 6
        assert 25 < np.median(stack[2][mask]) < 95


@pytest.mark.parametrize("kind", SUBTYPES)
def test_a_lesion_follows_from_the_random_numbers_alone(kind: Hemorrhage, head: Stack) -> None:
    first, again = (synthesize_in_stack(head, kind, np.random.default_rng(7), "anatomical") for _ in range(2))
    assert (first is None) == (again is None)
    if first is not None and again is not None:
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])


def test_intraventricular_blood_lies_in_ventricles(head: Stack, place: Anatomy) -> None:
    near = ndimage.binary_dilation(ventricles(place), iterations=3)
    for _, mask in lesions(head, Hemorrhage.INTRAVENTRICULAR):
        assert not (mask & ~near).any()


def test_subarachnoid_blood_lies_in_csf_and_not_in_ventricles(head: Stack, place: Anatomy) -> None:
    spaces = ndimage.binary_dilation(sulci(place) > 0.1, iterations=2)
    for _, mask in lesions(head, Hemorrhage.SUBARACHNOID):
        assert not (mask & ~spaces).any()
        assert not (mask & ventricles(place)).any()


def test_epidural_blood_touches_the_inner_table_and_intraparenchymal_does_not(head: Stack, place: Anatomy) -> None:
    for _, mask in lesions(head, Hemorrhage.EPIDURAL):
        assert place.inside.depth[mask].min() <= 2
    for _, mask in lesions(head, Hemorrhage.INTRAPARENCHYMAL):
        assert place.inside.depth[mask].min() > 1


def test_a_lesion_goes_on_in_some_of_the_slices_beside_it(head: Stack) -> None:
    goes_on = [
        bool((np.abs(stack[1] - head[1]) > 5).any() or (np.abs(stack[3] - head[3]) > 5).any())
        for kind in SUBTYPES
        for stack, _ in lesions(head, kind)
    ]
    assert 0.3 < np.mean(goes_on) < 1


def test_a_stack_of_one_slice_has_the_middle_of_a_higher_one(head: Stack) -> None:
    for kind in SUBTYPES:
        alone = anatomical_lesion(head[2:3], kind, np.random.default_rng(3))
        among = anatomical_lesion(head, kind, np.random.default_rng(3))
        assert (alone is None) == (among is None)
        if alone is not None and among is not None:
            assert np.array_equal(alone[0][0], among[0][2])
            assert np.array_equal(alone[1], among[1])


@pytest.mark.parametrize("kind", SUBTYPES)
def test_without_a_brain_there_is_no_lesion(kind: Hemorrhage) -> None:
    rows, columns = np.indices((SIZE, SIZE)) - SIZE / 2
    empty_skull = np.where(np.abs(np.hypot(rows, columns) - 70) < 5, 1200, AIR).astype(np.float32)
    for image in (np.full((SIZE, SIZE), AIR, dtype=np.float32), empty_skull):
        assert anatomical_lesion(image[None], kind, np.random.default_rng(1)) is None
