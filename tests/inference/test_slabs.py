"""Slabs, neighbours and bins go by position and thickness: a thick slice is never averaged with others."""

import numpy as np
import pytest

from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.preprocess import Preprocessing, model_input
from hemoscope.inference.probabilities import sequence_places, study_logits
from hemoscope.inference.slabs import local_spacings, neighbour_indices, slab_bounds
from hemoscope.inference.windows import BRAIN
from hemoscope.volume import HounsfieldVolume

# 60 thin slices of 1 mm below 12 thick ones of 5 mm, edge to edge.
THIN_THEN_THICK = [*np.arange(60.0), *(62.0 + 5.0 * np.arange(12))]


def volume_at(positions: list[float], thickness: list[float] | None = None) -> HounsfieldVolume:
    hounsfield = np.repeat(np.arange(len(positions), dtype=np.int16)[:, None, None], 8, axis=1).repeat(8, axis=2)
    steps = np.diff(positions)
    return HounsfieldVolume(
        hounsfield=hounsfield,
        spacing_mm=(float(np.median(steps)), 1.0, 1.0),
        positions_mm=tuple(map(float, positions)),
        orientation=None,
        thickness_mm=None if thickness is None else tuple(thickness),
    )


def test_the_spacing_is_that_around_each_slice() -> None:
    spacings = local_spacings(np.array(THIN_THEN_THICK), 1.0)
    assert (spacings[:59] == 1.0).all()
    assert (spacings[60:] >= 3.0).all()


def test_one_missing_slice_does_not_change_the_spacing_of_its_neighbours() -> None:
    assert (local_spacings(np.array([0.0, 5, 10, 20, 25]), 5.0) == 5.0).all()


def test_thick_slices_are_not_averaged_and_thin_ones_only_among_themselves() -> None:
    volume = volume_at(THIN_THEN_THICK)
    assert [slab_bounds(volume, index, 5.0) for index in (60, 65, 71)] == [(60, 60), (65, 65), (71, 71)]
    assert slab_bounds(volume, 30, 5.0) == (28, 32)
    assert slab_bounds(volume, 59, 5.0) == (57, 59)


def test_a_slice_as_thick_as_the_slab_is_not_averaged_though_slices_overlap() -> None:
    positions = list(np.arange(20.0))
    assert slab_bounds(volume_at(positions, [5.0] * 20), 10, 5.0) == (10, 10)
    assert slab_bounds(volume_at(positions, [1.0] * 20), 10, 5.0) == (8, 12)


def test_a_slab_does_not_reach_over_a_gap() -> None:
    positions = [*np.arange(10.0), *np.arange(20.0, 30.0)]
    assert slab_bounds(volume_at(positions), 9, 5.0) == (7, 9)
    assert slab_bounds(volume_at(positions), 10, 5.0) == (10, 12)


def test_neighbours_are_a_slab_away_wherever_the_thickness_changes() -> None:
    volume = volume_at(THIN_THEN_THICK)
    assert neighbour_indices(volume, 30, 1, 5.0) == [25, 30, 35]
    assert neighbour_indices(volume, 65, 1, 5.0) == [64, 65, 66]
    assert neighbour_indices(volume, 71, 2, 5.0) == [69, 70, 71, 71, 71]


@pytest.mark.parametrize(
    ("spacing", "slices"), [(0.625, 9), (1.0, 5), (2.0, 3), (2.5, 2), (3.0, 2), (5.0, 1), (10.0, 1)]
)
def test_neighbours_are_as_far_as_in_training_however_thick_the_slices(spacing: float, slices: int) -> None:
    volume = volume_at(list(spacing * np.arange(40)))
    assert neighbour_indices(volume, 20, 1, 5.0) == [20 - slices, 20, 20 + slices]


@pytest.mark.parametrize("spacing", [1.0, 5.0])
def test_what_lies_beyond_a_gap_is_no_neighbour(spacing: float) -> None:
    """A slice 40 mm away says nothing about this one: the slice before the gap is repeated, as at the end."""
    volume = volume_at([*spacing * np.arange(20), *(20 * spacing + 40 + spacing * np.arange(20))])
    step = 5 if spacing == 1.0 else 1
    assert neighbour_indices(volume, 19, 1, 5.0) == [19 - step, 19, 19]
    assert neighbour_indices(volume, 20, 1, 5.0) == [20, 20, 20 + step]
    assert neighbour_indices(volume, 18, 2, 5.0)[3:] == [19, 19]


def test_one_missing_slice_is_no_gap() -> None:
    assert neighbour_indices(volume_at([0.0, 5, 15, 20]), 1, 1, 5.0) == [0, 1, 1]
    assert neighbour_indices(volume_at([0.0, 1, 2, 3, 4, 6, 7, 8, 9, 10]), 2, 1, 5.0) == [0, 2, 6]


@pytest.mark.parametrize("spacing", [0.3, 0.625, 1.0, 1.25, 2.5, 5.0, 7.0])
def test_an_even_series_is_averaged_by_index(spacing: float) -> None:
    volume = volume_at(list(-100 + spacing * np.arange(60) + 1e-4 * np.sin(np.arange(60))))
    reach = max(round((5.0 / (volume.slice_spacing_mm or 1) - 1) / 2), 0)
    for index in (0, 1, 30, 58, 59):
        assert slab_bounds(volume, index, 5.0) == (max(index - reach, 0), min(index + reach, 59))
        step = 2 if spacing == 2.5 else 2 * reach + 1
        expected = [min(max(index + step * number, 0), 59) for number in (-2, -1, 0, 1, 2)]
        assert neighbour_indices(volume, index, 2, 5.0) == expected


def test_the_model_sees_a_thick_slice_as_it_is() -> None:
    settings = Preprocessing(windows=(BRAIN,), size=16, crop="none")
    image = model_input(volume_at(THIN_THEN_THICK), 65, settings)
    assert image.mean() * 80 == pytest.approx(65, abs=1e-3)


def test_thick_slices_are_bins_of_their_own_in_the_study_score() -> None:
    logits = np.zeros((72, 6))
    logits[60:] = np.arange(12)[:, None]  # only a mean of single thick slices can be 11
    rule = StudyRule(extent_mm=5.0, nominal_spacing_mm=5.0)
    assert study_logits(logits, THIN_THEN_THICK, rule) == pytest.approx([11.0] * 6)
    lone = np.zeros((72, 6))
    lone[30] = 5.0  # one thin slice of five in its bin
    assert study_logits(lone, THIN_THEN_THICK, rule) == pytest.approx([1.0] * 6)


def test_only_thin_slices_share_a_place_in_the_sequence() -> None:
    places = sequence_places(THIN_THEN_THICK, 5.0)
    assert places[:60].tolist() == (np.arange(60) // 5).tolist()
    assert places[60:].tolist() == list(range(12, 24))
    assert sequence_places([None, 1.0, 2.0], 5.0).tolist() == [0, 1, 2]
