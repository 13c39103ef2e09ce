"""Chooses the images of a prepared dataset to score, with warnings about how the model used them.

The subset is rebuilt from the split that the model's card records, so that "test" means images that this model was not
trained on. If the card records no split, the default split by patient is used, with a warning if the model was trained
on the same dataset.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from hemoscope.data.cache import Cache
from hemoscope.data.split import Split, split_by_patient, split_by_slice
from hemoscope.errors import DataError
from hemoscope.inference.card import ModelCard, SplitRecord, images_sha256
from hemoscope.labels import LABELS

SubsetName = Literal["train", "validation", "test", "all"]
SUBSETS: tuple[SubsetName, ...] = get_args(SubsetName)
_SHARE = 0.1
_SEED = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSubset:
    """Images to score.

    Attributes:
        name: of the subset.
        image_ids: its images.
        by: unit of the split; None for all images.
        seed: of the split; None for all images.
        recorded: whether the model's card records this split.
        warnings: that every report must show.
    """

    name: SubsetName
    image_ids: tuple[str, ...]
    by: Literal["patient", "slice"] | None
    seed: int | None
    recorded: bool
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for ``report.json``."""
        return {"part": self.name, "by": self.by, "seed": self.seed, "recorded_in_card": self.recorded}


def choose_subset(cache: Cache, card: ModelCard, name: SubsetName, *, tuned_on: str | None = None) -> EvaluationSubset:
    """Choose the images of one subset of a dataset for one model.

    Args:
        cache: the dataset.
        card: of the model.
        name: of the subset.
        tuned_on: hash of the images that the model was tuned on (``card.images_sha256``), if known.

    Raises:
        DataError: the card's split is of another dataset or other images, or the subset is empty.
    """
    image_ids = tuple(cache.manifest["image_id"])
    if name == "all":
        warnings = (*_of_all(cache, card), *_of_tuning(tuned_on, image_ids))
        return EvaluationSubset(name=name, image_ids=image_ids, by=None, seed=None, recorded=False, warnings=warnings)
    split, seed = _split(cache, card.split)
    chosen = {"train": split.train, "validation": split.validation, "test": split.test}[name]
    if not chosen:
        msg = f"the split by {split.by} has no {name} set. Choose another --split"
        raise DataError(msg)
    leak = () if split.warning is None else (split.warning,)
    return EvaluationSubset(
        name=name,
        image_ids=chosen,
        by=split.by,
        seed=seed,
        recorded=card.split is not None,
        warnings=(*leak, *_of_subset(cache, card, name), *_of_tuning(tuned_on, chosen, image_ids)),
    )


def _split(cache: Cache, record: SplitRecord | None) -> tuple[Split, int]:
    manifest = cache.manifest
    image_ids, patients = list(manifest["image_id"]), list(manifest["patient_id"])
    labels = manifest[list(LABELS)].to_numpy(dtype=np.float64, na_value=np.nan)
    if record is None:
        return split_by_patient(image_ids, patients, labels, validation=_SHARE, test=_SHARE, seed=_SEED), _SEED
    if record.dataset != cache.dataset.name:
        msg = (
            f"the model's split is of the dataset {record.dataset}, this one is {cache.dataset.name}. Use that "
            f"dataset, or score every image with --split all"
        )
        raise DataError(msg)
    if record.images_sha256 != images_sha256(image_ids):
        msg = (
            f"the model's split was of other images than the {len(image_ids)} of this {record.dataset}: its test "
            f"images are unknown. Use the dataset as prepared then, or score every image with --split all"
        )
        raise DataError(msg)
    if record.by == "slice":
        return split_by_slice(image_ids, test=record.test, seed=record.seed), record.seed
    split = split_by_patient(
        image_ids, patients, labels, validation=record.validation, test=record.test, seed=record.seed
    )
    return split, record.seed


def _learned_from(cache: Cache, card: ModelCard) -> bool:
    return cache.dataset.name in {data.name for data in card.training_data}


def _of_all(cache: Cache, card: ModelCard) -> tuple[str, ...]:
    if not _learned_from(cache, card):
        return ()
    return (
        f"The model was trained on images of {cache.dataset.name}, and all of its images are scored here: the "
        f"scores are too high for new patients.",
    )


def _of_subset(cache: Cache, card: ModelCard, name: SubsetName) -> tuple[str, ...]:
    if card.split is None:
        if not _learned_from(cache, card):
            return ()
        return (
            f"The model's card records no split, and the model was trained on {cache.dataset.name}, perhaps on these "
            f"patients; then the scores are far too high for new ones. The images are those of the default split by "
            f"patient.",
        )
    if name == "train":
        return ("The model was trained on these images: the scores do not apply to new patients.",)
    if name == "validation":
        return (
            "The model's calibration, thresholds and stopping point were chosen on these images: the scores are "
            "somewhat too high for new patients.",
        )
    return ()


def _of_tuning(tuned_on: str | None, *sets: tuple[str, ...]) -> tuple[str, ...]:
    """Warn if the model was tuned on one of these sets of images, each of which includes the scored images."""
    if tuned_on is None or tuned_on not in map(images_sha256, sets):
        return ()
    return (
        "The model's calibration and thresholds were tuned on these images: the scores are too high. "
        "Tune on other images, such as --split validation.",
    )
