"""A tiny hospital: a cache of phantoms, and experiments that take a second a round."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hemoscope.card import TrainingData
from hemoscope.data.cache import Cache, open_cache, write_manifest, write_series
from hemoscope.data.phantom import make_phantom
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.training.experiment import Experiment, parse_experiment

PATIENTS, SLICES = 12, 3


@pytest.fixture
def one_thread() -> None:
    """Sums in one order, so that weights can be compared bit for bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def hospital_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Twelve made patients of three slices of 64 pixels; every second one bleeds. Do not write into it."""
    folder = tmp_path_factory.mktemp("hospital") / "cache"
    rows: list[dict[str, Any]] = []
    for number in range(PATIENTS):
        patient = f"p{number}"
        bleeds = frozenset(SUBTYPES) if number % 2 == 0 else frozenset()
        phantom = make_phantom(seed=number, shape=(SLICES, 64, 64), bleeds=bleeds)
        mask = np.array(phantom.masks["any"])
        write_series(folder, patient, hounsfield=np.array(phantom.hounsfield), mask=mask if bleeds else None)
        for index, labels in enumerate(phantom.slice_labels):
            ids = {"image_id": f"{patient}_{index}", "patient_id": patient, "study_id": patient, "series_id": patient}
            known = {label.value: int(shown) for label, shown in zip(LABELS, labels, strict=True)}
            rows.append({**ids, "index": index, "masked": bool(labels.any()), **known})
    dataset = TrainingData(
        name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made here", changes="none"
    )
    write_manifest(folder, rows, dataset)
    return open_cache(folder)


@pytest.fixture(scope="session")
def small_experiment() -> Callable[..., Experiment]:
    """``small_experiment(run={...}, ...)``: 32 pixels, one split by patient, no moving average; tables are laid over.

    Of twelve patients, six are trained on, three validate and three are scored.
    """

    def build(**changes: Any) -> Experiment:
        tables: dict[str, Any] = {
            "run": {"batch_size": 4, "init": "none", "split": "patient", "validation": 0.25, "test": 0.25},
            "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
            "preprocessing": {"size": 32},
            "sampling": {"negatives": 1.0},
            "optimizer": {"ema": 0.0},
        }
        for name, change in changes.items():
            tables[name] = {**tables.get(name, {}), **change} if isinstance(change, dict) else change
        return parse_experiment({"name": "small", **tables}, where="the test")

    return build
