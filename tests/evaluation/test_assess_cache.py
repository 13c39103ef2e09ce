"""A model scores a prepared dataset as it scores the same volumes, whole series at a time."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemoscope.data.cache import Cache, write_series
from hemoscope.errors import DataError
from hemoscope.evaluation.assess_cache import assess_cache
from hemoscope.evaluation.prediction_files import read_predictions
from hemoscope.inference.predictor import Predictor, Stage
from hemoscope.labels import LABELS


def test_slices_and_series_are_scored_as_the_predictor_scores_the_volume(cache: Cache, predictor: Predictor) -> None:
    manifest = cache.manifest
    found = assess_cache(predictor, cache, list(manifest["image_id"]))
    assert found.slices.image_ids == tuple(manifest["image_id"])
    assert found.slices.groups == tuple(manifest["patient_id"])
    np.testing.assert_array_equal(found.slices.labels, manifest[list(LABELS)].to_numpy(dtype=np.float64))
    direct, _ = predictor.probabilities(cache.read_series("series_03").volume)
    rows = [place for place, name in enumerate(found.series_of) if name == "series_03"]
    np.testing.assert_allclose(found.slices.probabilities[rows], direct.slice_probabilities, atol=1e-6)
    np.testing.assert_allclose(found.series.probabilities[3], direct.study_probabilities, atol=1e-6)
    assert found.series.image_ids[3] == "series_03"
    np.testing.assert_array_equal(found.series.labels[3], found.slices.labels[rows].max(axis=0))
    assert found.errors is None


def test_a_part_of_a_series_is_scored_within_its_whole(cache: Cache, predictor: Predictor) -> None:
    whole = assess_cache(predictor, cache, list(cache.manifest["image_id"]))
    steps: list[tuple[Stage, int, int]] = []
    one = assess_cache(predictor, cache, ["series_03_2"], progress=lambda *step: steps.append(step))
    row = whole.slices.image_ids.index("series_03_2")
    assert one.slices.image_ids == ("series_03_2",)
    np.testing.assert_allclose(one.slices.probabilities[0], whole.slices.probabilities[row], atol=1e-6)
    np.testing.assert_allclose(one.series.probabilities[0], whole.series.probabilities[3], atol=1e-6)
    np.testing.assert_array_equal(one.series.labels[0], whole.series.labels[3])
    assert steps == [(Stage.SCORING, 5, 5)]


def test_the_files_it_writes_are_read_back_to_the_last_bit(
    make_cache: Callable[..., Cache], predictor: Predictor, tmp_path: Path
) -> None:
    cache = make_cache(patients=6, unknown=("epidural",))
    found = assess_cache(predictor, cache, list(cache.manifest["image_id"]))
    found.write(tmp_path / "out", name="phantoms, all", description="made")
    for prefix, table in (("", found.slices), ("series-", found.series)):
        files = tmp_path / "out" / f"{prefix}predictions.csv", tmp_path / "out" / f"{prefix}labels.csv"
        again = read_predictions(*files, group_column="patient_id")
        assert (again.image_ids, again.groups) == (table.image_ids, table.groups)
        np.testing.assert_array_equal(again.probabilities, table.probabilities)
        np.testing.assert_array_equal(again.labels, table.labels)
    by_slice, by_study = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (by_slice["name"], by_slice["n_images"], by_study["n_images"]) == ("phantoms, all, by slice", 30, 6)
    assert by_slice["labels"]["epidural"]["reason"] == "the label is unknown for every image"
    with pytest.raises(DataError, match="cannot be written"):
        found.write(tmp_path / "out" / "scores.json", name="", description="")


def test_images_that_are_not_there_and_series_that_are_too_short_are_refused(
    make_cache: Callable[..., Cache], predictor: Predictor
) -> None:
    cache = make_cache(patients=2)
    with pytest.raises(DataError, match="1 images are not in this dataset, first ID_other"):
        assess_cache(predictor, cache, ["ID_other", "series_00_0"])
    volume = cache.read_series("series_00").volume
    write_series(cache.folder, "series_00", hounsfield=np.array(volume.hounsfield[:3]))
    with pytest.raises(DataError, match="series_00: the manifest names slice 4 of 3, from 0"):
        assess_cache(predictor, cache, ["series_00_0"])


def test_a_slice_without_a_row_has_no_label_and_counts_for_nothing(cache: Cache, predictor: Predictor) -> None:
    fewer = replace(cache, manifest=cache.manifest[cache.manifest["index"] != 1])
    found = assess_cache(predictor, fewer, list(fewer.manifest["image_id"]), gallery=2)
    assert len(found.slices.image_ids) == 48
    assert all(not error.image_id.endswith("_1") for error in found.errors)
    assert found.errors
