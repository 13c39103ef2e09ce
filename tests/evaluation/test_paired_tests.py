"""Paired tests against brute force, scipy and published numbers."""

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, t

from hemoscope.errors import DataError
from hemoscope.evaluation.paired_tests import (
    FEW,
    SAME_RANKS,
    auroc_difference,
    holm,
    proportion_difference,
    sign_flip_p_value,
)


def brute_force_variance(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> float:
    """DeLong's variance of the difference from all pairs, by the formulas of the 1988 article."""
    parts = []
    for scores in (first, second):
        kernel = np.array(
            [[float(x > y) + 0.5 * float(x == y) for y in scores[labels == 0]] for x in scores[labels == 1]]
        )
        parts.append((kernel.mean(axis=1), kernel.mean(axis=0)))
    positives = np.cov(np.stack([parts[0][0], parts[1][0]]))
    negatives = np.cov(np.stack([parts[0][1], parts[1][1]]))
    whole = positives / (labels == 1).sum() + negatives / (labels == 0).sum()
    return float(whole[0, 0] + whole[1, 1] - 2 * whole[0, 1])


def drawn(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.4).astype(float)
    shared = random.normal(size=rows)
    first, second = (shared + random.normal(size=rows) + signal * labels for signal in (1.5, 0.7))
    return first.round(1), second.round(1), labels


def test_the_variance_of_a_difference_is_delongs_over_all_pairs() -> None:
    first, second, labels = drawn(1)
    found = auroc_difference(first, second, labels)
    assert found is not None
    assert found.low is not None
    error = np.sqrt(brute_force_variance(first, second, labels))
    fewest = int(min(labels.sum(), (1 - labels).sum()))
    assert found.difference - found.low == pytest.approx(t.ppf(0.975, fewest - 1) * error)
    assert found.p_value == pytest.approx(2 * t.sf(abs(found.difference) / error, fewest - 1))


def test_copies_of_a_patients_slices_add_no_information() -> None:
    first, second, labels = drawn(2)
    alone = auroc_difference(first, second, labels)
    patients = np.arange(len(labels))
    thrice = [np.repeat(column, 3) for column in (first, second, labels, patients)]
    clustered = auroc_difference(*thrice)
    assert alone is not None
    assert clustered is not None
    assert clustered.p_value == pytest.approx(alone.p_value)
    assert clustered.low == pytest.approx(alone.low)


def test_the_error_rate_of_equal_models_is_held() -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        patients = np.repeat(np.arange(40), 3)
        labels = np.repeat((np.arange(40) < 15).astype(float), 3)
        effect = np.repeat(random.normal(size=40), 3)
        first, second = (labels + effect + 0.5 * random.normal(size=120) for _ in range(2))
        found = auroc_difference(first, second, labels, patients)
        assert found is not None
        assert found.p_value is not None
        hits += found.p_value < 0.05
    assert hits <= 24  # 15 expected; 24 is exceeded with probability .01


def test_one_class_or_few_patients_give_no_test_and_say_why() -> None:
    first, second, labels = drawn(4)
    assert auroc_difference(first, second, np.zeros_like(labels)) is None
    one = auroc_difference(first, second, labels, np.where(labels == 1, np.arange(60) % 4, np.arange(60) + 4))
    assert one is not None
    assert (one.p_value, one.low, one.reason) == (None, None, FEW)


def test_the_same_scores_differ_by_nothing_without_a_claim_about_others() -> None:
    first, _, labels = drawn(5)
    same = auroc_difference(first, first * 2, labels)
    assert same is not None
    assert (same.difference, same.p_value, same.low, same.reason) == (0.0, 1.0, None, SAME_RANKS)
    assert same.shows_noninferiority(0.1) is None


@pytest.mark.parametrize(("better", "worse"), [(7, 2), (1, 0), (5, 5), (12, 1)])
def test_with_one_row_a_patient_the_test_is_mcnemars_exact(better: int, worse: int) -> None:
    first = np.array([True] * better + [False] * worse + [True] * 10)
    second = np.array([False] * better + [True] * worse + [True] * 10)
    found = proportion_difference(first, second)
    assert found is not None
    assert found.p_value == pytest.approx(binomtest(better, better + worse).pvalue)


def test_the_clustered_test_is_the_share_of_all_sign_flips() -> None:
    net = np.array([3, -1, 2, 0, 1, 1, -2])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(net))))
    expected = (np.abs(signs @ net) >= abs(net.sum())).mean()
    assert sign_flip_p_value(net) == pytest.approx(expected)
    assert sign_flip_p_value(np.zeros(4, dtype=int)) == 1.0


def test_one_patient_with_many_slices_is_one_piece_of_evidence() -> None:
    first, second = np.ones(40, dtype=bool), np.zeros(40, dtype=bool)
    found = proportion_difference(first, second, ["p"] * 30 + [f"q{i}" for i in range(10)])
    assert found is not None
    assert found.p_value == pytest.approx(2 * 0.5**11)
    alone = proportion_difference(first, second, ["p"] * 40)
    assert alone is not None
    assert (alone.low, alone.reason) == (None, FEW)


def test_the_interval_is_bonett_and_prices_with_students_t() -> None:
    # 20 patients, 4 discordant for the first and 1 for the second: (5 - 2) / 22, and their variance.
    first = np.array([True] * 4 + [False] * 1 + [True] * 15)
    second = np.array([False] * 4 + [True] * 1 + [True] * 15)
    found = proportion_difference(first, second)
    assert found is not None
    middle = 5 / 22 - 2 / 22
    half = t.ppf(0.975, 19) * np.sqrt((5 / 22 + 2 / 22 - middle**2) / 22)
    assert found.low == pytest.approx(middle - half)
    assert found.high == pytest.approx(middle + half)
    assert found.difference == pytest.approx(3 / 20)


def test_agreement_on_few_patients_is_not_proof_of_noninferiority() -> None:
    hits = np.ones(8, dtype=bool)
    few, many = (
        proportion_difference(hits, hits),
        proportion_difference(np.ones(400, dtype=bool), np.ones(400, dtype=bool)),
    )
    assert few is not None
    assert many is not None
    assert few.shows_noninferiority(0.05) is False
    assert many.shows_noninferiority(0.05) is True


def test_the_interval_holds_the_true_difference_of_clustered_decisions() -> None:
    random = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        ease = np.repeat(random.beta(2, 1, size=30), 4)
        first, second = (random.random(120) < ease * share for share in (0.9, 0.8))
        found = proportion_difference(first, second, np.repeat(np.arange(30), 4))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= (0.9 - 0.8) * 2 / 3 <= found.high
    assert held >= 371  # 380 expected of an exact interval; fewer than 371 with probability .02


def test_decisions_on_other_rows_are_an_error_and_none_give_nothing() -> None:
    with pytest.raises(DataError, match="must be on the same rows"):
        proportion_difference([True], [True, False])
    assert proportion_difference([], []) is None


def test_holm_adjusts_as_in_a_worked_example() -> None:
    # .01 x 4, then .013 x 3 held at .04, then .04 x 2, then .045 x 1 held at .08.
    assert holm([0.04, 0.01, None, 0.045, 0.013]) == pytest.approx([0.08, 0.04, None, 0.08, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([None]) == [None]


def test_the_page_shows_the_table_of_the_stored_simulation() -> None:
    repository = Path(__file__).resolve().parents[2]
    path = repository / "experiments" / "difference_coverage.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    simulation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(simulation)
    rows = json.loads((simulation.OUTPUT / "coverage.json").read_text())
    table = simulation.table(rows, 1000)
    assert (simulation.OUTPUT / "table.md").read_text() == table
    page = (repository / "docs/explanation/intervals.md").read_text()
    assert [line for line in table.splitlines()[2:] if line not in page] == []
    # The tests hold their level, up to what 1,000 draws allow.
    assert max(row["rejected"] for row in rows) < 0.07
    again = simulation.simulated(3)
    assert [set(row) for row in again] == [set(row) for row in rows]
