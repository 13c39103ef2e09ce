"""A small prepared dataset of phantoms: twelve patients, one series each, half of them bleeding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemoscope.data.cache import COLUMNS, Cache, open_cache, write_manifest, write_series
from hemoscope.inference.card import TrainingData
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.testing.phantom import make_phantom

DATASET = TrainingData(name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="us", changes="none")
SLICES = 5


@pytest.fixture(scope="session")
def make_cache(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cache]:
    """``make_cache(patients=12, unknown=("epidural",))``: labels of the named kinds are unknown throughout."""

    def build(*, patients: int = 12, unknown: tuple[str, ...] = ()) -> Cache:
        folder = tmp_path_factory.mktemp("caches") / "phantoms"
        rows = []
        for patient in range(patients):
            bleeds = frozenset({Hemorrhage.INTRAPARENCHYMAL, Hemorrhage.SUBDURAL}) if patient % 2 else frozenset()
            phantom = make_phantom(seed=patient, shape=(SLICES, 64, 64), bleeds=bleeds)
            name = f"series_{patient:02d}"
            write_series(folder, name, hounsfield=phantom.hounsfield.astype(np.int16), spacing_mm=(5.0, 3.0, 3.0))
            for index, six in enumerate(phantom.slice_labels):
                labels = [None if label in unknown else int(one) for label, one in zip(LABELS, six, strict=True)]
                place = (f"{name}_{index}", f"patient_{patient:02d}", name, name, index, False)
                rows.append(dict(zip(COLUMNS, (*place, *labels), strict=True)))
        write_manifest(folder, rows, DATASET)
        return open_cache(folder)

    return build


@pytest.fixture(scope="session")
def cache(make_cache: Callable[..., Cache]) -> Cache:
    """The dataset with every label known; do not write into it."""
    return make_cache()


@pytest.fixture
def cache_folder(cache: Cache) -> Path:
    """Where it lies."""
    return cache.folder
