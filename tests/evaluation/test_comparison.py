"""The comparison of two sets of predictions, as the report gives it."""

from dataclasses import replace

import numpy as np
import pytest

from hemoscope.errors import DataError
from hemoscope.evaluation.clinical_inputs import ClinicalInputs, SecondPredictions
from hemoscope.evaluation.comparison import MEASURES, comparison_document
from hemoscope.evaluation.evaluation_context import EvaluationContext
from hemoscope.evaluation.paired_tests import NO_ROWS, auroc_difference, holm
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import recalibrate
from hemoscope.evaluation.report import evaluation_report
from hemoscope.evaluation.terminal_summary import evaluation_summary
from hemoscope.labels import LABELS


def made(patients: int = 50, slices: int = 4) -> tuple[LabelledPredictions, np.ndarray]:
    random = np.random.default_rng(1)
    rows = patients * slices
    labels = (random.random((rows, 6)) < 0.3).astype(float)
    first, second = (np.clip(signal * labels + 0.6 * random.random(labels.shape), 0, 1) for signal in (0.35, 0.25))
    data = LabelledPredictions(
        image_ids=tuple(f"i{row}" for row in range(rows)),
        probabilities=first,
        labels=labels,
        groups=tuple(f"p{row // slices}" for row in range(rows)),
    )
    return data, second


def second_of(data: LabelledPredictions, values: np.ndarray, margin: float | None = None) -> SecondPredictions:
    return SecondPredictions(name="q.csv", probabilities=dict(zip(data.image_ids, values, strict=True)), margin=margin)


def test_differences_and_adjusted_p_values_are_those_of_the_tests() -> None:
    data, values = made()
    document = comparison_document(data, second_of(data, values), ("group", data.groups or ()))
    assert document is not None
    labels = document["levels"]["slice"]["labels"]
    tests = [auroc_difference(data.probabilities[:, k], values[:, k], data.labels[:, k], data.groups) for k in range(6)]
    adjusted = holm([one.p_value if one else None for one in tests])
    for label, one, p_value in zip(LABELS, tests, adjusted, strict=True):
        assert one is not None
        assert labels[label]["auroc"]["difference"]["value"] == pytest.approx(one.difference)
        assert labels[label]["auroc"]["p"] == one.p_value
        assert labels[label]["auroc"]["p_holm"] == p_value
    recall = labels["any"]["recall"]
    positive = data.labels[:, 0] == 1
    assert recall["first"] == pytest.approx((data.probabilities[positive, 0] > 0.5).mean())
    assert recall["second"] == pytest.approx((values[positive, 0] > 0.5).mean())
    assert set(labels["any"]) == set(MEASURES)
    assert document["levels"]["group"]["n"] == 50
    assert "Holm" in document["multiplicity"]
    assert "noninferior" not in recall


def test_the_order_of_the_second_file_does_not_matter() -> None:
    data, values = made()
    turned = dict(zip(reversed(data.image_ids), values[::-1], strict=True))
    one = comparison_document(data, second_of(data, values))
    other = comparison_document(data, SecondPredictions(name="q.csv", probabilities=turned))
    assert one == other


def test_noninferiority_is_the_lower_bound_above_minus_the_margin() -> None:
    data, values = made()
    wide, narrow = (comparison_document(data, second_of(data, values, margin)) for margin in (0.9, 1e-9))
    assert wide is not None
    assert narrow is not None
    assert wide["levels"]["slice"]["labels"]["any"]["auroc"]["noninferior"] is True
    swapped = comparison_document(replace(data, probabilities=values), second_of(data, data.probabilities, 1e-9))
    assert swapped is not None
    assert swapped["levels"]["slice"]["labels"]["any"]["auroc"]["noninferior"] is False


def test_a_label_without_positives_has_no_test_and_says_why() -> None:
    data, values = made()
    labels = data.labels.copy()
    labels[:, 1] = 0.0
    labels[:, 2] = np.nan
    document = comparison_document(replace(data, labels=labels), second_of(data, values))
    assert document is not None
    found = document["levels"]["slice"]["labels"]
    assert found["epidural"]["auroc"]["reason"] == found["epidural"]["recall"]["reason"] == NO_ROWS
    assert found["epidural"]["specificity"]["p"] is not None
    assert found["intraparenchymal"]["specificity"]["p"] is None


def test_the_terminal_shows_differences_with_the_rule_of_adjustment() -> None:
    data, values = made()
    data = replace(data, labels=np.where(np.arange(6) == 1, 0.0, data.labels))
    about = EvaluationContext(clinical=ClinicalInputs(second=second_of(data, values, 0.05)))
    after = recalibrate(data.probabilities, data.labels, data.groups)
    printed = evaluation_summary(evaluation_report(data, after, about, rounds=10))
    assert "AUROC less that of q.csv, by image" in printed
    assert f"Epidural          not tested: {NO_ROWS}" in printed
    assert "p values: Holm's adjustment over the labels" in printed
    assert "not worse by 0.05: " in printed


def test_predictions_of_other_images_are_refused() -> None:
    data, values = made()
    fewer = dict(zip(data.image_ids[1:], values[1:], strict=True))
    with pytest.raises(DataError, match=r"q\.csv has 199 images and lacks 1 of the 200 scored ones \(first: i0\)"):
        comparison_document(data, SecondPredictions(name="q.csv", probabilities=fewer))
    assert comparison_document(data, None) is None
