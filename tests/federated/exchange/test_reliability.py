"""Probabilities against shares from counts alone, judged by rows."""

import numpy as np
import pytest

from hemoscope.evaluation.metrics import label_metrics
from hemoscope.federated.exchange.histograms import score_histograms
from hemoscope.federated.exchange.pooled import PooledScores, pool
from hemoscope.federated.exchange.reliability import calibration_error, reliability_bins
from hemoscope.inference.calibration import Calibration, sigmoid
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.run_scores import LevelScores

LABEL = Hemorrhage.SUBDURAL
K = LABELS.index(LABEL)
TWISTED = Calibration(scale=0.4, bias=0.8)


def rows(number: int, *, seed: int = 1) -> LevelScores:
    """Rows whose logits are calibrated as they stand."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, (number, 6))
    truth = (random.random(logits.shape) < sigmoid(logits)).astype(float)
    return LevelScores(logits=logits, truth=truth, patients=tuple(f"p{place}" for place in range(number)))


def pooled(scores: LevelScores, *, least: int = 5) -> PooledScores:
    return pool([score_histograms(scores, level="patient", least_cell=least)])


def test_the_calibration_error_is_about_that_of_the_rows() -> None:
    scores = rows(4000)
    for calibration in (Calibration(scale=1.0, bias=0.0), TWISTED):
        expected = label_metrics(calibration.apply(scores.logits[:, K]), scores.truth[:, K])["ece"]
        found = calibration_error(reliability_bins([(pooled(scores), calibration)], LABEL))
        assert found == pytest.approx(expected, abs=0.01)


def test_the_bins_hold_every_row_and_are_those_of_the_made_rows() -> None:
    sites = pooled(rows(300))
    made = sites.made_rows()
    known = np.isfinite(made.truth[:, K])
    expected = label_metrics(TWISTED.apply(made.logits[known, K]), made.truth[known, K])["ece"]
    bins = reliability_bins([(sites, TWISTED)], LABEL)
    assert sum(one.rows for one in bins) == 300
    assert calibration_error(bins) == pytest.approx(expected)
    assert [one.probability for one in bins] == sorted(one.probability for one in bins)


def test_parts_add_up_each_with_its_own_calibration() -> None:
    one, other = pooled(rows(300)), pooled(rows(500, seed=2))
    both = reliability_bins([(one, TWISTED), (other, Calibration(scale=1.0, bias=0.0))], LABEL)
    assert sum(found.rows for found in both) == 800
    twice = reliability_bins([(one, TWISTED)] * 2, LABEL)
    assert [found.rows for found in twice] == [2 * found.rows for found in reliability_bins([(one, TWISTED)], LABEL)]


def test_more_rows_than_are_placed_count_in_full() -> None:
    scores = rows(1000)
    many = LevelScores(
        logits=np.tile(scores.logits, (300, 1)), truth=np.tile(scores.truth, (300, 1)), patients=scores.patients * 300
    )
    few, more = (reliability_bins([(pooled(found, least=1), TWISTED)], LABEL) for found in (scores, many))
    assert sum(one.rows for one in more) == pytest.approx(300_000)
    assert calibration_error(more) == pytest.approx(calibration_error(few), abs=0.002)


def test_no_rows_have_no_error() -> None:
    assert calibration_error(()) is None
    nothing = LevelScores(logits=np.zeros((0, 6)), truth=np.zeros((0, 6)), patients=())
    assert reliability_bins([(pooled(nothing), TWISTED)], LABEL) == ()
