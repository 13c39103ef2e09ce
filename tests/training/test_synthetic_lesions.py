"""Synthetic and pasted lesions: inside the skull, at the HU of blood, on a copy, and only if there is room."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.inference.preprocess import AIR, head_box, resized
from hemoscope.labels import SUBTYPES, Hemorrhage
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.synthetic_lesions import inside_skull, paste_lesion, synthesize_lesion

SIZE = 160
TRIES = 12


def cropped(hounsfield: NDArray[np.int16]) -> NDArray[np.float32]:
    return resized(hounsfield, head_box(hounsfield, margin=0.06), SIZE)


@pytest.fixture(scope="module")
def head() -> NDArray[np.float32]:
    """The middle slice of a head without a bleed, as training holds it."""
    image = cropped(make_phantom(seed=2, shape=(3, 200, 200)).hounsfield[1])
    image.flags.writeable = False
    return image


@pytest.fixture(scope="module")
def donor() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A slice with a bleed in the brain, and its mask."""
    phantom = make_phantom(seed=7, shape=(3, 200, 200), bleeds=frozenset({Hemorrhage.INTRAPARENCHYMAL}))
    box = head_box(phantom.hounsfield[1], margin=0.06)
    mask = resized(phantom.masks["any"][1].astype(np.float32), box, SIZE) > 0.5
    return cropped(phantom.hounsfield[1]), mask


def without_skull() -> dict[str, NDArray[np.float32]]:
    rows, columns = np.indices((SIZE, SIZE)) - SIZE / 2
    ball = np.hypot(rows, columns)
    empty_skull = np.where((ball < 70) & (ball > 62), 1200, AIR)
    open_skull = np.where((ball < 70) & (ball > 62) & (rows < 20), 1200, np.where(ball < 62, 35, AIR))
    vertex = np.where(ball < 30, 1000, AIR)
    small = np.where(ball < 12, 35, np.where(ball < 40, 1200, AIR))
    slices = {"air": np.full((SIZE, SIZE), AIR), "soft tissue alone": np.where(ball < 70, 35, AIR)}
    slices |= {"an open skull": open_skull, "a skull with air in it": empty_skull, "the vertex": vertex}
    slices["next to nothing inside"] = small
    return {name: image.astype(np.float32) for name, image in slices.items()}


EMPTY = without_skull()


def far_from(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """More than 9 pixels away: past the soft edge."""
    return np.asarray(ndimage.distance_transform_edt(~mask) > 9)


def test_the_inside_of_the_skull_is_the_brain_without_bone_and_skin(head: NDArray[np.float32]) -> None:
    inside = inside_skull(head)
    assert inside is not None
    assert abs(np.median(head[inside.mask]) - 33) < 8
    assert np.quantile(head[inside.mask], 0.98) < 150
    ring = ndimage.binary_dilation(inside.mask, iterations=2) & ~ndimage.binary_dilation(inside.mask)
    assert np.median(head[ring]) > 300
    assert inside.center == pytest.approx((SIZE / 2, SIZE / 2), abs=6)
    assert inside.mask.sum() == pytest.approx(np.pi * inside.radius**2, rel=1e-3)
    assert inside.depth[~inside.mask].max() == 0


@pytest.mark.parametrize("name", EMPTY)
def test_where_no_skull_encloses_a_brain_there_is_no_inside(name: str) -> None:
    assert inside_skull(EMPTY[name]) is None


@pytest.mark.parametrize("kind", SUBTYPES)
def test_a_synthetic_lesion_lies_in_the_skull_and_brings_bloods_hu(kind: Hemorrhage, head: NDArray[np.float32]) -> None:
    inside = inside_skull(head)
    assert inside is not None
    made = [synthesize_lesion(head, kind, np.random.default_rng(seed)) for seed in range(TRIES)]
    placed = [lesion for lesion in made if lesion is not None]
    assert len(placed) >= TRIES // 2
    soft = ndimage.gaussian_filter(head, 1) < 60  # not the edge of the bone, which outshines any blood
    rises = []
    for image, mask in placed:
        assert image.dtype == np.float32
        assert image.shape == head.shape
        assert mask.sum() >= 12
        assert not (mask & ~inside.mask).any()
        assert np.allclose(image[far_from(mask)], head[far_from(mask)], atol=1e-3)
        if (mask & soft).sum() >= 12:
            assert 35 < np.median(image[mask & soft]) < 100
            rises.append(float((image - head)[mask & soft].mean()))
    # Beside the inner table a thin crescent rises little, so the types are judged over all that were made.
    assert len(rises) > 0.7 * len(placed)
    assert np.mean(rises) > 8
    assert np.mean(np.array(rises) > 0) > 0.8


@pytest.mark.parametrize("kind", SUBTYPES)
def test_a_synthetic_lesion_follows_from_the_random_numbers_alone(kind: Hemorrhage, head: NDArray[np.float32]) -> None:
    """The input is read-only here, so that this also shows that it is left as it was."""
    first, again = (synthesize_lesion(head, kind, np.random.default_rng(3)) for _ in range(2))
    assert first is not None
    assert again is not None
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


@pytest.mark.parametrize("kind", SUBTYPES)
@pytest.mark.parametrize("name", EMPTY)
def test_no_lesion_is_synthesized_where_there_is_no_brain(kind: Hemorrhage, name: str) -> None:
    assert synthesize_lesion(EMPTY[name], kind, np.random.default_rng(1)) is None


def test_epidural_and_subdural_lie_along_the_inner_table(head: NDArray[np.float32]) -> None:
    inside = inside_skull(head)
    assert inside is not None
    for kind in (Hemorrhage.EPIDURAL, Hemorrhage.SUBDURAL):
        touching = []
        for seed in range(TRIES):
            lesion = synthesize_lesion(head, kind, np.random.default_rng(seed))
            if lesion is not None:
                touching.append(bool((lesion[1] & (inside.depth <= 1.5)).any()))
        assert np.mean(touching) > 0.8


def test_a_subdural_is_longer_and_thinner_than_an_epidural(head: NDArray[np.float32]) -> None:
    inside = inside_skull(head)
    assert inside is not None

    def thickness(kind: Hemorrhage) -> float:
        lesions = [synthesize_lesion(head, kind, np.random.default_rng(seed)) for seed in range(2 * TRIES)]
        return float(np.median([inside.depth[mask].max() for _, mask in filter(None, lesions)]))

    assert thickness(Hemorrhage.SUBDURAL) < thickness(Hemorrhage.EPIDURAL)


def test_an_intraventricular_lesion_fills_dark_places_near_the_middle(head: NDArray[np.float32]) -> None:
    inside = inside_skull(head)
    assert inside is not None
    for seed in range(TRIES):
        lesion = synthesize_lesion(head, Hemorrhage.INTRAVENTRICULAR, np.random.default_rng(seed))
        if lesion is not None:
            rows, columns = np.nonzero(lesion[1])
            assert np.hypot(rows - inside.center[0], columns - inside.center[1]).max() < 0.7 * inside.radius
            assert np.median(head[lesion[1]]) < 22


def test_without_ventricles_there_is_no_intraventricular_lesion(head: NDArray[np.float32]) -> None:
    inside = inside_skull(head)
    assert inside is not None
    solid = np.where(inside.mask, np.float32(34), head)
    assert synthesize_lesion(solid, Hemorrhage.INTRAVENTRICULAR, np.random.default_rng(1)) is None


Donor = tuple[NDArray[np.float32], NDArray[np.bool_]]


def test_a_pasted_bleed_lies_in_the_skull_and_shows_the_donors_blood(head: NDArray[np.float32], donor: Donor) -> None:
    inside = inside_skull(head)
    assert inside is not None
    before = donor[0].tobytes(), donor[1].tobytes()
    pasted = [paste_lesion(head, *donor, np.random.default_rng(seed)) for seed in range(TRIES)]
    assert sum(lesion is not None for lesion in pasted) >= TRIES // 2
    for image, mask in filter(None, pasted):
        assert image.dtype == np.float32
        assert not (mask & ~inside.mask).any()
        assert 0.5 * donor[1].sum() < mask.sum() < 1.6 * donor[1].sum()
        core = ndimage.binary_erosion(mask, iterations=2)
        assert abs(np.median(image[core]) - np.median(donor[0][donor[1]])) < 8
        assert np.array_equal(image[far_from(mask)], head[far_from(mask)])
    assert before == (donor[0].tobytes(), donor[1].tobytes())


def test_a_chip_of_skull_in_an_outline_is_not_pasted_with_it(head: NDArray[np.float32], donor: Donor) -> None:
    slice_, outline = donor[0].copy(), donor[1]
    row, column = np.argwhere(outline)[outline.sum() // 2]
    chip = np.zeros_like(outline)
    chip[row - 1 : row + 3, column - 1 : column + 3] = True
    slice_[chip & outline] = 700
    pasted = [paste_lesion(head, slice_, outline, np.random.default_rng(seed)) for seed in range(TRIES)]
    assert sum(lesion is not None for lesion in pasted) >= TRIES // 2
    for image, mask in filter(None, pasted):
        assert image[mask].max() <= 125
        assert image[head < 90].max() <= 125


def test_pasting_mirrors_half_of_the_time(head: NDArray[np.float32], donor: Donor) -> None:
    middle = SIZE / 2
    sides = set()
    for seed in range(TRIES):
        lesion = paste_lesion(head, *donor, np.random.default_rng(seed))
        if lesion is not None:
            sides.add(bool(np.nonzero(lesion[1])[1].mean() > middle))
    assert sides == {True, False}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_is_pasted_where_there_is_no_brain(name: str, donor: Donor) -> None:
    assert paste_lesion(EMPTY[name], *donor, np.random.default_rng(1)) is None


def test_a_bleed_that_would_fall_outside_the_brain_is_not_pasted(head: NDArray[np.float32], donor: Donor) -> None:
    outside = np.zeros_like(donor[1])
    outside[2:14, 2:14] = True
    assert paste_lesion(head, donor[0], outside, np.random.default_rng(1)) is None


def test_a_mask_of_a_few_pixels_is_not_pasted(head: NDArray[np.float32], donor: Donor) -> None:
    tiny = np.zeros_like(donor[1])
    tiny[80:82, 60:62] = True
    assert paste_lesion(head, donor[0], tiny, np.random.default_rng(1)) is None


def _by_scipy(hounsfield: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest part that closed bone encloses, by SciPy's own closing and filling of holes."""
    bone = ndimage.binary_closing(np.pad(hounsfield, 8, mode="edge") > 180, iterations=5)[8:-8, 8:-8]
    regions, _ = ndimage.label(ndimage.binary_fill_holes(bone) & ~bone)
    return np.asarray(regions == int(np.bincount(regions.ravel())[1:].argmax()) + 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_inside_of_a_skull_with_gaps_is_what_scipy_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIZE, SIZE)) - rng.uniform(70, 90, (2, 1, 1))
    away, angle = np.hypot(rows * rng.uniform(0.8, 1.2), columns), np.arctan2(rows, columns)
    ring = (away > 45 + 4 * np.sin(5 * angle)) & (away < 52) & (np.abs(angle - rng.uniform(-3, 3)) > 0.05)
    wall = np.abs(columns - rng.uniform(-20, 20)) < 2  # parts the inside
    hounsfield = np.where(ring | wall, 900, 30).astype(np.float32) + rng.normal(0, 5, ring.shape).astype(np.float32)
    inside = inside_skull(hounsfield)
    assert inside is not None
    assert np.array_equal(inside.mask, _by_scipy(hounsfield))
