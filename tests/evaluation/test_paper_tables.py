"""The paper's tables against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray

from hemoscope.evaluation.paper_tables import any_learned_and_explicit, any_tradeoff, recall_at_precision
from hemoscope.labels import LABELS

Array = NDArray[np.float64]


@pytest.fixture
def predictions() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    labels = (random.random((2000, 6)) < 0.1).astype(float)
    labels[:, 0] = labels[:, 1:].max(axis=1)
    logits = random.normal(size=labels.shape) + 4 * labels - 2
    return np.round(1 / (1 + np.exp(-logits)), 3), labels


def test_any_learned_and_explicit_agree_with_scikit_learn(predictions: tuple[Array, Array]) -> None:
    p, y = predictions
    found = any_learned_and_explicit(p, y)
    for way, hard in (("learned", p[:, 0] > 0.5), ("explicit", (p[:, 1:] > 0.5).any(axis=1))):
        assert found[way]["accuracy"]["value"] == pytest.approx(reference.accuracy_score(y[:, 0], hard), abs=1e-9)
        assert found[way]["precision"]["value"] == pytest.approx(reference.precision_score(y[:, 0], hard), abs=1e-9)
        assert found[way]["recall"]["value"] == pytest.approx(reference.recall_score(y[:, 0], hard), abs=1e-9)
        assert found[way]["recall"]["low"] < found[way]["recall"]["value"] < found[way]["recall"]["high"]


def test_images_whose_any_is_unknown_are_excluded_from_table_three(predictions: tuple[Array, Array]) -> None:
    p, y = predictions
    y[:500, 0] = np.nan
    found = any_learned_and_explicit(p, y, [str(row // 10) for row in range(2000)])
    expected = reference.accuracy_score(y[500:, 0], p[500:, 0] > 0.5)
    assert found["learned"]["accuracy"]["value"] == pytest.approx(expected, abs=1e-9)


def test_points_lie_on_the_curve_of_scikit_learn_with_their_thresholds_unrounded(
    predictions: tuple[Array, Array],
) -> None:
    p, y = predictions
    for point in any_tradeoff(p, y):
        precision, recall, thresholds = reference.precision_recall_curve(y[:, 0], p[:, 0])
        row = int(np.argmax(precision[:-1] >= point["target"]))
        assert point["threshold"] == thresholds[row]
        assert point["precision"] == pytest.approx(precision[row], abs=1e-9)
        assert point["recall"] == pytest.approx(recall[row], abs=1e-9)
        hard = p[:, 0] >= point["threshold"]
        assert point["accuracy"] == pytest.approx(reference.accuracy_score(y[:, 0], hard), abs=1e-9)


def test_recall_at_precision_names_every_label_and_states_where_none_is_reached(
    predictions: tuple[Array, Array],
) -> None:
    p, y = predictions
    p[:, 1] = 0.3
    y[:, 2] = 0
    found = recall_at_precision(p, y)
    assert list(found) == [label.value for label in LABELS]
    assert found["subdural"]["precision"] >= 0.7
    assert found["epidural"]["threshold"] is None
    assert "no threshold reaches a precision of 0.7" in found["epidural"]["reason"]
    assert "needs both classes" in found["intraparenchymal"]["reason"]
