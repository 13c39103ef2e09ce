"""Samples: the same array that serving computes, determined by the sample index alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hemoscope.data.cache import Cache
from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.testing.phantom import make_phantom
from hemoscope.training import dataset as dataset_module
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import Crops, load_crops
from hemoscope.training.dataset import EpochSampler, PlainSlices, Sample, SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.experiment import Experiment
from hemoscope.training.train import train

NO_CHANGE = AugmentConfig(flip=0, rotation=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
EVERYONE = tuple(f"p{number}" for number in range(6))
SMALL = Preprocessing(size=64)
UNKNOWN = [None] * 6
MakeCache = Callable[..., Cache]


def dataset(
    cache: Cache,
    *,
    sampling: SamplingConfig,
    seed: int = 3,
    patients: tuple[str, ...] = EVERYONE,
    neighbours: int = 0,
    augment: AugmentConfig | None = None,
) -> SliceDataset:
    preprocessing = Preprocessing(size=64, neighbours=neighbours)
    images = list(cache.manifest.loc[cache.manifest["patient_id"].isin(patients), "image_id"])
    crops = load_crops(cache, images, preprocessing)
    return SliceDataset(crops, preprocessing, augment or AugmentConfig(), sampling, seed=seed)


def equal(one: Sample, other: Sample) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("neighbours", [0, 1])
def test_a_sample_follows_from_seed_epoch_and_place_and_nothing_else(phantom_cache: Cache, neighbours: int) -> None:
    sampling = SamplingConfig(pasted=0.5, made=0.5)
    slices = dataset(phantom_cache, sampling=sampling, neighbours=neighbours)
    sample = slices[SampleIndex(12, 4, 7)]
    slices[SampleIndex(3, 1, 1)], np.random.default_rng().random(), torch.rand(3)
    assert equal(slices[SampleIndex(12, 4, 7)], sample)
    assert equal(dataset(phantom_cache, sampling=sampling, neighbours=neighbours)[SampleIndex(12, 4, 7)], sample)
    for other in (SampleIndex(12, 5, 7), SampleIndex(12, 4, 8)):
        assert not equal(slices[other], sample)
    assert not equal(dataset(phantom_cache, sampling=sampling, seed=4)[SampleIndex(12, 4, 7)], sample)


@pytest.mark.parametrize("neighbours", [0, 1, 2])
def test_samples_have_the_shapes_and_ranges_of_the_model_and_leave_the_crops_alone(
    phantom_cache: Cache, neighbours: int
) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0.5, made=0.5), neighbours=neighbours)
    before = slices.crops.hounsfield.tobytes(), slices.crops.masks.tobytes(), slices.crops.labels.tobytes()
    for place in range(36):
        sample = slices[SampleIndex(place % 18, 0, place)]
        image, labels, mask, typed, mask_known = sample
        assert image.shape == (3 * (2 * neighbours + 1), 64, 64)
        assert mask.shape == (64, 64)
        assert {part.dtype for part in sample} == {torch.float32}
        assert float(mask_known) == 1
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert 0 <= float(mask.min()) <= float(mask.max()) <= 1
        assert float(labels[0]) == float(labels[1:].max())
        assert float(typed) == float(labels[1:].sum() <= 1)
    assert before == (slices.crops.hounsfield.tobytes(), slices.crops.masks.tobytes(), slices.crops.labels.tobytes())


def normal_rows(crops: Crops) -> list[int]:
    return [int(row) for row in np.flatnonzero(crops.labels[:, 0] == 0)]


def test_a_normal_slice_with_a_synthetic_lesion_is_labelled_with_its_type_and_any(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0, made=1))
    row = normal_rows(slices.crops)[-2]  # the middle slice of a patient who does not bleed
    samples = [slices[SampleIndex(row, 0, place)] for place in range(60)]
    gained = {tuple(sample.labels.tolist()) for sample in samples if sample.labels.any()}
    one_type = {tuple(float(i in (0, kind)) for i in range(6)) for kind in range(1, 6)}
    assert gained <= one_type
    assert len(gained) >= 3
    for sample in samples:
        assert bool(sample.mask.any()) == bool(sample.labels.any())


def test_a_pasted_lesion_brings_the_labels_of_its_donor(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=1, made=0))
    row = normal_rows(slices.crops)[-2]
    donors = {tuple(slices.crops.labels[donor].tolist()) for donor in slices.donors}
    labels = {tuple(slices[SampleIndex(row, 0, place)].labels.tolist()) for place in range(30)}
    assert labels - {(0.0,) * 6} <= donors
    assert labels & donors


def test_without_a_donor_lesions_are_synthetic_instead_of_pasted(phantom_cache: Cache) -> None:
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=1, made=0), patients=("p3", "p4", "p5"))
    assert not len(slices.donors)
    assert any(slices[SampleIndex(1, 0, place)].labels.any() for place in range(20))


def test_a_slice_without_room_for_the_lesion_stays_normal(
    phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_module, "synthesize_in_stack", lambda *_, **__: None)
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0, made=1))
    sample = slices[SampleIndex(normal_rows(slices.crops)[0], 0, 0)]
    assert not sample.labels.any()
    assert not sample.mask.any()


def test_a_slice_that_bleeds_gets_no_lesion_more(phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(dataset_module, "synthesize_in_stack", never)
    monkeypatch.setattr(dataset_module, "paste_in_stack", never)
    slices = dataset(phantom_cache, sampling=SamplingConfig(pasted=0.5, made=0.5))
    for row in np.flatnonzero(slices.crops.labels[:, 0]):
        slices[SampleIndex(int(row), 0, 0)]


@pytest.mark.parametrize(
    ("known", "typed", "mask_known"),
    [
        ([0, 0, 0, 0, 0, 0], 1, 1),
        ([1, 0, 0, 0, 0, 1], 1, 0),
        ([1, 0, 1, 0, 0, 1], 0, 0),
        ([0, None, None, None, None, None], 0, 1),
        ([1, None, None, None, None, 1], 0, 0),
        (UNKNOWN, 0, 0),
    ],
)
def test_unknown_labels_stay_unknown_and_a_mask_counts_only_where_it_is_known(
    tmp_path: Path, make_cache: MakeCache, known: list[int | None], typed: int, mask_known: int
) -> None:
    cache = make_cache(tmp_path, np.zeros((1, 32, 32), dtype=np.int16), labels=[known])
    sample = dataset(cache, sampling=SamplingConfig(pasted=0, made=0), patients=("p",))[SampleIndex(0, 0, 0)]
    assert [None if np.isnan(value) else int(value) for value in sample.labels.tolist()] == known
    assert (float(sample.typed), float(sample.mask_known)) == (typed, mask_known)
    assert not sample.mask.any()


def test_a_slice_that_may_bleed_gets_no_lesion(
    tmp_path: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        dataset_module, "synthesize_in_stack", lambda *_, **__: pytest.fail("a lesion on an unknown slice")
    )
    cache = make_cache(tmp_path, np.zeros((1, 32, 32), dtype=np.int16), labels=[[None, 0, 0, 0, 0, 0]])
    slices = dataset(cache, sampling=SamplingConfig(pasted=0, made=1), patients=("p",))
    for place in range(10):
        slices[SampleIndex(0, 0, place)]


def test_a_lesion_of_known_type_on_a_slice_with_unknown_types_adds_what_is_known(
    tmp_path: Path, make_cache: MakeCache
) -> None:
    hounsfield = np.array(make_phantom(seed=5, shape=(3, 64, 64)).hounsfield)[1:2]
    cache = make_cache(tmp_path, hounsfield, labels=[[0, None, None, None, None, None]])
    slices = dataset(cache, sampling=SamplingConfig(pasted=0, made=1), patients=("p",))
    bleeding = [s for s in (slices[SampleIndex(0, 0, place)] for place in range(30)) if s.labels[0] == 1]
    assert bleeding
    for sample in bleeding:
        assert int((sample.labels == 1).sum()) == 2
        assert int(torch.isnan(sample.labels).sum()) == 4
        assert sample.mask.any()
        assert (float(sample.typed), float(sample.mask_known)) == (0, 1)


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
    def epoch(number: int, seed: int = 1) -> list[SampleIndex]:
        sampler = EpochSampler(LABELS_OF_30, SamplingConfig(), seed=seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(3) == epoch(3)
    assert [draw.row for draw in epoch(3)] != [draw.row for draw in epoch(4)]
    assert [draw.row for draw in epoch(3)] != [draw.row for draw in epoch(3, seed=2)]
    assert {draw.epoch for draw in epoch(3)} == {3}


def test_an_epoch_of_all_holds_every_slice_with_a_known_label_once() -> None:
    labels = LABELS_OF_30.copy()
    labels[[1, 2], :] = np.nan
    labels[5, 1:] = np.nan
    labels[6, 0] = np.nan
    sampler = EpochSampler(labels, SamplingConfig(kind="all"), seed=1)
    rows = [draw.row for draw in sampler]
    assert sorted(rows) == [row for row in range(30) if row not in (1, 2)]
    assert rows != sorted(rows)
    assert len(sampler) == 28


def test_a_balanced_epoch_draws_no_slice_without_a_known_label() -> None:
    labels = np.full((30, 6), np.nan, dtype=np.float32)
    labels[0, 5] = 1  # a subdural is positive, whatever stands under any
    labels[1, 1] = 0
    sampler = EpochSampler(labels, SamplingConfig(negatives=5), seed=1)
    assert sorted(draw.row for draw in sampler) == [0, 1]


@pytest.mark.parametrize("kind", ["all", "balanced"])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_processes_share_an_epoch_batch_by_batch(world: int, kind: str) -> None:
    """A step of all processes together sees what a step of one process with the whole batch sees."""
    sampling = SamplingConfig(kind=kind, negatives=2.5)  # type: ignore[arg-type]
    alone = list(EpochSampler(LABELS_OF_30, sampling, seed=1))
    shares = [EpochSampler(LABELS_OF_30, sampling, seed=1, rank=rank, world=world) for rank in range(world)]
    drawn = [list(share) for share in shares]
    assert {len(share) for share in shares} == {len(draws) for draws in drawn} == {len(alone) // world}
    for step in range(len(alone) // (2 * world)):
        together = {draw for draws in drawn for draw in draws[2 * step : 2 * step + 2]}
        assert together == set(alone[2 * world * step : 2 * world * (step + 1)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "some"}, "kind must be one of balanced, all, got some"),
        ({"negatives": -1.0}, "negatives must be at least 0"),
        ({"pasted": 0.7, "made": 0.4}, "shares of at most 1 together, got 0.7 and 0.4"),
        ({"pasted": -0.1}, "shares of at most 1"),
    ],
)
def test_a_sampling_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**changes)  # type: ignore[arg-type]


def test_plain_slices_read_each_series_once(phantom_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Cache.read_series
    monkeypatch.setattr(Cache, "read_series", lambda self, series: read.append(series) or original(self, series))
    slices = PlainSlices(phantom_cache, [f"{p}_{i}" for i in (2, 0, 1) for p in ("p5", "p0")], SMALL)
    assert len(slices) == 6
    for place in range(6):
        slices[place]
    assert read == ["p0", "p5"]


def test_part_of_the_normals_with_a_lesion_is_the_sum_of_both_kinds() -> None:
    assert SamplingConfig(pasted=0.2, made=0.3).with_lesion == pytest.approx(0.5)


def test_a_network_with_neighbours_trains_from_memory_and_from_files_alike(
    phantom_cache: Cache, tiny_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    """Lesions in the neighbours, augmentation, nine channels: the whole road, equal but for rounding."""
    cache = Cache(tmp_path, phantom_cache.manifest, phantom_cache.dataset)
    (tmp_path / "series").symlink_to(phantom_cache.folder / "series")
    for crops in ("memory", "disk"):
        experiment = tiny_experiment(preprocessing={"neighbours": 1}, run={"folds": 0, "epochs": 1, "crops": crops})
        train(experiment, cache, tmp_path / crops, threads=1)
        assert (tmp_path / "crops").is_dir() == (crops == "disk")
    one, other = (load_file(tmp_path / crops / "final" / "weights.safetensors") for crops in ("memory", "disk"))
    assert any(tensor.ndim == 4 and tensor.shape[1] == 9 for tensor in one.values())
    assert all(torch.allclose(one[name], other[name], 5e-7, 1e-7) for name in one)
