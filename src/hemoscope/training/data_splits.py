"""The data splits of a run: for each network, its training, validation and test images."""

from dataclasses import dataclass

import numpy as np

from hemoscope.data.cache import Cache
from hemoscope.data.split import Split, patient_folds, split_by_patient, split_by_slice
from hemoscope.errors import ConfigError
from hemoscope.inference.card import SplitRecord, images_sha256
from hemoscope.labels import LABELS
from hemoscope.training.experiment import Experiment

FINAL = "final"
SPLIT = "split"
_FOLD_SEED = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplit:
    """The image ids of one network's training, validation and test sets; the sets are disjoint."""

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


def make_data_splits(experiment: Experiment, cache: Cache) -> tuple[DataSplit, ...]:
    """Return one split per fold and the final one, or the single split of a run by patient or slice.

    Raises:
        ConfigError: ``held_out`` names a patient that is not in the data.
        DataError: the data is too small for the folds or the split.
    """
    if experiment.run.split == "folds":
        return _fold_splits(experiment, cache)
    split = split_images(experiment, cache)
    return (DataSplit(name=SPLIT, train=split.train, validation=split.validation, test=split.test),)


def split_images(experiment: Experiment, cache: Cache) -> Split:
    """Split the images of a run by patient or by slice. Raises DataError if a set would be empty."""
    run, table = experiment.run, cache.manifest
    images = table["image_id"].tolist()
    if run.split == "slice":
        return split_by_slice(images, test=run.test, seed=run.split_seed)
    labels = table[[label.value for label in LABELS]].to_numpy(dtype=np.float64, na_value=np.nan)
    patients = table["patient_id"].tolist()
    return split_by_patient(images, patients, labels, validation=run.validation, test=run.test, seed=run.split_seed)


def split_record(experiment: Experiment, cache: Cache) -> SplitRecord | None:
    """Return the card's record of the run's split; None for folds."""
    run = experiment.run
    if run.split == "folds":
        return None
    return SplitRecord(
        dataset=cache.dataset.name,
        by=run.split,
        seed=run.split_seed,
        validation=run.validation_share,
        test=run.test,
        images_sha256=images_sha256(cache.manifest["image_id"].tolist()),
    )


def _fold_splits(experiment: Experiment, cache: Cache) -> tuple[DataSplit, ...]:
    """The folds, with every image tested once, then the final network on all patients except the held-out ones."""
    table = cache.manifest[["image_id", "patient_id"]].astype(str)
    counts = cache.manifest.groupby("patient_id")[[label.value for label in LABELS]].sum()
    patients = tuple(str(patient) for patient in counts.index)
    unknown = sorted(set(experiment.run.held_out) - set(patients))
    if unknown:
        msg = f"held_out names patients that are not in the data: {', '.join(unknown)}. Use --set run.held_out=[]"
        raise ConfigError(msg)

    def images(chosen: set[str]) -> tuple[str, ...]:
        return tuple(table.loc[table["patient_id"].isin(chosen), "image_id"])

    splits = []
    if experiment.run.folds:
        positives = {patient: tuple(int(n) for n in counts.loc[patient]) for patient in patients}
        fold_of = patient_folds(positives, folds=experiment.run.folds, seed=_FOLD_SEED)
        for fold in range(experiment.run.folds):
            test = {patient for patient in patients if fold_of[patient] == fold}
            train = images(set(patients) - test)
            splits.append(DataSplit(name=f"fold-{fold}", train=train, test=images(test)))
    return (*splits, DataSplit(name=FINAL, train=images(set(patients) - set(experiment.run.held_out))))
