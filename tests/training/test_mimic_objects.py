"""The mimic set's physics: volumes are kept, projections come back, and only the brain is changed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hemoscope.testing.phantom import make_phantom

FILE = Path(__file__).parents[2] / "experiments" / "mimic_objects.py"


@pytest.fixture(scope="module")
def objects() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mimic_objects", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_solid_fills_its_volume_over_the_slices_that_it_reaches(objects: ModuleType) -> None:
    brain = np.ones((50, 50), dtype=bool)
    frame = objects.frame_of(brain, (200, 200), 0.5)
    for half in ((3.0, 2.0, 4.0), (1.0, 1.5, 2.0)):
        share = sum(
            objects.filled(objects.ellipsoid(half, 0.7), (100.3, 99.1), z, 5, frame) for z in np.arange(-10, 11, 5.0)
        )
        volume = share.sum() * frame.mm**2 * objects.SLICE_MM
        assert volume == pytest.approx(4 / 3 * np.pi * np.prod(half), rel=0.1)


def test_a_thin_object_is_fainter_and_no_pixel_is_filled_twice(objects: ModuleType) -> None:
    frame = objects.frame_of(np.ones((50, 50), dtype=bool), (200, 200), 0.5)
    thick, thin = (
        objects.filled(objects.ellipsoid((4.0, 4.0, half)), (100, 100), 0, 6, frame).max() for half in (20.0, 0.8)
    )
    assert thick == pytest.approx(1, abs=0.02)
    assert 0.1 < thin < 0.5


def test_projections_are_reconstructed_at_their_values(objects: ModuleType) -> None:
    rows, columns = np.indices((objects.SIDE, objects.SIDE)) - (objects.SIDE - 1) / 2
    disc = 40.0 * (np.hypot(rows, columns) < 50) + 30.0 * (np.hypot(rows, columns - 20) < 10)
    found = objects.reconstructed(objects.projected(disc))
    assert found[75:85, 95:105].mean() == pytest.approx(70, rel=0.05)
    assert found[75:85, 55:65].mean() == pytest.approx(40, rel=0.05)
    assert abs(found[5:15, 5:15].mean()) < 5


def test_an_object_changes_the_brain_alone(objects: ModuleType) -> None:
    image = make_phantom(seed=4, shape=(9, 256, 256)).hounsfield[5]
    brain = objects.brain_of(image)
    frame = objects.frame_of(brain, image.shape, 0.75)
    assert 0.2 < brain.mean() < 0.7
    assert abs(np.rad2deg(frame.turn)) < 8
    wide = objects.filled(objects.ellipsoid((200.0, 200.0, 20.0)), frame.middle, 0, 200, frame)
    changed = objects.replaced(image.astype(np.float64), wide, 70.0, frame)
    assert np.array_equal(changed[~frame.brain], image[~frame.brain])
    assert np.median(changed[frame.brain]) == pytest.approx(70, abs=4)
