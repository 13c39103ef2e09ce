"""What the sites' histograms say together, judged by the rows that they were counted from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from hemoscope.errors import FederationError
from hemoscope.evaluation.bootstrap import bootstrap_scores
from hemoscope.evaluation.calibrate import fit_platt
from hemoscope.evaluation.threshold_rules import ThresholdRule
from hemoscope.federated.exchange.histograms import Level, ScoreHistograms, score_histograms
from hemoscope.federated.exchange.pooled import pool
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.training.fitted_levels import fit_calibration, fit_points
from hemoscope.training.run_scores import LevelScores

ANY = Hemorrhage.ANY

_site = st.lists(st.tuples(st.floats(-10, 10), st.sampled_from([0.0, 1.0]), st.integers(0, 4)), min_size=0, max_size=40)


def scores_of(rows: list[tuple[float, float, int]]) -> LevelScores:
    """All six labels alike: (logit, truth, patient) of each row."""
    return LevelScores(
        logits=np.array([[logit] * 6 for logit, _, _ in rows]).reshape(-1, 6),
        truth=np.array([[known] * 6 for _, known, _ in rows]).reshape(-1, 6),
        patients=tuple(f"p{patient}" for _, _, patient in rows),
    )


def site(patients: int, *, slices: int = 1, seed: int, positive: float = 0.4) -> LevelScores:
    """Normal logits whose classes lie 2 apart; slices of one patient are alike."""
    random = np.random.default_rng(seed)
    truth = np.repeat(random.random((patients, 1)) < positive, slices, axis=0).astype(float)
    of_patient = np.repeat(random.normal(0, 1.2, (patients, 1)), slices, axis=0)
    logits = 2 * truth - 2 + of_patient + random.normal(0, 0.5, truth.shape)
    names = tuple(f"p{number}" for number in range(patients) for _ in range(slices))
    return LevelScores(logits=np.tile(logits, 6), truth=np.tile(truth, 6), patients=names)


def reported(scores: LevelScores, *, least: int = 1, level: Level = "patient") -> ScoreHistograms:
    return score_histograms(scores, level=level, least_cell=least)


def all_rows(*sites: LevelScores) -> LevelScores:
    return LevelScores(
        logits=np.concatenate([one.logits for one in sites]),
        truth=np.concatenate([one.truth for one in sites]),
        patients=tuple(f"{number} {name}" for number, one in enumerate(sites) for name in one.patients),
    )


@given(sites=st.lists(_site, min_size=1, max_size=4), least=st.integers(1, 7))
def test_the_auroc_of_the_rows_lies_within_the_bounds(sites: list[list[tuple[float, float, int]]], least: int) -> None:
    histograms = [reported(scores_of(rows), least=least, level="slice") for rows in sites]
    found = pool(histograms).auroc(ANY)
    counted = [
        row for rows, one in zip(sites, histograms, strict=True) if one.positive[ANY] is not None for row in rows
    ]
    truth = [known for _, known, _ in counted]
    if len(set(truth)) < 2:
        assert found is None
        return
    assert found is not None
    true = roc_auc_score(truth, [logit for logit, _, _ in counted])
    assert found.low - 1e-12 <= true <= found.high + 1e-12
    assert abs(found.value - true) <= found.error + 1e-12


@given(order=st.permutations(range(4)))
def test_the_order_of_sites_changes_nothing(order: list[int]) -> None:
    sites = [reported(site(15, seed=seed), least=3) for seed in range(4)]
    one, other = pool(sites), pool([sites[place] for place in order])
    assert one.auroc(ANY) == other.auroc(ANY)
    assert one.interval(ANY, rounds=50) == other.interval(ANY, rounds=50)
    assert np.array_equal(one.made_rows().logits, other.made_rows().logits)


def test_with_fine_cells_the_value_is_that_of_the_rows() -> None:
    sites = [site(patients, seed=patients) for patients in (40, 80, 160)]
    rows = all_rows(*sites)
    found = pool([reported(one) for one in sites])
    bounds = found.auroc(ANY)
    assert bounds is not None
    assert bounds.error < 0.03
    assert bounds.value == pytest.approx(roc_auc_score(rows.truth[:, 0], rows.logits[:, 0]), abs=0.003)
    assert (found.rows, found.patients, found.reported[ANY]) == (280, 280, 3)
    assert found.positive_patients(ANY) == rows.truth[:, 0].sum()


def test_rows_in_coarse_cells_are_taken_to_lie_evenly() -> None:
    """A positive cell of 0 to 2 over a negative one of 0 to 1: three quarters above; the bounds know nothing."""
    positive = [(0.1, 1.0, 0), (1.9, 1.0, 1)]
    negative = [(0.1, 0.0, 2), (0.9, 0.0, 3)]
    found = pool([reported(scores_of([*positive, *negative]), least=2)]).auroc(ANY)
    assert found is not None
    assert (found.value, found.low, found.high, found.error) == (0.75, 0.0, 1.0, 0.75)


def test_the_value_is_nearer_than_the_bounds_can_promise() -> None:
    sites = [site(40, seed=seed) for seed in range(5)]
    rows = all_rows(*sites)
    found = pool([reported(one, least=5) for one in sites]).auroc(ANY)
    assert found is not None
    true = roc_auc_score(rows.truth[:, 0], rows.logits[:, 0])
    assert abs(found.value - true) < 0.03
    assert abs(found.value - true) < abs((found.low + found.high) / 2 - true)


def test_coarser_cells_only_widen_the_bounds() -> None:
    sites = [site(60, seed=seed) for seed in range(3)]
    fine, coarse = (pool([reported(one, least=least) for one in sites]).auroc(ANY) for least in (1, 12))
    assert fine is not None
    assert coarse is not None
    assert coarse.low < fine.low < fine.high < coarse.high


def test_the_interval_of_patients_is_that_of_a_bootstrap_over_them_with_the_error_around_it() -> None:
    sites = [site(60, seed=seed) for seed in range(3)]
    rows = all_rows(*sites)
    usual = bootstrap_scores(1 / (1 + np.exp(-rows.logits)), rows.truth, rows.patients).labels[ANY]["auroc"]
    pooled = pool([reported(one) for one in sites])
    found, bounds = pooled.interval(ANY), pooled.auroc(ANY)
    assert found is not None
    assert usual is not None
    assert bounds is not None
    assert found.low < usual.low
    assert found.high > usual.high
    assert found.low == pytest.approx(usual.low - (bounds.value - bounds.low), abs=0.01)
    assert found.high == pytest.approx(usual.high + (bounds.high - bounds.value), abs=0.01)


def test_many_slices_of_few_patients_do_not_narrow_the_interval() -> None:
    sites = [site(12, slices=30, seed=seed) for seed in range(2)]
    rows = all_rows(*sites)
    usual = bootstrap_scores(1 / (1 + np.exp(-rows.logits)), rows.truth, rows.patients).labels[ANY]["auroc"]
    found = pool([reported(one, level="slice") for one in sites]).interval(ANY)
    assert found is not None
    assert usual is not None
    assert found.low < usual.low
    assert found.high > usual.high


def test_a_single_class_has_neither_value_nor_interval() -> None:
    found = pool([reported(scores_of([(number / 9, 1.0, number) for number in range(9)]))])
    assert found.auroc(ANY) is None
    assert found.interval(ANY) is None


@pytest.mark.parametrize(("least", "off"), [(1, 0.02), (5, 0.08)])
def test_fits_on_made_rows_are_about_those_of_the_rows(least: int, off: float) -> None:
    sites = [site(200, seed=seed) for seed in range(3)]
    rows, made = all_rows(*sites), pool([reported(one, least=least) for one in sites]).made_rows()
    of_rows, of_cells = fit_platt(rows.logits[:, 0], rows.truth[:, 0]), fit_calibration(made).calibration[ANY]
    assert of_cells.scale == pytest.approx(of_rows.scale, rel=off)
    assert of_cells.bias == pytest.approx(of_rows.bias, abs=off)


def test_made_rows_of_one_label_are_neither_lifted_nor_capped_by_another() -> None:
    scores = pool([reported(site(60, seed=1))]).made_rows()
    fitted = fit_calibration(scores)
    raw = calibrated(scores.logits, fitted.calibration)
    seen = consistent(raw, PerLabel.build(lambda _: True))
    known = np.isfinite(scores.truth)
    assert (known.sum(axis=1) == 1).all()
    assert seen[known] == pytest.approx(raw[known])
    points = fit_points(
        scores, fitted, PerLabel.build(lambda _: True), lambda _: ThresholdRule(kind="sensitivity", target=0.9)
    )
    assert len({(point.threshold, point.sensitivity) for point in points.values}) == 1  # all labels are alike here
    assert points[ANY].sensitivity is not None
    assert points[ANY].sensitivity >= 0.9


def test_more_rows_than_a_fit_needs_are_thinned_in_proportion() -> None:
    many = LevelScores(logits=np.full((300_000, 6), -3.0), truth=np.zeros((300_000, 6)), patients=("a", "b") * 150_000)
    made = pool([reported(many, level="slice")]).made_rows()
    assert len(made.patients) == 6 * 100_000


def test_rows_are_placed_evenly_in_their_cells_and_open_ends_reach_a_logit_beyond() -> None:
    found = pool([reported(scores_of([(-50.0, 0.0, 1), (50.0, 1.0, 2), (0.1, 1.0, 3)]))])
    assert found.negative[ANY].placed().tolist() == [-8.5]
    assert found.positive[ANY].placed().tolist() == [0.125, 8.5]
    everywhere = pool([reported(scores_of([(-50.0, 0.0, 1), (50.0, 0.0, 2), (50.0, 0.0, 2)]), least=3)])
    assert everywhere.negative[ANY].placed().tolist() == [-6.0, 0.0, 6.0]


def test_nothing_and_unlike_levels_are_not_pooled() -> None:
    with pytest.raises(FederationError, match="nothing cannot be pooled"):
        pool([])
    with pytest.raises(FederationError, match="patient and slice cannot be pooled"):
        pool([reported(site(9, seed=1)), reported(site(9, seed=1), level="slice")])


@pytest.mark.parametrize(
    ("patients", "positive", "shift"), [(10, 0.25, 1), (20, 0.25, 1), (50, 0.25, 0), (20, 0.05, -1)]
)
def test_small_sites_shift_the_pooled_prevalence_and_its_range_holds_the_true_one(
    patients: int, positive: float, shift: int
) -> None:
    """Sites with 1 to 4 positives vanish, the others stay. The page repeats what this simulation finds."""
    sites = [site(patients, seed=seed, positive=positive) for seed in range(400)]
    true = float(all_rows(*sites).truth[:, 0].mean())
    found = pool([reported(one, least=5) for one in sites]).prevalence(ANY)
    assert found is not None
    assert found.low <= true <= found.high
    assert np.sign(round(found.reported - true, 2)) == shift
    row = f"| {patients} | {true:.2f} | {found.reported:.2f} | {found.low:.2f} to {found.high:.2f} |"
    assert row in (Path(__file__).resolve().parents[3] / "docs/explanation/score-histograms.md").read_text(), row


def test_the_share_of_positives_is_known_if_nothing_is_withheld() -> None:
    sites = [site(30, seed=seed, positive=0.25) for seed in range(10)]
    found = pool([reported(one) for one in sites]).prevalence(ANY)
    assert found is not None
    assert found.withheld == 0
    assert found.reported == found.low == found.high == all_rows(*sites).truth[:, 0].mean()


def test_the_range_of_the_prevalence_by_hand() -> None:
    """Ten rows with five positives are reported; another ten hold one to four; a third site has no rows."""
    half = scores_of([(float(number), float(number < 5), number) for number in range(10)])
    few = scores_of([(float(number), float(number < 2), number) for number in range(10)])
    found = pool([reported(half, least=5), reported(few, least=5), reported(scores_of([]), least=5)]).prevalence(ANY)
    assert found is not None
    assert (found.reported, found.low, found.high, found.withheld) == (0.5, 0.3, 0.45, 1)
    assert pool([reported(few, least=5)]).prevalence(ANY) is None
