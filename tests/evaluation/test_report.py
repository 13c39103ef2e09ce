"""The report has the documented keys, agrees with scikit-learn, lists warnings and is a self-contained page."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from numpy.typing import NDArray
from PIL import Image

from hemoscope.errors import DataError, MissingExtraError
from hemoscope.evaluation.clinical_inputs import ClinicalInputs, SubgroupColumn
from hemoscope.evaluation.evaluation_context import EvaluationContext
from hemoscope.evaluation.metrics import METRICS
from hemoscope.evaluation.plots import draw_plots, reliability_points
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import recalibrate
from hemoscope.evaluation.report import evaluate_predictions, evaluation_report
from hemoscope.evaluation.strata import series_facts
from hemoscope.evaluation.terminal_summary import evaluation_summary
from hemoscope.labels import LABELS

Array = NDArray[np.float64]
HEADER = ",".join(["image_id", *LABELS])


def overconfident(patients: int = 40, slices: int = 6) -> tuple[Array, Array, list[str]]:
    random = np.random.default_rng(0)
    n = patients * slices
    labels = (random.random((n, 6)) < 0.25).astype(float)
    labels[:, 0] = labels[:, 1:].max(axis=1)
    logits = 3 * (random.normal(size=labels.shape) + 2 * labels - 1)
    return 1 / (1 + np.exp(-logits)), labels, [f"p{row // slices}" for row in range(n)]


def report_of(p: Array, y: Array, groups: list[str] | None, **options: Any) -> dict[str, Any]:
    data = LabelledPredictions(
        image_ids=tuple(map(str, range(len(p)))),
        probabilities=p,
        labels=y,
        groups=None if groups is None else tuple(groups),
    )
    return evaluation_report(data, recalibrate(p, y, data.groups, **options), rounds=40)


def test_facts_of_other_slices_are_refused() -> None:
    p, y, groups = overconfident()
    data = LabelledPredictions(
        image_ids=tuple(map(str, range(len(p)))), probabilities=p, labels=y, groups=tuple(groups)
    )
    after = recalibrate(p, y, data.groups)
    about = EvaluationContext(facts=series_facts(y[:-1, 0]))
    with pytest.raises(DataError, match="facts are of 239 slices, and there are 240 predictions"):
        evaluation_report(data, after, about, rounds=40)


def test_ages_by_patient_need_patients() -> None:
    p, y, _ = overconfident()
    data = LabelledPredictions(image_ids=tuple(map(str, range(len(p)))), probabilities=p, labels=y, groups=None)
    ages = SubgroupColumn(name="age", key="patient", values={"p1": "40"})
    about = EvaluationContext(facts=series_facts(y[:, 0]), clinical=ClinicalInputs(subgroups=(ages,)))
    with pytest.raises(DataError, match="column age is by patient, but no patients are known"):
        evaluation_report(data, recalibrate(p, y, None), about, rounds=40)


def write_csv(folder: Path, p: Array, y: Array, groups: list[str]) -> tuple[Path, Path]:
    one, two = folder / "p.csv", folder / "l.csv"
    one.write_text("\n".join([HEADER, *(f"ID_{i}," + ",".join(map(repr, r)) for i, r in enumerate(p.tolist()))]))
    rows = (f"ID_{i}," + ",".join(map(repr, r)) + f",{groups[i]}" for i, r in enumerate(y.tolist()))
    two.write_text("\n".join([HEADER + ",patient_id", *rows]))
    return one, two


def test_files_in_report_page_and_pictures_out(tmp_path: Path) -> None:
    p, y, groups = overconfident()
    output = tmp_path / "new" / "report"
    returned = evaluate_predictions(
        *write_csv(tmp_path, p, y, groups), output, group_column="patient_id", rounds=40, method="temperature"
    )
    report = json.loads((output / "report.json").read_text())
    assert report == returned
    assert (report["n_images"], report["n_groups"]) == (240, 40)
    pictures = {path.name for path in output.glob("*.png")}
    curves = {"decision_curve_slice.png", "decision_curve_group.png"}
    assert pictures == {"precision_recall.png", "roc.png", "reliability.png", "sweep.png", *curves}
    for name in pictures:
        with Image.open(output / name) as picture:
            assert min(picture.size) > 400
    assert sorted(path.name for path in output.iterdir()) == sorted({*pictures, "report.json", "report.html"})


def test_keys_are_those_that_others_rely_on() -> None:
    report = report_of(*overconfident())
    for label in LABELS:
        for metric in METRICS:
            score = report["labels"][label][metric]
            assert set(score) == {"value", "low", "high"}
            if metric == "ece":
                assert score["low"] is score["high"] is None
            else:
                assert score["low"] <= score["value"] <= score["high"]
        calibration = report["labels"][label]["calibration"]
        assert set(calibration) == {"slope", "intercept", "observed_expected", "ece_if_calibrated"}
        assert {"precision", "threshold", "recall", "accuracy"} <= set(report["recall_at_precision"][label])
        assert set(report["calibrated"]["labels"][label]["ece"]) == {"value", "low", "high"}
    assert {"accuracy", "precision", "recall"} == set(report["any"]["learned"]) == set(report["any"]["explicit"])
    targets = [point["target"] for point in report["any_tradeoff"]]
    assert targets == pytest.approx(np.arange(0.5, 1.0, 0.05))
    assert report["calibrated"]["method"] == "platt"
    assert set(report["exact_match"]) == set(report["weighted_log_loss"]) == {"value", "low", "high"}


def test_calibration_alone_lowers_the_loss_of_overconfident_predictions() -> None:
    report = report_of(*overconfident())
    assert report["calibrated"]["weighted_log_loss"]["value"] < report["weighted_log_loss"]["value"]
    assert report["calibrated"]["folds_by"] == "group"


def test_without_groups_it_states_that_images_were_drawn() -> None:
    p, y, _ = overconfident()
    report = report_of(p, y, None)
    assert report["n_groups"] is None
    assert report["group_level"] is None
    assert report["bootstrap"]["unit"] == "image"
    assert "No patients are given" in report["warnings"][0]
    assert "No patients are given" in evaluation_summary(report)


def test_group_level_scores_take_the_highest_slice_of_a_patient() -> None:
    p, y, groups = overconfident()
    y[: 240 // 2, 2] = 0
    report = report_of(p, y, groups)
    expected = reference.roc_auc_score(y[:, 2].reshape(40, 6).max(axis=1), p[:, 2].reshape(40, 6).max(axis=1))
    assert report["group_level"]["labels"]["intraparenchymal"]["auroc"]["value"] == pytest.approx(expected, abs=1e-9)


def test_a_label_with_one_class_is_null_with_a_reason_everywhere() -> None:
    p, y, groups = overconfident()
    y[:, 1] = 0
    report = report_of(p, y, groups)
    entry = report["labels"]["epidural"]
    assert all(entry[metric] is None for metric in METRICS)
    assert "one class only" in entry["reason"]
    assert report["calibrated"]["labels"]["epidural"]["ece"] is None
    assert "needs both classes" in report["calibrated"]["labels"]["epidural"]["reason"]
    assert report["calibrated"]["weighted_log_loss"] is None
    json.dumps(report, allow_nan=False)
    assert "not defined" in evaluation_summary(report)


def test_a_label_never_predicted_positive_has_no_precision_and_gives_a_reason() -> None:
    p, y, groups = overconfident()
    p[:, 3] *= 0.4
    entry = report_of(p, y, groups)["labels"]["intraventricular"]
    assert entry["precision"] is None
    assert "nothing was predicted positive" in entry["reason"]
    assert entry["auroc"] is not None


def test_one_positive_patient_cannot_be_calibrated_and_gives_a_reason() -> None:
    p, y, groups = overconfident()
    y[:, 5] = 0
    y[:3, 5] = 1
    entry = report_of(p, y, groups)["calibrated"]["labels"]["subdural"]
    assert entry["ece"] is None
    assert "1 with a positive" in entry["reason"]


def test_unknown_labels_are_excluded_and_reported() -> None:
    p, y, groups = overconfident()
    y[:60, 4] = np.nan
    report = report_of(p, y, groups)
    assert report["labels"]["subarachnoid"]["n_images"] == 180
    assert any("Unknown labels" in text and "Subarachnoid 60." in text for text in report["warnings"])
    assert report["calibrated"]["weighted_log_loss"] is not None


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_is_self_contained_and_shows_every_label(tmp_path: Path) -> None:
    p, y, groups = overconfident()
    y[:, 1] = 0
    evaluate_predictions(*write_csv(tmp_path, p, y, groups), tmp_path, group_column="patient_id", rounds=20)
    text = (tmp_path / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert len(page.sources) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(label.display in text for label in LABELS)
    assert "one class only" in text
    assert "medical device" in text[: text.index("<h2>")]
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"\bnan\b", text)


def test_reliability_points_are_means_of_the_filled_bins() -> None:
    expected, observed = reliability_points(np.array([0.01, 0.03, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert expected.tolist() == pytest.approx([0.02, 1.0])
    assert observed.tolist() == [0.5, 1.0]


def test_an_unknown_calibration_and_a_folder_that_is_a_file_are_refused(tmp_path: Path) -> None:
    p, y, groups = overconfident()
    paths = write_csv(tmp_path, p, y, groups)
    with pytest.raises(DataError, match="unknown calibration method 'magic'; choose one of platt"):
        evaluate_predictions(*paths, tmp_path, method="magic")
    with pytest.raises(DataError, match="cannot be written"):
        evaluate_predictions(*paths, paths[0], rounds=5)


def test_without_matplotlib_the_error_states_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y, _ = overconfident()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[study\]'"):
        draw_plots(p, y, p)


@pytest.mark.shared_data
def test_the_papers_own_predictions_score_as_published_and_calibration_alone_helps(
    shared_data_dir: Path, tmp_path: Path
) -> None:
    folder = shared_data_dir / "rsna-paper"
    if not folder.is_dir():
        pytest.skip("no rsna-paper folder in the shared data")
    files = folder / "predictions.csv.gz", folder / "labels.csv.gz"
    p, y = (np.genfromtxt(f, delimiter=",", skip_header=1, usecols=range(1, 7), encoding="utf-8") for f in files)
    report = evaluate_predictions(*files, tmp_path, rounds=10)
    for k, label in enumerate(LABELS):
        found, hard = report["labels"][label], p[:, k] > 0.5
        assert found["auroc"]["value"] == pytest.approx(reference.roc_auc_score(y[:, k], p[:, k]), abs=1e-9)
        expected = reference.average_precision_score(y[:, k], p[:, k])
        assert found["average_precision"]["value"] == pytest.approx(expected, abs=1e-9)
        assert found["f1"]["value"] == pytest.approx(reference.f1_score(y[:, k], hard), abs=1e-9)
        assert found["brier"]["value"] == pytest.approx(reference.brier_score_loss(y[:, k], p[:, k]), abs=1e-9)
        assert found["log_loss"]["value"] == pytest.approx(reference.log_loss(y[:, k], p[:, k]), abs=1e-9)
    assert report["weighted_log_loss"]["value"] == pytest.approx(0.083, abs=0.0015)
    assert report["calibrated"]["weighted_log_loss"]["value"] == pytest.approx(0.06, abs=0.0015)
    # Published Tables IV and V (all 75,281 slices); these are 34,326 of them.
    published_recall = (0.973, 0.966, 0.959, 0.950, 0.939, 0.925, 0.906, 0.877, 0.839, 0.763)
    assert [point["recall"] for point in report["any_tradeoff"]] == pytest.approx(published_recall, abs=0.015)
    table_five = (0.939, 0.840, 0.879, 0.922, 0.794, 0.875)
    recalls = [report["recall_at_precision"][label]["recall"] for label in LABELS]
    assert recalls == pytest.approx(table_five, abs=0.03)
    # The published accuracy beside precision .50 is .595: its threshold had been rounded to zero.
    assert report["any_tradeoff"][0]["accuracy"] == pytest.approx(0.856, abs=0.01)
