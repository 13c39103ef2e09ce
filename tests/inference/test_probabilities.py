"""Slice scores become consistent probabilities; a study's score does not depend on the order of its slices."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hemoscope.inference.calibration import Calibration, StudyRule, sigmoid
from hemoscope.inference.card import CalibrationTable, ModelCard
from hemoscope.inference.probabilities import StudyProbabilities, averaged, consistent, sequence_places, study_logits
from hemoscope.labels import LABELS, PerLabel

RULE = StudyRule(extent_mm=15.0, nominal_spacing_mm=5.0)
SCORES = st.floats(-30, 30)
PER_LABEL_FLAGS = st.lists(st.booleans(), min_size=6, max_size=6).map(PerLabel.of)
PER_LABEL_CALIBRATIONS = st.lists(
    st.builds(Calibration, scale=st.floats(0.01, 20), bias=st.floats(-10, 10)), min_size=6, max_size=6
).map(PerLabel.of)


def column(*values: float) -> np.ndarray:
    """Logits of which each label has the same."""
    return np.repeat(np.array(values)[:, None], len(LABELS), axis=1)


@st.composite
def placed_logits(draw: st.DrawFn) -> tuple[np.ndarray, list[float]]:
    count = draw(st.integers(1, 30))
    positions = draw(st.lists(st.floats(-300, 300), min_size=count, max_size=count))
    return draw(arrays(np.float64, (count, 6), elements=SCORES)), positions


@given(placed_logits(), PER_LABEL_FLAGS, PER_LABEL_CALIBRATIONS, PER_LABEL_CALIBRATIONS)
def test_any_is_at_least_every_type_for_any_scores_and_card(
    make_card: Callable[..., ModelCard],
    placed: tuple[np.ndarray, list[float]],
    established: PerLabel[bool],
    by_slice: PerLabel[Calibration],
    by_study: PerLabel[Calibration],
) -> None:
    card = make_card(established=established, calibration=CalibrationTable(slice=by_slice, study=by_study))
    result = StudyProbabilities.from_logits(placed[0], positions_mm=placed[1], card=card)
    for p in (result.slice_probabilities, result.study_probabilities):
        assert (p[..., :1] >= p).all()
        assert ((p >= 0) & (p <= 1)).all()


@given(placed_logits(), st.randoms(use_true_random=False), st.floats(0.5, 8), st.floats(1, 40))
def test_the_study_does_not_depend_on_the_order_of_the_slices(
    placed: tuple[np.ndarray, list[float]], random: object, spacing: float, extent: float
) -> None:
    logits, positions = placed
    rule = StudyRule(nominal_spacing_mm=spacing, extent_mm=extent)
    order = list(range(len(positions)))
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    shuffled = study_logits(logits[order], [positions[i] for i in order], rule)
    assert (shuffled == study_logits(logits, positions, rule)).all()
    unplaced = [None] * len(order)
    assert (study_logits(logits[order], unplaced, rule) == study_logits(logits, unplaced, rule)).all()


@given(placed_logits())
def test_the_study_lies_between_its_lowest_and_highest_slice(placed: tuple[np.ndarray, list[float]]) -> None:
    logits, positions = placed
    study = study_logits(logits, positions, RULE)
    assert (study >= logits.min(axis=0) - 1e-9).all()
    assert (study <= logits.max(axis=0) + 1e-9).all()


@given(placed_logits(), st.integers(0, 29), st.integers(0, 5), st.floats(0, 10))
def test_a_higher_slice_never_lowers_the_study(
    placed: tuple[np.ndarray, list[float]], row: int, label: int, rise: float
) -> None:
    logits, positions = placed
    raised = logits.copy()
    raised[row % len(logits), label] += rise
    assert (study_logits(raised, positions, RULE) >= study_logits(logits, positions, RULE) - 1e-9).all()


def test_one_slice_alone_keeps_its_logits() -> None:
    logits = np.arange(6.0)[None]
    assert study_logits(logits, [None], RULE).tolist() == logits[0].tolist()
    assert study_logits(logits, [12.5], RULE).tolist() == logits[0].tolist()


def test_the_three_highest_slices_of_a_thick_series_are_averaged() -> None:
    logits = column(0.0, 6.0, 3.0, 9.0, -5.0)
    assert study_logits(logits, [0.0, 5.0, 10.0, 15.0, 20.0], RULE).tolist() == [6.0] * 6
    assert study_logits(logits, [None] * 5, RULE).tolist() == [6.0] * 6


def test_fewer_slices_than_the_rule_wants_are_all_averaged() -> None:
    assert study_logits(column(1.0, 2.0), [0.0, 5.0], RULE).tolist() == [1.5] * 6


@pytest.mark.parametrize("spacing", [0.625, 1.0, 1.25, 2.5])
@pytest.mark.parametrize("first", [-137.3, 0.0, 1000.1])
def test_a_study_scores_the_same_however_thinly_it_is_cut(spacing: float, first: float) -> None:
    thick = np.array([-4.0, 1.0, 5.0, 3.0, -2.0, -6.0])
    each = round(5.0 / spacing)
    thin = np.repeat(thick, each)
    positions = first + spacing * np.arange(len(thin))
    expected = study_logits(column(*thick), (first + 5.0 * np.arange(6)).tolist(), RULE)
    assert study_logits(column(*thin), positions.tolist(), RULE) == pytest.approx(expected)


def test_rounded_positions_of_a_nominal_series_merge_no_slices() -> None:
    positions = [round(4.9999 * i, 4) for i in range(30)]
    logits = column(*([9.0, -9.0] * 15))
    assert study_logits(logits, positions, RULE).tolist() == [9.0] * 6


@pytest.mark.parametrize("spacing", [1.25, 2.5])
@pytest.mark.parametrize("rounding", [-1e-3, -1e-9, 1e-9, 1e-3])
def test_rounded_positions_of_a_thin_series_move_no_slice_to_the_next_bin(spacing: float, rounding: float) -> None:
    each = round(5.0 / spacing)
    logits = column(*np.repeat([9.0, -9.0] * 6, each))
    exact = spacing * np.arange(len(logits))
    rounded = exact + rounding * (np.arange(len(logits)) > 0)
    assert study_logits(logits, exact.tolist(), RULE).tolist() == [9.0] * 6
    assert study_logits(logits, rounded.tolist(), RULE) == pytest.approx([9.0] * 6)


def test_a_gap_in_a_thin_series_does_not_mix_its_two_sides() -> None:
    positions = [0.0, 1.0, 2.0, 3.0, 4.0, 50.0, 51.0, 52.0, 53.0, 54.0]
    rule = StudyRule(extent_mm=5.0, nominal_spacing_mm=5.0)
    assert study_logits(column(*([1.0] * 5 + [7.0] * 5)), positions, rule).tolist() == [7.0] * 6


def test_slices_at_one_place_are_slices_of_their_own() -> None:
    assert study_logits(column(1.0, 3.0), [5.0, 5.0], StudyRule(extent_mm=5.0)).tolist() == [3.0] * 6


@pytest.mark.parametrize(
    ("logits", "positions"), [(np.zeros((0, 6)), []), (np.zeros((2, 5)), [0, 1]), (np.zeros((2, 6)), [0])]
)
def test_scores_of_another_shape_are_refused(logits: np.ndarray, positions: list[float | None]) -> None:
    with pytest.raises(ValueError, match=r"expected \(slices, 6\) logits with one position each"):
        study_logits(logits, positions, RULE)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        study_logits(column(np.nan), [0.0], RULE)


def test_an_established_type_raises_any_and_another_is_lowered_to_it() -> None:
    established = PerLabel.of([True, True, False, True, True, True])
    p = consistent(np.array([0.3, 0.6, 0.9, 0.1, 0.2, 0.0]), established)
    assert p.tolist() == [0.6, 0.6, 0.6, 0.1, 0.2, 0.0]


def test_slices_and_study_have_calibrations_of_their_own(make_card: Callable[..., ModelCard]) -> None:
    by_slice = PerLabel.build(lambda label: Calibration(scale=1.0, bias=0.0))
    by_study = PerLabel.build(lambda label: Calibration(scale=2.0, bias=1.0))
    card = make_card(calibration=CalibrationTable(slice=by_slice, study=by_study))
    result = StudyProbabilities.from_logits(column(0.5, 1.5), positions_mm=[0.0, 5.0], card=card)
    assert result.slice_probabilities[:, 0] == pytest.approx(sigmoid(np.array([0.5, 1.5])))
    assert result.study_probabilities[0] == pytest.approx(sigmoid(np.array(3.0)))


def test_probabilities_are_not_to_be_changed(make_card: Callable[..., ModelCard]) -> None:
    given_logits = column(0.5)
    result = StudyProbabilities.from_logits(given_logits, positions_mm=[None], card=make_card())
    given_logits[0] = 9.0
    assert result.slice_logits[0, 0] == 0.5
    for array in (result.slice_logits, result.slice_probabilities, result.study_logits, result.study_probabilities):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


@pytest.mark.parametrize(
    ("slices", "study", "words"),
    [
        ((1, 5), (6,), "expected .slices, 6. logits"),
        ((0, 6), (6,), "expected .slices, 6. logits"),
        ((1, 6), (5,), "expected 6 study scores"),
    ],
)
def test_probabilities_of_another_shape_cannot_be_made(
    slices: tuple[int, ...], study: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        StudyProbabilities(
            slice_logits=np.zeros(slices),
            slice_probabilities=np.zeros(slices),
            study_logits=np.zeros(study),
            study_probabilities=np.zeros(study),
            scored=np.ones(slices[0], dtype=bool),
        )


def test_probabilities_that_do_not_say_which_slices_were_scored_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="expected for each of 1 slices whether it was scored"):
        StudyProbabilities(
            slice_logits=np.zeros((1, 6)),
            slice_probabilities=np.zeros((1, 6)),
            study_logits=np.zeros(6),
            study_probabilities=np.zeros(6),
            scored=np.ones(2, dtype=bool),
        )


def test_probabilities_with_a_type_above_any_cannot_be_made() -> None:
    p = np.array([0.1, 0.2, 0.0, 0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="higher probability than any"):
        StudyProbabilities(
            slice_logits=np.zeros((1, 6)),
            slice_probabilities=p[None],
            study_logits=np.zeros(6),
            study_probabilities=p,
            scored=np.ones(1, dtype=bool),
        )


@pytest.mark.parametrize(
    ("spacing", "together"), [(0.625, 8), (1.25, 4), (2.5, 2), (3.0, 2), (3.75, 1), (4.9, 1), (5.0, 1), (10.0, 1)]
)
def test_thin_slices_share_a_place_of_about_the_nominal_spacing(spacing: float, together: int) -> None:
    places = sequence_places([spacing * i - 80 for i in range(238)], 5.0)
    assert places.tolist() == [i // together for i in range(238)]


def test_slices_of_unknown_position_have_a_place_each() -> None:
    assert sequence_places([0.0, None, 0.5, 1.0], 5.0).tolist() == [0, 1, 2, 3]
    assert sequence_places([7.0], 5.0).tolist() == [0]
    assert sequence_places([7.0, 7.0], 5.0).tolist() == [0, 1]


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=40))
def test_places_are_whole_numbers_without_gaps_for_any_positions(positions: list[float]) -> None:
    places = sequence_places(positions, 5.0)
    assert len(places) == len(positions)
    assert places[0] == 0
    assert set(np.diff(places)) <= {0, 1}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 99))
def test_slices_that_share_a_place_are_averaged(counts: list[int], seed: int) -> None:
    places = np.repeat(np.arange(len(counts)), counts)
    values = np.random.default_rng(seed).normal(size=(len(places), 3)).astype(np.float32)
    expected = [values[places == place].mean(axis=0) for place in range(len(counts))]
    assert averaged(values, places) == pytest.approx(np.array(expected), abs=1e-5)


def test_a_study_scored_by_the_model_itself_is_calibrated_as_one_scored_by_the_rule(
    make_card: Callable[..., ModelCard],
) -> None:
    card, logits = make_card(), column(1.0, -2.0, 0.5)
    given_study = StudyProbabilities.from_logits(
        logits, positions_mm=[0, 5, 10], card=card, study=[3.0, 1.0, 0.0, 0.0, -1.0, -2.0]
    )
    assert given_study.study_logits.tolist() == [3.0, 1.0, 0.0, 0.0, -1.0, -2.0]
    assert given_study.study_probabilities[0] == pytest.approx(sigmoid(np.array(3.0 * 1.5 - 0.25)))
    ruled = StudyProbabilities.from_logits(logits, positions_mm=[0, 5, 10], card=card)
    assert (given_study.slice_probabilities == ruled.slice_probabilities).all()
