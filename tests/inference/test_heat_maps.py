"""Heat maps: local probabilities that lie where the model looked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.inference.calibration import Calibration
from hemoscope.inference.heat_maps import HeatMap, heat_on_slice, local_probabilities, peak_distance
from hemoscope.inference.preprocess import Box
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

BOX = Box(top=8, left=8, side=48)


def test_heat_lies_where_its_box_says() -> None:
    values = np.zeros((8, 8), dtype=np.float32)
    values[1, 6] = 1.0
    laid = heat_on_slice(HeatMap(values=values, box=BOX), (64, 64))
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    # Cell (1, 6) of 8 over a box of 48 pixels from 8: its middle is 8 + 1.5 * 6 and 8 + 6.5 * 6.
    assert abs(row - 17) <= 1
    assert abs(column - 47) <= 1
    assert laid[:8].max() == laid[:, :8].max() == laid[56:].max() == 0.0


@given(top=st.integers(-40, 60), left=st.integers(-40, 60), side=st.integers(1, 120))
def test_a_box_may_reach_past_the_image(top: int, left: int, side: int) -> None:
    heat = HeatMap(values=np.ones((4, 4), dtype=np.float32), box=Box(top=top, left=left, side=side))
    laid = heat_on_slice(heat, (50, 40))
    inside = np.zeros((50, 40), dtype=np.float32)
    inside[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 1.0
    np.testing.assert_allclose(laid, inside, atol=1e-6)
    assert laid.max() <= 1.0


@pytest.mark.parametrize("values", [np.full((2, 2), 1.1), np.full((2, 2), np.nan), np.zeros((2, 2, 2))])
def test_what_is_no_map_of_probabilities_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"two axes and values in \[0, 1\]"):
        HeatMap(values=values.astype(np.float32), box=Box(top=0, left=0, side=4))


UNTOUCHED = PerLabel.build(lambda _: Calibration(scale=1.0, bias=0.0))
EPIDURAL_ESTABLISHED = PerLabel.build(lambda one: one in {Hemorrhage.ANY, Hemorrhage.EPIDURAL})


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_shown_in_its_own_calibration(label: Hemorrhage) -> None:
    maps = np.arange(6, 0, -1, dtype=np.float32)[:, None, None] + np.zeros((6, 3, 3), dtype=np.float32)
    calibration = PerLabel.build(lambda one: Calibration(scale=1.0 - 0.1 * LABELS.index(one), bias=-1.0))
    index = LABELS.index(label)
    found = local_probabilities(maps, calibration, EPIDURAL_ESTABLISHED)[index]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-((1.0 - 0.1 * index) * (6 - index) - 1.0))), atol=1e-6)


def test_a_type_that_is_not_established_is_not_seen_where_no_hemorrhage_is() -> None:
    maps = np.full((6, 2, 2), -4.0, dtype=np.float32)
    maps[LABELS.index(Hemorrhage.ANY), 0, 0] = 3.0
    maps[LABELS.index(Hemorrhage.INTRAPARENCHYMAL)] = [[1.0, 5.0], [-4.0, -4.0]]  # at the bleed, and beside it
    found = local_probabilities(maps, UNTOUCHED, EPIDURAL_ESTABLISHED)[LABELS.index(Hemorrhage.INTRAPARENCHYMAL)]
    assert np.unravel_index(found.argmax(), found.shape) == (0, 0)
    assert found[0, 1] < 0.02


def test_an_established_type_counts_as_a_hemorrhage_where_it_is_seen() -> None:
    maps = np.full((6, 2, 2), -4.0, dtype=np.float32)
    maps[LABELS.index(Hemorrhage.EPIDURAL), 1, 1] = 3.0
    found = local_probabilities(maps, UNTOUCHED, EPIDURAL_ESTABLISHED)
    assert found[LABELS.index(Hemorrhage.ANY), 1, 1] == found[LABELS.index(Hemorrhage.EPIDURAL), 1, 1] > 0.95


@given(logits=st.lists(st.floats(-20, 20, width=32), min_size=24, max_size=24), known=st.sets(st.sampled_from(LABELS)))
def test_any_is_the_highest_at_every_place(logits: list[float], known: set[Hemorrhage]) -> None:
    maps = np.array(logits, dtype=np.float32).reshape(6, 2, 2)
    found = local_probabilities(maps, UNTOUCHED, PerLabel.build(lambda one: one in known))
    assert found.shape == maps.shape
    assert np.all(found[0] >= found)


def outline(*, rows: slice, columns: slice) -> np.ndarray:
    drawn = np.zeros((64, 64), dtype=bool)
    drawn[rows, columns] = True
    return drawn


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (outline(rows=slice(15, 20), columns=slice(45, 50)), 0.0),  # around the peak
        (outline(rows=slice(15, 20), columns=slice(0, 37)), 10.0),  # ends 10 pixels left of it
        (outline(rows=slice(20, 30), columns=slice(51, 60)), 5.0),  # 3 below and 4 to the right of it
    ],
)
def test_a_peak_is_as_far_from_an_outline_as_on_the_slice(drawn: np.ndarray, expected: float) -> None:
    values = np.full((8, 8), -3.0, dtype=np.float32)
    values[1, 6] = -1.0  # its middle is row 17 and column 47 of the slice
    assert peak_distance(values, BOX, drawn) == pytest.approx(expected)


def test_a_peak_beyond_the_image_is_far_from_an_outline_at_its_edge() -> None:
    values = np.zeros((2, 2), dtype=np.float32)
    values[0, 0] = 1.0
    box = Box(top=-40, left=0, side=80, width=40)
    assert peak_distance(values, box, outline(rows=slice(0, 1), columns=slice(0, 64))) == pytest.approx(20.0)


def test_without_an_outline_no_distance_is_known() -> None:
    assert peak_distance(np.zeros((4, 4), dtype=np.float32), BOX, np.zeros((64, 64), dtype=bool)) is None
