"""What the network is shown: the same array that serving computes, and samples that follow from the draw alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hemoscope.card import TrainingData
from hemoscope.data.cache import COLUMNS, Cache, open_cache, write_manifest, write_series
from hemoscope.data.dicom_writer import write_series as write_dicom
from hemoscope.data.phantom import make_phantom
from hemoscope.dicom.read import read_slice
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage
from hemoscope.preprocess import AIR, Preprocessing, model_input, windowed
from hemoscope.training import dataset as dataset_module
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.dataset import (
    Crops,
    Draw,
    EpochSampler,
    PlainSlices,
    Sample,
    SamplingConfig,
    SliceDataset,
    load_crops,
)
from hemoscope.volume import HounsfieldVolume

NO_CHANGE = AugmentConfig(flip=0, rotation=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
NO_LESIONS = SamplingConfig(negatives=1.0, pasted=0, made=0)
EVERYONE = tuple(f"p{number}" for number in range(6))
SMALL = Preprocessing(size=64)


def cache_of(
    folder: Path, hounsfield: NDArray[np.int16], *, spacing_mm: tuple[float | None, float | None, float | None]
) -> Cache:
    """A cache of one series of one patient."""
    write_series(folder, "p", hounsfield=hounsfield, spacing_mm=spacing_mm)
    rows = [
        dict(zip(COLUMNS, (f"i{i}", "p", "p", "p", i, False, *[0] * 6), strict=True)) for i in range(len(hounsfield))
    ]
    about = TrainingData(name="one", version="1", doi="none", license="none", attribution="none", changes="none")
    write_manifest(folder, rows, about)
    return open_cache(folder)


def served(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """What serving makes of one DICOM file: HU by ``hemoscope.dicom``, rounded into a volume, the model's input."""
    hounsfield = np.rint(read_slice(path).hounsfield).astype(np.int16)
    volume = HounsfieldVolume(
        hounsfield=hounsfield[None], spacing_mm=(None, None, None), positions_mm=(None,), orientation=None
    )
    return model_input(volume, 0, preprocessing)


@pytest.mark.parametrize("crop", ["head", "none"])
@pytest.mark.parametrize("size", [32, 256])
def test_training_and_serving_see_the_identical_array_for_one_slice(tmp_path: Path, size: int, crop: str) -> None:
    """The rule of one preprocessing: a file read by serving, and the same slice through every road of training."""
    preprocessing = Preprocessing(size=size, crop=crop)  # type: ignore[arg-type]
    phantom = make_phantom(seed=8, shape=(1, 160, 160), bleeds=frozenset(SUBTYPES), table=True)
    expected = served(write_dicom(phantom, tmp_path / "dicom")[0], preprocessing)
    assert 0.05 < expected.mean() < 0.95

    cache = cache_of(tmp_path / "cache", np.array(phantom.hounsfield), spacing_mm=phantom.spacing_mm)
    scored = PlainSlices(cache, ["p"], preprocessing)[0].numpy()
    crops = load_crops(cache, ["p"], preprocessing)
    learned = SliceDataset(crops, preprocessing, NO_CHANGE, NO_LESIONS, seed=1)[Draw(0, 0, 0)].image.numpy()
    assert np.array_equal(scored, expected)
    assert np.array_equal(windowed(crops.hounsfield[0], preprocessing), expected)
    # Augmentation of nothing still passes through the resampling of the geometric step: equal to rounding alone.
    assert np.abs(learned - expected).max() < 1e-3


@pytest.mark.parametrize("spacing_mm", [1.0, 2.5, 5.0, None])
def test_cropped_slices_are_the_model_input_before_the_windows(tmp_path: Path, spacing_mm: float | None) -> None:
    """Thin slices too, which are averaged into slabs."""
    hounsfield = np.array(make_phantom(seed=4, shape=(9, 96, 96), spacing_mm=(1.0, 2.4, 2.4)).hounsfield)
    cache = cache_of(tmp_path, hounsfield, spacing_mm=(spacing_mm, None, None))
    crops = load_crops(cache, ["p"], SMALL)
    volume = cache.read_series("p").volume
    for index in range(9):
        assert np.array_equal(windowed(crops.hounsfield[index], SMALL), model_input(volume, index, SMALL))


def test_crops_bring_outlines_and_labels_of_the_right_slices(phantom_cache: Cache) -> None:
    shown: list[tuple[int, int]] = []
    chosen = ("p4", "p1")
    crops = load_crops(phantom_cache, chosen, SMALL, progress=lambda done, total: shown.append((done, total)))
    assert shown == [(3, 6), (6, 6)]
    assert crops.table["image_id"].tolist() == [f"p{p}_{i}" for p in (1, 4) for i in range(3)]
    for place, row in crops.table.iterrows():
        assert crops.labels[place].tolist() == [row[label.value] for label in LABELS]
        series = phantom_cache.read_series(row["series_id"])
        outlined = 0 if series.mask is None else series.mask[row["index"]].sum()
        if outlined:
            blood = crops.hounsfield[place][crops.outlines[place] > 0]
            assert 40 < np.median(blood) < 90
            assert crops.labels[place][0] == 1
        assert crops.outlines[place].any() == bool(outlined)


def test_an_outline_lies_on_the_same_pixels_as_its_lesion_after_the_crop(tmp_path: Path) -> None:
    """A square lesion in a square head: outline and pixels through the same box."""
    hounsfield = np.full((1, 96, 96), AIR, dtype=np.int16)
    hounsfield[0, 20:80, 10:70] = 30
    mask = np.zeros(hounsfield.shape, dtype=bool)
    mask[0, 40:56, 24:44] = True
    hounsfield[mask] = 130
    cache = cache_of(tmp_path, hounsfield, spacing_mm=(None, None, None))
    write_series(tmp_path, "p", hounsfield=hounsfield, mask=mask)
    crops = load_crops(cache, ["p"], SMALL)
    assert ((crops.hounsfield[0] > 80) == (crops.outlines[0] > 0)).mean() > 0.99


def dataset(
    cache: Cache, *, sampling: SamplingConfig, seed: int = 3, patients: tuple[str, ...] = EVERYONE
) -> SliceDataset:
    crops = load_crops(cache, patients, SMALL)
    return SliceDataset(crops, SMALL, AugmentConfig(), sampling, seed=seed)


def equal(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_sample_follows_from_seed_epoch_and_place_and_nothing_else(phantom_cache: Cache) -> None:
    sampling = SamplingConfig(pasted=0.5, made=0.5)
    slices = dataset(phantom_cache, sampling=sampling)
    sample = slices[Draw(12, 4, 7)]
    slices[Draw(3, 1, 1)], np.random.default_rng().random(), torch.rand(3)
    assert equal(slices[Draw(12, 4, 7)], sample)
    assert equal(dataset(phantom_cache, sampling=sampling)[Draw(12, 4, 7)], sample)
    for other in (Draw(12, 5, 7), Draw(12, 4, 8)):
        assert not equal(slices[other], sample)
    assert not equal(dataset(phantom_cache, sampling=sampling, seed=4)[Draw(12, 4, 7)], sample)


def test_samples_have_the_shapes_and_ranges_of_the_model_and_leave_the_crops_alone(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0.5, made=0.5))
    before = slices.crops.hounsfield.tobytes(), slices.crops.outlines.tobytes(), slices.crops.labels.tobytes()
    for place in range(36):
        image, labels, outline, typed = slices[Draw(place % 18, 0, place)]
        assert image.shape == (3, 64, 64)
        assert (image.dtype, labels.dtype, outline.dtype, typed.dtype) == (torch.float32,) * 4
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert 0 <= float(outline.min()) <= float(outline.max()) <= 1
        assert float(labels[0]) == float(labels[1:].max())
        assert float(typed) == float(labels[1:].sum() <= 1)
    assert before == (slices.crops.hounsfield.tobytes(), slices.crops.outlines.tobytes(), slices.crops.labels.tobytes())


def normal_rows(crops: Crops) -> list[int]:
    return [int(row) for row in np.flatnonzero(crops.labels[:, 0] == 0)]


def test_a_normal_slice_with_a_made_lesion_is_labelled_with_its_type_and_any(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0, made=1))
    row = normal_rows(slices.crops)[-2]  # the middle slice of a patient who does not bleed
    samples = [slices[Draw(row, 0, place)] for place in range(60)]
    gained = {tuple(sample.labels.tolist()) for sample in samples if sample.labels.any()}
    one_type = {tuple(float(i in (0, kind)) for i in range(6)) for kind in range(1, 6)}
    assert gained <= one_type
    assert len(gained) >= 3
    for sample in samples:
        assert bool(sample.outline.any()) == bool(sample.labels.any())


def test_a_pasted_lesion_brings_the_labels_of_its_donor(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=1, made=0))
    row = normal_rows(slices.crops)[-2]
    donors = {tuple(slices.crops.labels[donor].tolist()) for donor in slices.donors}
    labels = {tuple(slices[Draw(row, 0, place)].labels.tolist()) for place in range(30)}
    assert labels - {(0.0,) * 6} <= donors
    assert labels & donors


def test_without_a_donor_lesions_are_made_instead_of_pasted(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=1, made=0), patients=("p3", "p4", "p5"))
    assert not len(slices.donors)
    assert any(slices[Draw(1, 0, place)].labels.any() for place in range(20))


def test_a_slice_without_room_for_the_lesion_stays_normal(
    phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "make_lesion", lambda *_: None)
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0, made=1))
    sample = slices[Draw(normal_rows(slices.crops)[0], 0, 0)]
    assert not sample.labels.any()
    assert not sample.outline.any()


def test_a_slice_that_bleeds_gets_no_lesion_more(phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(dataset_module, "make_lesion", never)
    monkeypatch.setattr(dataset_module, "paste_lesion", never)
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0.5, made=0.5))
    for row in np.flatnonzero(slices.crops.labels[:, 0]):
        slices[Draw(int(row), 0, 0)]


LABELS_OF_30 = np.zeros((30, 6), dtype=np.float32)
LABELS_OF_30[[3, 8, 21, 22], 0] = 1


def test_an_epoch_holds_every_positive_once_and_as_many_normals_as_asked() -> None:
    sampler = EpochSampler(LABELS_OF_30, SamplingConfig(negatives=2.5), seed=1)
    draws = list(sampler)
    rows = [draw.row for draw in draws]
    assert len(draws) == len(sampler) == 4 + 10
    assert len(set(rows)) == len(rows)
    assert {3, 8, 21, 22} <= set(rows)
    assert [draw.place for draw in draws] == list(range(14))


def test_an_epoch_never_asks_for_more_normals_than_there_are() -> None:
    assert len(EpochSampler(LABELS_OF_30, SamplingConfig(negatives=100), seed=1)) == 30


def test_epochs_differ_and_repeat_themselves() -> None:
    def epoch(number: int, seed: int = 1) -> list[Draw]:
        sampler = EpochSampler(LABELS_OF_30, SamplingConfig(), seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(3) == epoch(3)
    assert [draw.row for draw in epoch(3)] != [draw.row for draw in epoch(4)]
    assert [draw.row for draw in epoch(3)] != [draw.row for draw in epoch(3, seed=2)]
    assert {draw.epoch for draw in epoch(3)} == {3}


def test_plain_slices_read_each_series_once(phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Cache.read_series
    monkeypatch.setattr(Cache, "read_series", lambda self, series: read.append(series) or original(self, series))
    slices = PlainSlices(phantom_cache, ["p0", "p5"], SMALL)
    assert len(slices) == 6
    for place in range(6):
        slices[place]
    assert read == ["p0", "p5"]


def test_part_of_the_normals_with_a_lesion_is_the_sum_of_both_kinds() -> None:
    assert SamplingConfig(pasted=0.2, made=0.3).with_lesion == pytest.approx(0.5)


@pytest.mark.parametrize("label", SUBTYPES)
def test_labels_of_the_crops_stand_in_the_one_order(
    tmp_path: Path, label: Hemorrhage, make_rows: Callable[..., Cache]
) -> None:
    crops = load_crops(make_rows(tmp_path, label), ["p"], SMALL)
    assert [LABELS[k] for k in np.flatnonzero(crops.labels[0])] == [Hemorrhage.ANY, label]


@pytest.fixture
def make_rows() -> Callable[..., Cache]:
    def build(folder: Path, label: Hemorrhage) -> Cache:
        cache_of(folder, np.zeros((1, 32, 32), dtype=np.int16), spacing_mm=(None, None, None))
        row = dict(zip(COLUMNS, ("i", "p", "p", "p", 0, False), strict=False))
        known = {name.value: int(name in (Hemorrhage.ANY, label)) for name in LABELS}
        about = TrainingData(name="one", version="1", doi="none", license="none", attribution="none", changes="none")
        write_manifest(folder, [{**row, **known}], about)
        return open_cache(folder)

    return build
