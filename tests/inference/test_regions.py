"""Opening and largest region are those of scipy.ndimage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.inference.regions import Region, largest_region, opened


def by_scipy(mask: NDArray[np.bool_]) -> Region | None:
    regions, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(regions.ravel())[1:]
    rows, columns = ndimage.find_objects(regions)[int(sizes.argmax())]
    return Region(size=int(sizes.max()), edges=(rows.start, columns.start, rows.stop, columns.stop))


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    density=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_mask_has_the_opening_and_region_of_scipy(shape: tuple[int, int], density: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    cube = np.ones((3, 3), dtype=bool)
    np.testing.assert_array_equal(opened(mask), ndimage.binary_opening(mask, structure=cube))
    thick = opened(ndimage.binary_dilation(mask, structure=cube))
    np.testing.assert_array_equal(thick, ndimage.binary_opening(ndimage.binary_dilation(mask, structure=cube), cube))
    assert largest_region(mask) == by_scipy(mask)
    assert largest_region(thick) == by_scipy(thick)


@pytest.mark.parametrize("turn", range(4))
def test_regions_that_meet_late_are_one(turn: int) -> None:
    comb = np.zeros((9, 11), dtype=bool)
    comb[:, ::2] = True
    comb[8] = True
    mask = np.ascontiguousarray(np.rot90(comb, turn))
    assert largest_region(mask) == by_scipy(mask) == Region(size=59, edges=(0, 0, *mask.shape))


def test_of_equal_regions_the_first_counts() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[3:5, 0:2] = mask[0:2, 4:6] = True
    found = largest_region(mask)
    assert found == by_scipy(mask)
    assert found is not None
    assert found.edges == (0, 4, 2, 6)
