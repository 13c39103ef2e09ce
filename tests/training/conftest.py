"""A small cache of phantoms, and experiments that take seconds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hemoscope.data.cache import COLUMNS, Cache, open_cache, write_manifest, write_series
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.experiment import Experiment, parse_experiment

DATASET = TrainingData(
    name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="made here", changes="none"
)
PATIENTS, SLICES = 6, 3


@pytest.fixture(scope="session")
def phantom_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Six made patients of three slices of 64 pixels; the first three bleed with every type. Do not write into it."""
    folder = tmp_path_factory.mktemp("phantoms")
    rows: list[dict[str, Any]] = []
    for number in range(PATIENTS):
        patient = f"p{number}"
        bleeds = frozenset(SUBTYPES) if number < PATIENTS // 2 else frozenset()
        phantom = make_phantom(seed=number, shape=(SLICES, 64, 64), bleeds=bleeds)
        mask = np.array(phantom.masks["any"])
        write_series(folder, patient, hounsfield=np.array(phantom.hounsfield), mask=mask if bleeds else None)
        for index, labels in enumerate(phantom.slice_labels):
            ids = {"image_id": f"{patient}_{index}", "patient_id": patient, "study_id": patient, "series_id": patient}
            known = {label.value: int(shown) for label, shown in zip(LABELS, labels, strict=True)}
            rows.append({**ids, "index": index, "masked": bool(labels.any()), **known})
    write_manifest(folder, rows, DATASET)
    return open_cache(folder)


@pytest.fixture(scope="session")
def make_cache() -> Callable[..., Cache]:
    """``make_cache(folder, hounsfield, mask=, labels=, spacing_mm=)``: a cache of one series ``p`` of one patient.

    ``labels`` (n, 6) may hold None for unknown; without them all are 0.
    """

    def build(
        folder: Path,
        hounsfield: NDArray[np.int16],
        *,
        mask: NDArray[np.bool_] | None = None,
        labels: Sequence[Sequence[int | None]] | None = None,
        spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None),
    ) -> Cache:
        write_series(folder, "p", hounsfield=hounsfield, spacing_mm=spacing_mm, mask=mask)
        mask_known = [mask is not None and bool(mask[i].any()) for i in range(len(hounsfield))]
        known = labels if labels is not None else [[0] * 6] * len(hounsfield)
        rows = [
            dict(zip(COLUMNS, (f"i{i}", "p", "p", "p", i, mask_known[i], *known[i]), strict=True))
            for i in range(len(hounsfield))
        ]
        write_manifest(folder, rows, DATASET)
        return open_cache(folder)

    return build


@pytest.fixture
def tiny_experiment() -> Callable[..., Experiment]:
    """``tiny_experiment(run={...}, ...)``: seconds of training on 32 pixels; tables given are laid over its own."""

    def build(**changes: Any) -> Experiment:
        tables: dict[str, Any] = {
            "run": {"epochs": 2, "batch_size": 4, "folds": 2, "init": "none"},
            "network": {"backbone": "test_efficientnet", "width": 8, "pooled": 4},
            "preprocessing": {"size": 32},
            "sampling": {"negatives": 1.0},
        }
        for name, change in changes.items():
            tables[name] = {**tables.get(name, {}), **change} if isinstance(change, dict) else change
        return parse_experiment({"name": "tiny", **tables}, where="the test")

    return build


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Where runs of one test go."""
    return tmp_path / "runs"
