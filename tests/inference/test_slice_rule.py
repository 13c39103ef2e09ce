"""The slice rule smooths slice probabilities along the head, by distance in mm."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.inference.calibration import Calibration, SliceRule
from hemoscope.inference.card import ModelCard
from hemoscope.inference.probabilities import StudyProbabilities, calibrated, consistent, mixed_slices, smoothed
from hemoscope.labels import PerLabel

WIDE = SliceRule(width_mm=7.5)
# Even and uneven places, gaps, and several slices at one place.
PLACES = st.lists(st.integers(-200, 200), min_size=1, max_size=40).map(lambda tenths: [2.5 * one for one in tenths])


def test_a_bundle_without_a_rule_or_width_smooths_nothing() -> None:
    logits, positions = np.random.default_rng(0).normal(size=(9, 6)), [5.0 * index for index in range(9)]
    assert smoothed(logits, positions, None) is logits
    assert smoothed(logits, positions, SliceRule()) is logits


def test_a_slice_becomes_the_gaussian_mean_of_its_neighbors() -> None:
    logits = np.zeros((9, 6))
    logits[4] = 1.0
    found = smoothed(logits, [5.0 * index for index in range(9)], WIDE)[:, 0]
    weights = np.exp(-0.5 * (5.0 * np.arange(-4, 5) / 7.5) ** 2)
    assert found[4] == pytest.approx(1 / weights.sum(), rel=1e-3)
    assert (np.diff(found[:5]) > 0).all()
    assert found[:4] == pytest.approx(found[:4:-1])


@given(PLACES, st.floats(-10, 10), st.sampled_from([1.0, 5.0, 7.5, 20.0]))
def test_constant_logits_stay_constant(positions: list[float], value: float, width_mm: float) -> None:
    logits = np.full((len(positions), 6), value)
    assert smoothed(logits, positions, SliceRule(width_mm=width_mm)) == pytest.approx(logits)


@given(PLACES, st.integers(0, 99))
def test_the_order_of_the_slices_does_not_matter(positions: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    logits, order = random.normal(size=(len(positions), 6)), random.permutation(len(positions))
    shuffled = smoothed(logits[order], [positions[index] for index in order], WIDE)
    assert shuffled == pytest.approx(smoothed(logits, positions, WIDE)[order])


@given(PLACES, st.integers(0, 99))
def test_smoothing_never_leaves_the_range_of_the_scores(positions: list[float], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(len(positions), 6))
    found = smoothed(logits, positions, WIDE)
    assert (found >= logits.min(axis=0) - 1e-9).all()
    assert (found <= logits.max(axis=0) + 1e-9).all()


def test_slices_with_a_gap_wider_than_the_width_between_them_are_not_mixed() -> None:
    positions = [0.0, 5.0, 10.0, 18.0, 23.0]
    logits = np.repeat([[0.0], [0.0], [0.0], [9.0], [9.0]], 6, axis=1)
    assert smoothed(logits, positions, WIDE) == pytest.approx(logits)
    assert smoothed(logits, positions, SliceRule(width_mm=8.0))[2, 0] > 1.0


def test_thick_slices_are_not_outvoted_by_thin_ones_beside_them() -> None:
    positions = [*(0.5 * np.arange(40)), *(22.5 + 5.0 * np.arange(4))]
    logits = np.repeat([[1.0]] * 40 + [[0.0]] * 4, 6, axis=1)
    found = smoothed(logits, positions, WIDE)[:, 0]
    assert found[39] == pytest.approx(0.5, abs=0.15)  # at the border, half of the head around is thick


def test_without_positions_nothing_is_smoothed() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 6))
    assert (smoothed(logits, [0.0, None, 10.0], WIDE) == logits).all()


def test_slices_are_smoothed_before_calibration_and_the_study_rule_reads_raw_scores(
    make_card: Callable[..., ModelCard],
) -> None:
    logits, positions = np.random.default_rng(1).normal(size=(12, 6)), [5.0 * index for index in range(12)]
    plain, card = make_card(), make_card(slice_rule=WIDE)
    found = StudyProbabilities.from_logits(logits, positions_mm=positions, card=card)
    smooth = calibrated(smoothed(logits, positions, WIDE), card.calibration.slice)
    assert (found.slice_probabilities == consistent(smooth, card.established)).all()
    assert (found.slice_logits == logits).all()
    raw = StudyProbabilities.from_logits(logits, positions_mm=positions, card=plain)
    assert (found.study_probabilities == raw.study_probabilities).all()


@pytest.mark.parametrize("width_mm", [0.0, -1.0, 51.0, float("nan")])
def test_a_width_that_no_head_has_is_refused(width_mm: float) -> None:
    with pytest.raises(ValueError, match="a slice rule needs a width above 0 and up to 50 mm"):
        SliceRule(width_mm=width_mm)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="the only slice rule is gaussian, got median"):
        SliceRule(kind="median")  # type: ignore[arg-type]


OWN = PerLabel.build(lambda _: Calibration(scale=2.5, bias=1.0))
BOTH = SliceRule(width_mm=7.5, calibration=OWN)


def test_smoothed_slices_have_the_calibration_of_the_rule(make_card: Callable[..., ModelCard]) -> None:
    logits, positions = np.random.default_rng(1).normal(size=(12, 6)), [5.0 * index for index in range(12)]
    card = make_card(slice_rule=BOTH)
    found = StudyProbabilities.from_logits(logits, positions_mm=positions, card=card)
    expected = consistent(calibrated(smoothed(logits, positions, BOTH), OWN), card.established)
    assert (found.slice_probabilities == expected).all()


@pytest.mark.parametrize("positions", [[30.0], [None], [0.0, None, 10.0], [0.0, 20.0, 60.0]])
def test_slices_that_are_mixed_with_no_other_are_what_they_were(
    make_card: Callable[..., ModelCard], positions: list[float | None]
) -> None:
    logits = np.random.default_rng(2).normal(size=(len(positions), 6))
    found, plain = (
        StudyProbabilities.from_logits(logits, positions_mm=positions, card=make_card(slice_rule=rule))
        for rule in (BOTH, None)
    )
    assert (found.slice_probabilities == plain.slice_probabilities).all()


def test_a_slice_apart_from_its_series_keeps_the_calibration_of_the_card(make_card: Callable[..., ModelCard]) -> None:
    logits, positions = np.random.default_rng(3).normal(size=(5, 6)), [0.0, 5.0, 10.0, 60.0, 60.0]
    assert mixed_slices(positions, BOTH).tolist() == [True, True, True, True, True]
    assert mixed_slices([*positions[:3], 60.0, 90.0], BOTH).tolist() == [True, True, True, False, False]
    card = make_card(slice_rule=BOTH)
    found = StudyProbabilities.from_logits(logits, positions_mm=[*positions[:3], 60.0, 90.0], card=card)
    alone = consistent(calibrated(logits, card.calibration.slice), card.established)
    assert (found.slice_probabilities[3:] == alone[3:]).all()
    assert not (found.slice_probabilities[:3] == alone[:3]).any()


def test_a_card_keeps_the_calibration_of_its_rule(make_card: Callable[..., ModelCard]) -> None:
    card = make_card(slice_rule=BOTH)
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    document = card.to_json()
    del document["slice_rule"]["calibration"]  # as in bundles of earlier versions
    found = ModelCard.from_json(document).slice_rule
    assert found == SliceRule(width_mm=7.5)
