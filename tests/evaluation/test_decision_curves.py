"""Decision curves in the report: cross-fitted, by image and by case, at another prevalence, with reasons."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemoscope.errors import DataError
from hemoscope.evaluation.clinical_inputs import ClinicalInputs
from hemoscope.evaluation.clinical_report import clinical_document
from hemoscope.evaluation.decision_curves import SHOWN_THRESHOLDS, draw_decision_curves
from hemoscope.evaluation.evaluation_context import EvaluationContext
from hemoscope.evaluation.net_benefit import THRESHOLDS
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import recalibrate


def made(patients: int = 60, slices: int = 4) -> LabelledPredictions:
    random = np.random.default_rng(2)
    rows = patients * slices
    labels = (random.random((rows, 6)) < 0.25).astype(float)
    labels[:, 0] = labels[:, 1:].max(axis=1)
    return LabelledPredictions(
        image_ids=tuple(f"i{row}" for row in range(rows)),
        probabilities=1 / (1 + np.exp(-3 * (random.normal(size=labels.shape) + 2 * labels - 1))),
        labels=labels,
        groups=tuple(f"p{row // slices}" for row in range(rows)),
    )


def curves(data: LabelledPredictions, prevalence: float | None = None) -> dict[str, Any]:
    after = recalibrate(data.probabilities, data.labels, data.groups)
    about = EvaluationContext(clinical=ClinicalInputs(prevalence=prevalence))
    found: dict[str, Any] = clinical_document(data, after, about, rounds=40, seed=0)["decision_curve"]
    return found


def test_net_benefit_is_of_the_cross_fitted_probabilities() -> None:
    data = made()
    after = recalibrate(data.probabilities, data.labels, data.groups).probabilities
    found = curves(data)["levels"]["slice"]["labels"]["subdural"]
    called, positive = after[:, 5] >= 0.2, data.labels[:, 5] == 1
    expected = ((called & positive).sum() - 0.25 * (called & ~positive).sum()) / len(positive)
    point = found["points"][SHOWN_THRESHOLDS.index(0.2)]
    assert point["model"]["value"] == pytest.approx(expected)
    assert found["curve"]["model"][THRESHOLDS.index(0.2)] == pytest.approx(expected)
    assert point["model"]["low"] <= expected <= point["model"]["high"]
    assert point["gain"]["value"] == pytest.approx(expected - max(point["all"], 0))


def test_patients_have_a_level_of_their_own_and_a_given_prevalence_another() -> None:
    levels = curves(made(slices=1), prevalence=0.1)["levels"]
    assert list(levels) == ["slice", "group", "group_at_prevalence"]
    assert levels["group_at_prevalence"]["labels"]["any"]["prevalence"] == pytest.approx(0.1)
    assert levels["group"]["labels"]["any"]["prevalence"] > 0.5


def test_a_prevalence_needs_patients_and_patients_without_hemorrhage() -> None:
    with pytest.raises(DataError, match="a share of series or patients"):
        curves(replace(made(), groups=None), prevalence=0.1)
    data = made()
    labels = data.labels.copy()
    labels[::4, 0] = 1.0
    with pytest.raises(DataError, match="rows with and without hemorrhage"):
        curves(replace(data, labels=labels), prevalence=0.1)


def test_few_patients_have_no_curve_but_a_reason() -> None:
    data = made()
    labels = data.labels.copy()
    labels[:, 1] = 0.0
    labels[[0, 4, 8], 1] = 1.0
    labels[:, 2] = np.nan
    found = curves(replace(data, labels=labels))
    epidural = found["levels"]["slice"]["labels"]["epidural"]
    assert epidural["curve"] is None
    assert epidural["reason"] == "patients with the label 3, without it 60; a curve needs at least 5 of each"
    assert "unknown" in found["levels"]["slice"]["labels"]["intraparenchymal"]["reason"]
    for picture in draw_decision_curves(found).values():
        with Image.open(io.BytesIO(picture)) as image:
            assert min(image.size) > 400
