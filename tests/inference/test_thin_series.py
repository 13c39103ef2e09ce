"""Of a thin series, slices are scored where they tell something; the others are interpolated, and are marked."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.inference.bundle import ModelBundle
from hemoscope.inference.calibration import Calibration, ThinSeriesRule
from hemoscope.inference.engine import RawScores
from hemoscope.inference.predictor import Predictor, Stage
from hemoscope.inference.thin_series import Run, SlicesToScore, overlapping_runs
from hemoscope.labels import PerLabel
from hemoscope.volume import HounsfieldVolume

PLATT = PerLabel.build(lambda label: Calibration(scale=1.0, bias=0.0))
FIXED = ThinSeriesRule(step_mm=2.5, tolerance=1.0)


def volume_at(positions: list[float], hounsfield: np.ndarray | None = None) -> HounsfieldVolume:
    empty = np.zeros((len(positions), 1, 1), dtype=np.int16)
    return HounsfieldVolume(
        hounsfield=empty if hounsfield is None else hounsfield,
        spacing_mm=(float(np.median(np.diff(positions))), 0.5, 0.5),
        positions_mm=tuple(map(float, positions)),
        orientation=None,
    )


def runs_at(positions: list[float]) -> list[list[int]]:
    volume = volume_at(positions)
    return [run.places.tolist() for run in overlapping_runs([(volume, range(len(volume)))], 5.0)]


def read(logits: np.ndarray, positions: np.ndarray, rule: ThinSeriesRule | None) -> SlicesToScore:
    """Score a single run, whose every slice would score these logits; maps are the logits once more."""
    run = Run(np.arange(len(positions)), positions)
    chosen = SlicesToScore((run,), len(positions), rule=rule, calibration=PLATT)
    while len(places := chosen.following()):
        scores = logits[places].astype(np.float32)
        chosen.add(places, RawScores(logits=scores, maps=scores[:, :, None, None], embeddings=scores[:, :3]))
    return chosen


@pytest.mark.parametrize("spacing", [2.5, 2.501, 3.0, 5.0, 10.0])
def test_a_series_of_slices_of_2_5_mm_and_more_is_scored_in_full(spacing: float) -> None:
    assert runs_at([spacing * index for index in range(40)]) == []


@pytest.mark.parametrize("spacing", [0.3, 0.625, 1.0, 1.25, 2.0])
def test_a_thin_series_is_one_run(spacing: float) -> None:
    assert runs_at([spacing * index for index in range(40)]) == [list(range(40))]


def test_a_gap_and_thick_slices_end_a_run() -> None:
    assert runs_at([*np.arange(10.0), *np.arange(20.0, 30.0)]) == [list(range(10)), list(range(10, 20))]
    assert runs_at([*np.arange(60.0), *(62.0 + 5.0 * np.arange(12))]) == [list(range(60))]


def test_slices_of_unknown_position_are_all_scored() -> None:
    volume = replace(volume_at([float(index) for index in range(9)]), positions_mm=(None, *map(float, range(8))))
    assert overlapping_runs([(volume, range(9))], 5.0) == ()


def test_stacks_of_one_series_have_runs_of_their_own_places() -> None:
    volume = volume_at([float(index) for index in range(4)])
    runs = overlapping_runs([(volume, (0, 1, 2, 3)), (volume, (4, 6, 7, 8))], 5.0)
    assert [run.places.tolist() for run in runs] == [[0, 1, 2, 3], [4, 6, 7, 8]]


@given(st.lists(st.floats(0.1, 2.4), min_size=2, max_size=80))
def test_the_ends_and_a_slice_every_step_are_scored(steps: list[float]) -> None:
    positions = np.insert(np.cumsum(steps), 0, 0.0)
    scored = read(np.zeros((len(positions), 6)), positions, FIXED).scored
    assert scored[0]
    assert scored[-1]
    # Two slices farther apart than the step have no slice between them.
    chosen = np.flatnonzero(scored)
    assert all(
        after == before + 1 or positions[after] - positions[before] <= FIXED.step_mm + 0.01
        for before, after in pairwise(chosen)
    )


@given(st.lists(st.floats(0.1, 2.4), min_size=2, max_size=80), st.floats(-3, 3), st.floats(-0.2, 0.2))
def test_scores_that_are_a_line_in_mm_are_filled_in_exactly(steps: list[float], start: float, slope: float) -> None:
    positions = np.insert(np.cumsum(steps), 0, 0.0)
    logits = np.repeat((start + slope * positions)[:, None], 6, axis=1)
    found = read(logits, positions, FIXED).filled()
    assert found.maps is not None
    assert found.embeddings is not None
    assert found.logits == pytest.approx(logits, abs=1e-4)
    assert found.maps[:, :, 0, 0] == pytest.approx(logits, abs=1e-4)
    assert found.embeddings == pytest.approx(logits[:, :3], abs=1e-4)


def test_what_was_scored_is_kept_to_the_bit_and_the_rest_is_marked() -> None:
    positions, logits = 0.625 * np.arange(100), np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    chosen = read(logits, positions, FIXED)
    assert chosen.scored.mean() < 0.3
    assert (chosen.filled().logits[chosen.scored] == logits[chosen.scored]).all()
    assert not (chosen.filled().logits[~chosen.scored] == logits[~chosen.scored]).any()


def test_slices_are_added_where_a_bleed_begins_and_not_in_clear_slices() -> None:
    positions = 0.625 * np.arange(240)
    bleed = np.exp(-0.5 * ((positions - 75.0) / 4.0) ** 2)
    logits = np.repeat((-6.0 + 8.0 * bleed)[:, None], 6, axis=1)
    chosen = read(logits, positions, ThinSeriesRule(step_mm=2.5, tolerance=0.01))
    near = np.abs(positions - 75.0) < 12.0
    assert chosen.scored[near].mean() > 2 * chosen.scored[~near].mean()
    probabilities, expected = (1 / (1 + np.exp(-one)) for one in (chosen.filled().logits, logits))
    assert probabilities == pytest.approx(expected, abs=0.01)


def test_rough_scores_near_a_half_are_all_scored_and_rough_low_ones_are_not() -> None:
    positions, noise = 0.625 * np.arange(100), np.random.default_rng(0).normal(size=(100, 6))
    rule = ThinSeriesRule(step_mm=2.5, tolerance=0.001)
    assert read(noise, positions, rule).scored.mean() > 0.95
    assert read(noise - 12.0, positions, rule).scored.mean() < 0.3


def test_a_card_without_the_rule_scores_every_slice() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 6))
    chosen = read(logits, 0.625 * np.arange(30), None)
    assert chosen.scored.all()
    assert (chosen.filled().logits == logits.astype(np.float32)).all()


@pytest.mark.parametrize(("step_mm", "tolerance"), [(0.0, 0.1), (5.1, 0.1), (2.5, 0.0), (2.5, 1.1)])
def test_a_step_that_could_miss_a_lesion_is_refused(step_mm: float, tolerance: float) -> None:
    with pytest.raises(ValueError, match="a thin-series rule needs a step up to 5 mm and a tolerance above 0"):
        ThinSeriesRule(step_mm=step_mm, tolerance=tolerance)


@pytest.fixture
def thin() -> HounsfieldVolume:
    """60 slices of .625 mm of a head that gets denser from below to above, in waves."""
    level = (20 + 30 * np.sin(np.arange(60) / 8)).astype(np.int16)
    return volume_at([0.625 * index for index in range(60)], np.repeat(level, 64 * 64).reshape(60, 64, 64))


@pytest.fixture
def with_rule(loaded_bundle: ModelBundle) -> Callable[[ThinSeriesRule | None], Predictor]:
    """A predictor whose card has this rule."""
    return lambda rule: Predictor(replace(loaded_bundle, card=replace(loaded_bundle.card, thin_series=rule)))


def test_a_reading_says_which_slices_were_scored_and_agrees_with_scoring_all(
    with_rule: Callable[[ThinSeriesRule | None], Predictor], thin: HounsfieldVolume
) -> None:
    every, rule = with_rule(None).read(thin, maps=True), ThinSeriesRule(step_mm=2.5, tolerance=0.01)
    found = with_rule(rule).read(thin, maps=True)
    scored = np.array([one.scored for one in found.findings.slices])
    assert 0.2 < scored.mean() < 0.9
    assert (scored == found.probabilities.scored).all()
    assert all(one.scored for one in every.findings.slices)
    assert (found.probabilities.slice_logits[scored] == every.probabilities.slice_logits[scored]).all()
    assert found.probabilities.slice_probabilities == pytest.approx(every.probabilities.slice_probabilities, abs=0.02)
    assert found.probabilities.study_probabilities == pytest.approx(every.probabilities.study_probabilities, abs=0.01)
    assert found.maps is not None
    assert every.maps is not None
    assert (found.maps[scored] == every.maps[scored]).all()
    assert found.maps == pytest.approx(every.maps, abs=0.5)


def test_thick_slices_are_read_the_same_with_the_rule_and_without(
    with_rule: Callable[[ThinSeriesRule | None], Predictor], thin: HounsfieldVolume
) -> None:
    thick = volume_at([2.5 * index for index in range(60)], np.array(thin.hounsfield))
    found, every = (with_rule(rule).read(thick, maps=True) for rule in (FIXED, None))
    assert found.findings == every.findings
    assert (found.probabilities.slice_logits == every.probabilities.slice_logits).all()
    assert found.maps is not None
    assert every.maps is not None
    assert (found.maps == every.maps).all()


def test_progress_ends_at_the_number_of_slices(
    with_rule: Callable[[ThinSeriesRule | None], Predictor], thin: HounsfieldVolume
) -> None:
    seen: list[tuple[Stage, int, int]] = []
    with_rule(FIXED).read(thin, progress=lambda *event: seen.append(event))
    assert seen[-1] == (Stage.SCORING, 60, 60)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert len(seen) < 30
