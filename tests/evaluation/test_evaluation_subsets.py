"""The images to score: those of the split that the model's card records, with every warning that they need."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hemoscope.data.cache import Cache
from hemoscope.data.split import split_by_patient, split_by_slice
from hemoscope.errors import DataError
from hemoscope.evaluation.evaluation_subsets import SUBSETS, SubsetName, choose_subset
from hemoscope.inference.card import ModelCard, SplitRecord, images_sha256
from hemoscope.labels import LABELS

MakeCard = Callable[..., ModelCard]


def record_of(cache: Cache, **changes: Any) -> SplitRecord:
    record = SplitRecord(
        dataset="phantoms",
        by="patient",
        seed=7,
        validation=0.25,
        test=0.25,
        images_sha256=images_sha256(cache.manifest["image_id"]),
    )
    return replace(record, **changes)


def test_the_recorded_split_by_patient_is_rebuilt(cache: Cache, make_card: MakeCard) -> None:
    card = make_card(split=record_of(cache))
    manifest = cache.manifest
    labels = manifest[list(LABELS)].to_numpy(dtype=np.float64)
    expected = split_by_patient(
        list(manifest["image_id"]), list(manifest["patient_id"]), labels, validation=0.25, test=0.25, seed=7
    )
    subsets = {name: choose_subset(cache, card, name) for name in SUBSETS}
    assert subsets["train"].image_ids == expected.train
    assert subsets["validation"].image_ids == expected.validation
    assert subsets["test"].image_ids == expected.test
    assert set(subsets["all"].image_ids) == set(manifest["image_id"])
    assert subsets["test"].warnings == ()
    assert subsets["test"].as_dict() == {"part": "test", "by": "patient", "seed": 7, "recorded_in_card": True}


def test_parts_that_the_model_knows_carry_a_warning(cache: Cache, make_card: MakeCard) -> None:
    card = make_card(split=record_of(cache))
    assert "was trained on these images" in choose_subset(cache, card, "train").warnings[0]
    assert "were chosen on these images" in choose_subset(cache, card, "validation").warnings[0]
    assert "all of its images are scored here" in choose_subset(cache, card, "all").warnings[0]


def test_a_split_by_slice_leaks_and_states_it_in_every_subset(cache: Cache, make_card: MakeCard) -> None:
    card = make_card(split=record_of(cache, by="slice", validation=0.0))
    subset = choose_subset(cache, card, "test")
    assert subset.image_ids == split_by_slice(list(cache.manifest["image_id"]), test=0.25, seed=7).test
    assert "slices of one patient are in both train and test" in subset.warnings[0]
    assert "slices of one patient are in both train and test" in choose_subset(cache, card, "train").warnings[0]
    with pytest.raises(DataError, match="the split by slice has no validation set"):
        choose_subset(cache, card, "validation")


def test_another_dataset_and_other_images_are_refused_but_all_may_be_scored(cache: Cache, make_card: MakeCard) -> None:
    foreign = make_card(split=record_of(cache, dataset="elsewhere"), training_data=())
    with pytest.raises(DataError, match=r"split is of the dataset elsewhere, this one is phantoms.*--split all"):
        choose_subset(cache, foreign, "test")
    changed = make_card(split=record_of(cache, images_sha256="0" * 64))
    with pytest.raises(DataError, match=r"was of other images than the 60 of this phantoms.*--split all"):
        choose_subset(cache, changed, "test")
    for card in (foreign, changed):
        assert len(choose_subset(cache, card, "all").image_ids) == 60
    assert choose_subset(cache, foreign, "all").warnings == ()


def test_without_a_recorded_split_the_default_is_taken_and_doubted(cache: Cache, make_card: MakeCard) -> None:
    subset = choose_subset(cache, make_card(), "test")
    assert (subset.by, subset.seed, subset.recorded) == ("patient", 257, False)
    assert "perhaps on these patients" in subset.warnings[0]
    assert choose_subset(cache, make_card(training_data=()), "test").warnings == ()


def test_images_that_the_model_was_tuned_on_are_reported(cache: Cache, make_card: MakeCard) -> None:
    card = make_card(split=record_of(cache))
    every = images_sha256(cache.manifest["image_id"])
    on = {name: images_sha256(choose_subset(cache, card, name).image_ids) for name in SUBSETS}

    def warned(name: SubsetName, tuned_on: str | None) -> bool:
        return any(
            "tuned on these images" in line for line in choose_subset(cache, card, name, tuned_on=tuned_on).warnings
        )

    assert warned("test", on["test"])
    assert warned("test", every)
    assert warned("all", every)
    assert warned("validation", on["validation"])
    assert not warned("test", on["validation"])
    assert not warned("test", None)
