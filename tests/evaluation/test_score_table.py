"""A card's score table: ranking as served, calibration with its reference, and the rows behind each number."""

import numpy as np
import pytest
import sklearn.metrics as reference

from hemoscope.evaluation.calibration_scores import calibration_scores
from hemoscope.evaluation.intervals import auroc_interval
from hemoscope.evaluation.score_table import score_table
from hemoscope.inference.calibration import sigmoid
from hemoscope.inference.card import ScoreTable, parse_dataclass, to_plain
from hemoscope.labels import LABELS, Hemorrhage

PATIENTS, SLICES = 40, 6


def made(*, unknown: bool = False) -> tuple[np.ndarray, np.ndarray, list[str], ScoreTable]:
    random = np.random.default_rng(11)
    sick = np.repeat(random.random((PATIENTS, 6)) < 0.5, SLICES, axis=0)
    truth = (sick & (random.random(sick.shape) < 0.6)).astype(float)
    logits = 2 * truth - 1 + np.repeat(random.normal(0, 0.7, (PATIENTS, 6)), SLICES, axis=0)
    if unknown:
        truth[:, 2] = np.nan
        truth[:60, 1] = np.nan
    patients = [f"p{row // SLICES}" for row in range(len(truth))]
    shown = sigmoid(logits + random.normal(0, 0.3, logits.shape))
    table = score_table(
        ranked=shown, probabilities=shown, truth=truth, patients=patients, name="n", description="d", level="slice"
    )
    return shown, truth, patients, table


def test_every_label_has_its_scores_with_closed_form_intervals_and_its_counts() -> None:
    shown, truth, patients, table = made()
    for k, label in enumerate(LABELS):
        score = table.labels[label]
        interval = auroc_interval(shown[:, k], truth[:, k], patients)
        assert interval is not None
        assert score.auroc is not None
        assert (score.auroc.low, score.auroc.high) == pytest.approx((interval.low, interval.high), abs=1e-4)
        assert score.auroc.value == pytest.approx(reference.roc_auc_score(truth[:, k], shown[:, k]), abs=1e-4)
        assert score.average_precision is not None
        precision = reference.average_precision_score(truth[:, k], shown[:, k])
        assert score.average_precision.value == pytest.approx(precision, abs=1e-4)
        names = np.array(patients)
        assert (score.n_positive, score.n_negative) == (int(truth[:, k].sum()), int((1 - truth[:, k]).sum()))
        assert score.n_positive_patients == len(set(names[truth[:, k] == 1]))
        assert score.n_negative_patients == len(set(names[truth[:, k] == 0]))


def test_the_calibration_error_has_no_interval_but_its_value_if_calibrated() -> None:
    shown, truth, patients, table = made()
    score, found = table.labels[Hemorrhage.ANY], calibration_scores(shown[:, 0], truth[:, 0], patients)
    assert score.ece is not None
    assert score.ece_if_calibrated is not None
    assert score.slope is not None
    assert score.observed_expected is not None
    assert (score.ece.low, score.ece.high) == (None, None)
    assert score.ece.value == pytest.approx(found.ece, abs=1e-4)
    assert score.ece_if_calibrated.value == pytest.approx(found.ece_if_calibrated, abs=1e-4)
    assert found.slope is not None
    assert score.slope.value == pytest.approx(found.slope.value, abs=1e-4)
    assert score.slope.low is not None
    assert score.slope.low < score.slope.value
    assert score.observed_expected.value == pytest.approx(truth[:, 0].sum() / shown[:, 0].sum(), abs=1e-4)


def test_unknown_rows_are_left_out_of_every_number_and_a_label_never_known_says_so() -> None:
    shown, truth, _, table = made(unknown=True)
    partly, never = table.labels[LABELS[1]], table.labels[LABELS[2]]
    assert partly.auroc is not None
    assert partly.auroc.value == pytest.approx(reference.roc_auc_score(truth[60:, 1], shown[60:, 1]), abs=1e-4)
    assert partly.n_positive + (partly.n_negative or 0) == PATIENTS * SLICES - 60
    assert (never.auroc, never.ece, never.slope, never.n_positive, never.n_negative) == (None, None, None, 0, 0)
    assert never.reason == "the label is unknown for every image"


def test_a_score_that_two_patients_leave_unbounded_is_not_given() -> None:
    random = np.random.default_rng(0)
    truth = np.zeros((60, 6))
    truth[:12] = 1
    patients = [f"p{row // 6}" for row in range(60)]  # the two first patients have every label
    shown = sigmoid(3 * truth - 2 + np.repeat(random.normal(0, 1.5, (10, 6)), 6, axis=0))
    table = score_table(
        ranked=shown, probabilities=shown, truth=truth, patients=patients, name="n", description="d", level="slice"
    )
    bounds = [
        bound
        for score in table.labels.values
        for found in (score.slope, score.intercept, score.observed_expected)
        if found is not None
        for bound in (found.low, found.high)
    ]
    assert all(bound is not None and abs(bound) < 100 for bound in bounds)
    assert any(score.slope is None for score in table.labels.values)
    assert parse_dataclass(ScoreTable, to_plain(table), where="table") == table
