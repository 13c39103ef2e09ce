"""Intervals resample whole patients, rounds are repeatable, and undefined scores have reasons."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import (
    bootstrap_scores,
    resamples,
)
from hemoscope.evaluation.intervals import Interval, group_indices
from hemoscope.labels import LABELS

Array = NDArray[np.float64]


def study(seed: int, patients: int = 40, slices: int = 8, shift: float = 2.0) -> tuple[Array, Array, NDArray[np.str_]]:
    """Probabilities, labels and patients; scores of one patient move together, as slices of one head do."""
    random = np.random.default_rng(seed)
    groups = np.repeat([f"p{i:03d}" for i in range(patients)], slices)
    sick = np.repeat(random.random((patients, 6)) < 0.4, slices, axis=0)
    labels = (sick & (random.random(sick.shape) < 0.6)).astype(float)
    mood = np.repeat(random.normal(size=(patients, 6)), slices, axis=0)
    logits = mood + random.normal(size=labels.shape) + shift * labels - 1
    return 1 / (1 + np.exp(-logits)), labels, groups


def test_values_are_those_of_scikit_learn_and_lie_inside_their_interval() -> None:
    p, y, groups = study(0)
    scores = bootstrap_scores(p, y, groups, rounds=200)
    for k, label in enumerate(LABELS):
        found = scores.labels[label]["auroc"]
        assert found is not None
        assert found.value == pytest.approx(reference.roc_auc_score(y[:, k], p[:, k]), abs=1e-9)
        assert found.low < found.value < found.high
    assert scores.macro["auroc"] is not None
    assert scores.macro["auroc"].value == pytest.approx(reference.roc_auc_score(y, p), abs=1e-9)


def test_rounds_equal_scoring_the_drawn_patients_one_by_one() -> None:
    p, y, groups = study(1, patients=12)
    index, n = group_indices(groups, len(p))
    drawn = [
        reference.average_precision_score(y[:, 0], p[:, 0], sample_weight=w[index])
        for chunk in resamples(n, 50, seed=3, chunk=7)
        for w in chunk
    ]
    found = bootstrap_scores(p, y, groups, rounds=50, seed=3).labels["any"]["average_precision"]
    assert found is not None
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-9)


def test_the_draws_do_not_depend_on_the_chunk() -> None:
    one, many = (np.concatenate(list(resamples(9, 20, seed=4, chunk=chunk))) for chunk in (20, 3))
    assert np.array_equal(one, many)
    assert (one.sum(axis=1) == 9).all()


def test_drawing_patients_is_wider_than_drawing_slices_of_the_same_heads() -> None:
    p, y, groups = study(2)
    by_patient, by_image = bootstrap_scores(p, y, groups, rounds=300), bootstrap_scores(p, y, rounds=300)
    wide, narrow = by_patient.labels["any"]["auroc"], by_image.labels["any"]["auroc"]
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)
    assert by_patient.n_groups == 40
    assert by_image.n_groups is None
    assert by_image.labels["any"].n_positive_groups is None


def test_the_same_seed_gives_the_same_intervals() -> None:
    p, y, groups = study(3)
    first, again, other = (bootstrap_scores(p, y, groups, rounds=50, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_label_with_one_class_has_no_interval_and_gives_a_reason() -> None:
    p, y, groups = study(4)
    y[:, 1] = 0
    scores = bootstrap_scores(p, y, groups, rounds=50)
    epidural = scores.labels["epidural"]
    assert epidural["auroc"] is None
    assert "all 320 images are negative" in str(epidural.reason)
    assert epidural.dropped_rounds == 50
    assert scores.macro["auroc"] is not None
    others = [scores.labels[label]["auroc"] for label in LABELS if label != "epidural"]
    assert scores.macro["auroc"].value == pytest.approx(np.mean([o.value for o in others if o is not None]))


def test_rounds_without_the_one_positive_patient_are_dropped_and_counted() -> None:
    p, y, groups = study(5, patients=10)
    y[:, 1] = groups == "p003"
    found = bootstrap_scores(p, y, groups, rounds=400).labels["epidural"]
    assert 0.25 < found.dropped_rounds / 400 < 0.45  # (1 - 1/10)^10 = .35
    assert found.n_positive_groups == 1
    assert found["auroc"] is not None


@pytest.mark.parametrize(("threshold", "f1", "hits"), [(0.5, 1.0, 4), (0.95, 0.0, 0)])
def test_scores_that_no_sample_changes_have_the_exact_interval_of_the_fewer_patients(
    threshold: float, f1: float, hits: int
) -> None:
    y = np.repeat((np.arange(20) < 4).astype(float), 3)[:, None].repeat(6, axis=1)
    groups = np.repeat(np.arange(20), 3).tolist()
    scores = bootstrap_scores(0.1 + 0.8 * y, y, groups, thresholds=[threshold] * 6, rounds=50)
    found = scores.labels["any"]
    assert scores.macro["auroc"] == found["auroc"]
    assert scores.macro["f1"] == found["f1"]
    exact = {count: binomtest(count, 4).proportion_ci(0.95, method="exact") for count in (4, hits)}
    perfect, decided = found["average_precision"], found["f1"]
    assert perfect is not None
    assert decided is not None
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1.0, exact[4].low, exact[4].high))
    assert (decided.value, decided.low, decided.high) == pytest.approx((f1, exact[hits].low, exact[hits].high))


def test_one_positive_patient_says_nothing_about_average_precision_and_f1() -> None:
    p, y, groups = study(3, patients=12)
    y[:, 0] = groups == "p000"
    found = bootstrap_scores(p, y, groups, rounds=50).labels["any"]
    for name in ("average_precision", "f1"):
        score = found[name]
        assert score is not None
        assert (score.low, score.high) == (0.0, 1.0)


def test_bootstrap_intervals_of_fewer_than_five_patients_are_marked_as_unreliable() -> None:
    p, y, groups = study(3)
    y[:, 0] = np.isin(groups, ["p000", "p001", "p002", "p003"]) * (np.arange(len(p)) % 2)
    scores = bootstrap_scores(p, y, groups, rounds=50)
    few, many = scores.labels["any"], scores.labels["epidural"]
    bootstrapped = ("average_precision", "f1", "brier", "log_loss")
    assert all(few[name] is not None and few[name].unreliable for name in bootstrapped)
    assert all(many[name] is not None and not many[name].unreliable for name in bootstrapped)
    assert few["auroc"] is not None
    assert not few["auroc"].unreliable  # in closed form
    assert scores.macro["auroc"] is not None
    assert scores.macro["auroc"].unreliable  # the mean is over a label of four patients


def test_unknown_labels_leave_the_image_out_for_that_label_only() -> None:
    p, y, groups = study(6)
    known = y.copy()
    known[:100, 2] = np.nan
    scores = bootstrap_scores(p, known, groups, rounds=20)
    found = scores.labels["intraparenchymal"]
    assert found.n_images == 220
    assert found["auroc"] is not None
    assert found["auroc"].value == pytest.approx(reference.roc_auc_score(y[100:, 2], p[100:, 2]), abs=1e-9)
    assert scores.labels["any"].n_images == 320
    assert scores.exact_match is not None
    assert scores.exact_match.value == pytest.approx(((p > 0.5) == y)[100:].all(axis=1).mean())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_scores_do_not_depend_on_the_order_of_the_images(seed: int) -> None:
    p, y, groups = study(seed, patients=15, slices=4)
    shuffled = np.random.default_rng(seed).permutation(len(p))
    one = bootstrap_scores(p, y, groups, rounds=20)
    two = bootstrap_scores(p[shuffled], y[shuffled], groups[shuffled], rounds=20)
    for name in one.labels["any"].metrics:
        a, b = one.labels["any"][name], two.labels["any"][name]
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert [a.value, a.low, a.high] == pytest.approx([b.value, b.low, b.high])


def test_an_interval_writes_its_three_numbers() -> None:
    assert Interval(value=0.5, low=0.4, high=0.6).as_dict() == {"value": 0.5, "low": 0.4, "high": 0.6}


def test_what_cannot_be_scored_is_refused() -> None:
    p, y, groups = study(7)
    with pytest.raises(DataError, match="319 groups for 320 images"):
        bootstrap_scores(p, y, groups[1:])
    with pytest.raises(DataError, match="shape"):
        bootstrap_scores(p[:, :5], y[:, :5])
    with pytest.raises(DataError, match="0, 1 or unknown"):
        bootstrap_scores(p, y + 1)
    with pytest.raises(DataError, match="none of 320 images has a known label"):
        bootstrap_scores(p, np.full(y.shape, np.nan))


def test_a_label_that_is_unknown_everywhere_is_not_scored_and_harms_no_other() -> None:
    p, y, groups = study(7)
    whole = bootstrap_scores(p, y, groups, rounds=20)
    y[:, 3] = np.nan
    found = bootstrap_scores(p, y, groups, rounds=20)
    assert found.labels["intraventricular"].reason == "the label is unknown for every image"
    assert set(found.labels["intraventricular"].metrics.values()) == {None}
    assert found.labels["subdural"] == whole.labels["subdural"]
    assert found.exact_match is None
    assert found.macro["auroc"] is not None


def test_scores_without_ranks_are_the_same_but_for_those_of_order() -> None:
    p, y, groups = study(7)
    whole, quick = (bootstrap_scores(p, y, groups, rounds=20, ranked=ranked) for ranked in (True, False))
    assert quick.labels["any"]["auroc"] is quick.macro["average_precision"] is None
    assert quick.labels["any"].ece == whole.labels["any"].ece is not None
    assert quick.labels["any"].dropped_rounds == whole.labels["any"].dropped_rounds
    assert quick.weighted_log_loss == whole.weighted_log_loss
