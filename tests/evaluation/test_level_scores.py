"""Predictions by series and by patient, and at a model's thresholds."""

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray

from hemoscope.evaluation.evaluation_context import ErrorPicture, EvaluationContext
from hemoscope.evaluation.level_scores import highest, points_document
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import recalibrate
from hemoscope.evaluation.report import evaluation_report
from hemoscope.evaluation.report_page import render_page
from hemoscope.evaluation.terminal_summary import evaluation_summary
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import Hemorrhage, PerLabel

Array = NDArray[np.float64]


def table(patients: int = 30, slices: int = 4) -> LabelledPredictions:
    random = np.random.default_rng(4)
    labels = (random.random((patients * slices, 6)) < 0.3).astype(float)
    labels[:, 0] = labels[:, 1:].max(axis=1)
    probabilities = 1 / (1 + np.exp(-(2 * labels - 1 + random.normal(size=labels.shape))))
    rows = range(patients * slices)
    return LabelledPredictions(
        image_ids=tuple(f"i{row}" for row in rows),
        probabilities=probabilities,
        labels=labels,
        groups=tuple(f"p{row // slices:02d}" for row in rows),
    )


def report_of(data: LabelledPredictions, context: EvaluationContext) -> dict[str, Any]:
    after = recalibrate(data.probabilities, data.labels, data.groups)
    return evaluation_report(data, after, context, rounds=20)


def points(threshold: float) -> PerLabel[OperatingPoint]:
    return PerLabel.build(lambda _: OperatingPoint(threshold=threshold, rule="youden"))


def test_series_take_the_highest_image_and_the_highest_known_label() -> None:
    data = table()
    data.labels[:2, 3] = np.nan
    data.labels[4:8, 2] = np.nan
    found = highest(data, [f"s{row // 4:02d}" for row in range(120)])
    assert found.image_ids[:2] == ("s00", "s01")
    assert found.groups is not None
    assert found.groups[:2] == ("p00", "p01")
    np.testing.assert_array_equal(found.probabilities, data.probabilities.reshape(30, 4, 6).max(axis=1))
    assert found.labels[0, 3] == data.labels[2:4, 3].max()
    assert np.isnan(found.labels[1, 2])


def test_operating_points_reach_what_scikit_learn_computes() -> None:
    data = table()
    found = points_document(data, points(0.3), rounds=20, seed=0)
    for k, entry in enumerate(found.values()):
        decided = data.probabilities[:, k] >= 0.3
        assert entry["recall"]["value"] == pytest.approx(reference.recall_score(data.labels[:, k], decided))
        assert entry["f1"]["value"] == pytest.approx(reference.f1_score(data.labels[:, k], decided))
        assert (entry["threshold"], entry["rule"]) == (0.3, "youden")


def test_the_report_has_series_patients_points_and_where_the_numbers_are_from() -> None:
    data = table()
    series = highest(data, [f"s{row // 2:02d}" for row in range(120)])
    source = {
        "model": {"name": "tiny", "version": "1.0", "sha256": "0" * 64},
        "dataset": "phantoms <1>",
        "split": {"part": "test", "by": "slice", "seed": 257, "recorded_in_card": True},
    }
    context = EvaluationContext(
        series=series, slice_points=points(0.3), series_points=points(0.6), source=source, warnings=("It leaks.",)
    )
    report = report_of(data, context)
    assert (report["series_level"]["n"], report["group_level"]["n"]) == (60, 30)
    expected = reference.roc_auc_score(series.labels[:, 5], series.probabilities[:, 5])
    assert report["series_level"]["labels"]["subdural"]["auroc"]["value"] == pytest.approx(expected)
    assert report["operating_points"]["series"]["any"]["threshold"] == 0.6
    assert report["warnings"][0] == "It leaks."
    assert "warning: It leaks." in evaluation_summary(report)
    page = render_page(report, {})
    assert "tiny 1.0 on phantoms &lt;1&gt;: test of a split by slice, seed 257" in page
    assert 'class="warning"' in page[: page.index("<h2>")]
    assert "It leaks." in page[: page.index("<h2>")]
    assert "60 series." in page


def test_a_label_of_few_patients_is_doubted_and_unknown_ones_are_counted() -> None:
    data = table()
    data.labels[:, 2] = 0
    data.labels[:3, 2] = 1
    data.labels[:, 1] = np.nan
    report = report_of(data, EvaluationContext())
    assert any("Few patients are positive: Intraparenchymal 1." in text for text in report["warnings"])
    assert any("(of 120 images): Epidural 120." in text for text in report["warnings"])
    assert report["labels"]["epidural"]["reason"] == "the label is unknown for every image"
    assert report["recall_at_precision"]["epidural"]["reason"] == "the label is unknown for every image"
    assert report["calibrated"]["labels"]["epidural"]["reason"] == "the label is unknown for every image"
    page = render_page(report, {})
    assert "Epidural: the label is unknown for every image." in page
    assert "some label could not be fitted" in page


def test_scores_of_few_patients_are_marked_and_calibration_is_not_estimable() -> None:
    data = table()
    assert data.groups is not None
    data.labels[:, 2] = np.isin(data.groups, sorted(set(data.groups))[:2]) * (np.arange(len(data.labels)) % 2)
    report = report_of(data, EvaluationContext())
    found = report["labels"]["intraparenchymal"]
    assert found["calibration"]["slope"] is None
    assert found["average_precision"]["unreliable"] is True
    assert "unreliable" not in report["labels"]["subdural"]["average_precision"]
    page = render_page(report, {})
    words = "Intraparenchymal: slope, intercept and observed to expected are not estimable with 2 patients in a class"
    assert page.count(words) == 3  # as given, cross-fitted, and by patient
    assert f"{found['average_precision']['high']:.4f}*" in page
    assert f"-{found['average_precision']['high']:.4f}*)" in evaluation_summary(report)


def test_where_any_is_unknown_tables_three_and_four_are_empty_with_the_reason() -> None:
    data = table()
    data.labels[:, 0] = np.nan
    report = report_of(data, EvaluationContext())
    assert report["any"]["learned"]["accuracy"] is None
    assert "unknown" in report["any"]["explicit"]["reason"]
    assert {point["recall"] for point in report["any_tradeoff"]} == {None}


def picture(**changes: Any) -> ErrorPicture:
    fields: dict[str, Any] = {
        "label": Hemorrhage.SUBDURAL,
        "kind": "missed",
        "image_id": "i<7>",
        "probability": 0.0123,
        "threshold": 0.25,
        "shows": (Hemorrhage.ANY, Hemorrhage.SUBDURAL),
        "window": "subdural window",
        "jpeg": b"picture",
    }
    return ErrorPicture(**{**fields, **changes})


def test_the_gallery_shows_each_error_with_its_numbers_inside_the_page() -> None:
    errors = (picture(), picture(kind="false alarm", image_id="i8", shows=()))
    report = report_of(table(), EvaluationContext(errors=errors))
    assert report["errors"][0] == {
        "label": "subdural",
        "kind": "missed",
        "image_id": "i<7>",
        "probability": 0.0123,
        "threshold": 0.25,
        "shows": ["any", "subdural"],
        "level": "slice",
        "strata": [],
    }
    page = " ".join(render_page(report, {}, errors).split())
    assert "Subdural, by slice: missed" in page
    assert "probability 0.0123, threshold 0.25; labelled any hemorrhage, subdural; subdural window" in page
    assert "labelled no hemorrhage" in page
    assert "i&lt;7&gt;" in page
    assert "i<7>" not in page
    assert page.count("data:image/jpeg;base64,") == 2


def test_without_images_there_is_no_gallery_and_without_errors_it_states_it() -> None:
    report = report_of(table(), EvaluationContext())
    assert report["errors"] is None
    assert "The worst errors" not in render_page(report, {})
    assert "No slice and no study is wrong" in render_page(report, {}, ())
