"""Which outlined bleeds are donors and train the maps: those that are brighter than the brain around them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.labels import Hemorrhage
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import load_crops
from hemoscope.training.dataset import SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.donors import Donor, outline_lift
from hemoscope.training.experiment import Experiment
from hemoscope.training.train import train

SIZE = 96
BLEEDS = [1, 0, 1, 0, 0, 0]
Image = NDArray[np.int16]
Outline = NDArray[np.bool_]


@pytest.fixture(scope="module")
def brain() -> tuple[Image, Outline]:
    """A head without a bleed, and an outline in the white matter of it, away from CSF and bone."""
    head = np.array(make_phantom(seed=2, shape=(3, SIZE, SIZE)).hounsfield[1])
    rows, columns = np.indices(head.shape)
    outline = np.hypot(rows - 36, columns - 62) < 6
    return head, outline


def with_outline_at(brain: tuple[Image, Outline], contrast: int) -> Image:
    """Set the inside of the outline to the brain's HU plus a contrast, with the noise that is there."""
    head, outline = brain
    return np.where(outline, head + contrast, head).astype(np.int16)


@pytest.mark.parametrize("contrast", [-18, 0, 5, 30])
def test_the_lift_is_the_contrast_of_the_outline_to_the_brain_around_it(
    brain: tuple[Image, Outline], contrast: int
) -> None:
    lift = outline_lift(with_outline_at(brain, contrast).astype(np.float32), brain[1])
    assert lift == pytest.approx(contrast, abs=2.5)


@pytest.mark.parametrize("beside", [900, -1000, 75])
def test_bone_air_and_blood_around_the_outline_do_not_count_as_brain(brain: tuple[Image, Outline], beside: int) -> None:
    image = with_outline_at(brain, 30).astype(np.float32)
    rows, columns = np.indices(image.shape)
    half = (np.hypot(rows - 36, columns - 62) > 7) & (rows > 36)
    lift = outline_lift(np.where(half, np.float32(beside), image), brain[1])
    assert lift == pytest.approx(30, abs=3)


def test_without_brain_around_it_an_outline_has_no_lift() -> None:
    bone = np.full((SIZE, SIZE), 900, dtype=np.float32)
    outline = np.zeros((SIZE, SIZE), dtype=bool)
    outline[40:50, 40:50] = True
    assert outline_lift(bone, outline) is None
    bone[outline] = 60
    assert outline_lift(bone, outline) is None


def test_a_bleed_that_cannot_be_measured_shows_only_if_every_bleed_does() -> None:
    donor = Donor(row=0, image_id="i", lift_hu=None)
    assert donor.shows(None)
    assert not donor.shows(-100.0)


def dataset(cache: Cache, sampling: SamplingConfig) -> SliceDataset:
    preprocessing = Preprocessing(size=SIZE)
    crops = load_crops(cache, list(cache.manifest["image_id"]), preprocessing)
    return SliceDataset(crops, preprocessing, AugmentConfig(), sampling, seed=1)


@pytest.fixture
def three(tmp_path: Path, make_cache: Callable[..., Cache], brain: tuple[Image, Outline]) -> Cache:
    """A hypodense, an isodense and a bright outline, each labelled as a bleed."""
    images = np.stack([with_outline_at(brain, contrast) for contrast in (-18, 0, 30)])
    mask = np.repeat(brain[1][None], 3, axis=0)
    return make_cache(tmp_path, images, mask=mask, labels=[BLEEDS] * 3)


def test_an_outline_that_is_not_seen_is_no_donor_and_trains_no_map_but_keeps_its_labels(three: Cache) -> None:
    slices = dataset(three, SamplingConfig(pasted=0, made=0, donor_lift=4.0))
    assert slices.donors.tolist() == [2]
    assert [donor.image_id for donor in slices.excluded] == ["i0", "i1"]
    samples = [slices[SampleIndex(row, 0, row)] for row in range(3)]
    assert [float(sample.mask_known) for sample in samples] == [0, 0, 1]
    assert all(sample.labels.tolist() == BLEEDS for sample in samples)


def test_without_the_rule_every_outline_is_a_donor_and_trains_the_maps(three: Cache) -> None:
    slices = dataset(three, SamplingConfig(pasted=0, made=0))
    assert slices.donors.tolist() == [0, 1, 2]
    assert slices.excluded == ()
    assert all(float(slices[SampleIndex(row, 0, row)].mask_known) == 1 for row in range(3))


@pytest.mark.parametrize("donor_lift", [None, 1000.0])
def test_a_run_records_the_outlines_that_it_left_out(
    phantom_cache: Cache, tiny_experiment: Callable[..., Experiment], runs: Path, donor_lift: float | None
) -> None:
    sampling = {"donor_lift": donor_lift} if donor_lift else {}
    experiment = tiny_experiment(run={"folds": 0, "epochs": 1}, sampling=sampling)
    train(experiment, phantom_cache, runs, threads=1)
    record = runs / "final" / "excluded-donors.json"
    assert record.is_file() == bool(donor_lift)
    if donor_lift:
        masked = phantom_cache.manifest.loc[phantom_cache.manifest["masked"], "image_id"]
        listed = json.loads(record.read_text())
        assert [one["image_id"] for one in listed] == list(masked)
        assert all(set(one) == {"image_id", "lift_hu"} for one in listed)


def test_a_phantom_bleed_is_a_donor(tmp_path: Path, make_cache: Callable[..., Cache]) -> None:
    phantom = make_phantom(seed=7, shape=(3, SIZE, SIZE), bleeds=frozenset({Hemorrhage.INTRAPARENCHYMAL}))
    mask = np.array(phantom.masks["any"])[1:2]
    cache = make_cache(tmp_path, np.array(phantom.hounsfield)[1:2], mask=mask, labels=[BLEEDS])
    assert dataset(cache, SamplingConfig(donor_lift=8.0)).donors.tolist() == [0]
