"""The shipped model scores the external slices as its record and its card say, on every machine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from hemoscope.dicom.archive import open_archive
from hemoscope.evaluation.assess_dicom import assess_dicom
from hemoscope.evaluation.assessment import Assessment
from hemoscope.evaluation.prediction_files import read_labels
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.card import to_plain
from hemoscope.inference.precision import Precision
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABELS, Hemorrhage

RECORD = Path(__file__).resolve().parents[2] / "experiments" / "results" / "default" / "rsna-dicom.json"
# Threads and instruction sets move raw scores by at most 4e-5. The closest positive and negative of one label are 4e-3
# apart, so no pair changes its order: rank scores must agree to the last digit that the record keeps.
ROUNDED = 5e-5
NOISE, FACTOR = 4e-5, 50


def record() -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = json.loads(RECORD.read_text())
    return tables


@pytest.fixture(scope="module")
def scored(shared_data_dir: Path) -> Assessment:
    folder = shared_data_dir / "rsna-dicom"
    if not folder.is_dir():
        pytest.skip("no rsna-dicom folder in the shared data")
    truth = read_labels(folder / "manifest.csv", group_column="patient_id")
    return assess_dicom(
        Predictor(load_bundle(None), precision=Precision.FLOAT32), open_archive([folder / "images"]), truth
    )


@pytest.mark.shared_data
@pytest.mark.parametrize("number", [0, 1], ids=["slice", "study"])
def test_the_shipped_model_scores_the_external_slices_as_recorded(scored: Assessment, number: int) -> None:
    """If this fails, a change moved the model's scores: ``hemoscope evaluate`` writes a new record, as the docs say."""
    table, data = record()[number], (scored.slices, scored.series)[number]
    known = np.asarray(np.isfinite(data.labels).all(axis=1))
    patients = {patient for patient, one in zip(data.groups or (), known, strict=True) if one}
    assert (known.sum(), len(patients)) == (table["n_images"], table["n_patients"])
    for k, label in enumerate(LABELS):
        truth, probabilities = data.labels[known, k], data.probabilities[known, k]
        found = table["labels"][label.value]
        assert found["n_positive"] == truth.sum()
        if truth.any():
            auroc, precision = roc_auc_score(truth, probabilities), average_precision_score(truth, probabilities)
            assert found["auroc"]["value"] == pytest.approx(auroc, abs=ROUNDED), label
            assert found["average_precision"]["value"] == pytest.approx(precision, abs=ROUNDED), label
    assert [label for label in LABELS if table["labels"][label.value]["auroc"] is None] == [Hemorrhage.EPIDURAL]


@pytest.mark.shared_data
@pytest.mark.parametrize("level", ["slices", "series"])
def test_no_two_scores_are_so_close_that_rounding_could_swap_them(scored: Assessment, level: str) -> None:
    data = getattr(scored, level)
    logits = np.log(data.probabilities / (1 - data.probabilities))
    for k, label in enumerate(LABELS):
        positive, negative = (logits[data.labels[:, k] == truth, k] for truth in (1, 0))
        gaps = np.abs(positive[:, None] - negative)
        assert gaps.min(initial=np.inf) > FACTOR * NOISE, label


@pytest.mark.shared_data
def test_thirty_of_the_thirty_one_studies_are_a_single_slice(scored: Assessment) -> None:
    series, known = np.array(scored.series_of), np.isfinite(scored.slices.labels).all(axis=1)
    _, slices = np.unique(series[known], return_counts=True)
    assert sorted(slices) == [1] * 30 + [36]
    assert all("30 of the 31 studies are a single slice" in table["description"] for table in record())


def test_the_card_repeats_the_external_record() -> None:
    tables = [to_plain(table) for table in load_bundle(None).card.scores]
    assert [table for table in tables if table["name"].startswith("rsna-dicom")] == record()
