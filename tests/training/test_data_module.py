"""Which process sees which samples, and from which batch on."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hemoscope.data.cache import Cache
from hemoscope.errors import TrainingError
from hemoscope.inference.preprocess import model_input
from hemoscope.training.data_module import EpochBatches, KnownLabelSampler, SplitDataModule
from hemoscope.training.data_splits import DataSplit
from hemoscope.training.dataset import EpochSampler, SamplingConfig
from hemoscope.training.experiment import Experiment

Build = Callable[..., Experiment]
LABELS = np.zeros((13, 6), dtype=np.float32)


def batches_of(sampler: EpochSampler) -> list[list[int]]:
    return [[draw.place for draw in batch] for batch in EpochBatches(sampler, 3)]


def data_module_of(
    experiment: Experiment,
    cache: Cache,
    *,
    rank: int = 0,
    world: int = 1,
    options: dict[str, Any] | None = None,
    **images: Any,
) -> SplitDataModule:
    data = SplitDataModule(experiment, cache, DataSplit(name="split", **images), lambda *_: None, **(options or {}))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world)  # type: ignore[assignment]
    data.setup("fit")
    return data


def test_a_skip_counts_for_its_own_epoch_alone_and_leaves_the_length() -> None:
    sampler = EpochSampler(LABELS, SamplingConfig(kind="all"), seed=1)
    batches = EpochBatches(sampler, 3)
    whole = {}
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        whole[epoch] = list(batches)
    batches.skip(1, 2)
    for epoch in (0, 1, 2):
        sampler.set_epoch(epoch)
        assert list(batches) == whole[epoch][2 if epoch == 1 else 0 :]
        assert len(batches) == 4


@pytest.mark.parametrize(("accumulate", "batches"), [(1, 4), (2, 4), (3, 3), (4, 4), (5, 0)])
def test_every_step_of_an_epoch_has_all_its_batches(accumulate: int, batches: int) -> None:
    sampler = EpochSampler(LABELS, SamplingConfig(kind="all"), seed=1)
    found = EpochBatches(sampler, 3, accumulate=accumulate)
    assert len(found) == len(list(found)) == batches


def test_data_with_less_than_one_step_of_several_batches_are_refused(
    phantom_cache: Cache, tiny_experiment: Build
) -> None:
    experiment = tiny_experiment(run={"batch_size": 2, "accumulate": 3}, sampling={"kind": "all"})
    data = data_module_of(experiment, phantom_cache, train=("p0_0", "p1_0", "p3_0", "p4_0"))
    with pytest.raises(TrainingError, match=r"4 slices, fewer than the 3 batches of 2 of a step.*or run\.accumulate"):
        data.train_dataloader()


def test_the_batches_of_two_processes_are_those_of_one_together() -> None:
    one = EpochSampler(LABELS, SamplingConfig(kind="all"), seed=1)
    two = [EpochSampler(LABELS, SamplingConfig(kind="all"), seed=1, rank=rank, world=2) for rank in (0, 1)]
    together = [sorted(a + b) for a, b in zip(*map(batches_of, two), strict=True)]
    assert together == [sorted(a + b) for a, b in zip(*[iter(batches_of(one))] * 2, strict=True)]


def test_validation_sees_every_slice_with_a_known_label_once_over_all_processes() -> None:
    labels = LABELS.copy()
    labels[4] = np.nan
    labels[5, :3] = np.nan
    seen = [[draw.row for draw in KnownLabelSampler(labels, rank=rank, world=2)] for rank in (0, 1)]
    assert sorted(seen[0] + seen[1]) == [row for row in range(13) if row != 4]
    assert [len(KnownLabelSampler(labels, rank=rank, world=2)) for rank in (0, 1)] == [6, 6]


def test_validation_is_on_slices_as_they_are_served(phantom_cache: Cache, tiny_experiment: Build) -> None:
    experiment = tiny_experiment(run={"batch_size": 2})
    data = data_module_of(
        experiment, phantom_cache, train=("p0_0", "p1_0", "p3_0", "p4_0"), validation=("p2_0", "p2_2")
    )
    (batch,) = list(data.val_dataloader())
    volume = phantom_cache.read_series("p2").volume
    expected = np.stack([model_input(volume, index, experiment.preprocessing) for index in (0, 2)])
    assert torch.equal(batch.image, torch.from_numpy(expected))


def test_fewer_slices_to_validate_than_processes_are_refused(phantom_cache: Cache, tiny_experiment: Build) -> None:
    images = {"train": ("p0_0", "p1_0", "p3_0", "p4_0"), "validation": ("p2_0",)}
    data = data_module_of(tiny_experiment(run={"batch_size": 2}), phantom_cache, rank=1, world=2, **images)
    with pytest.raises(TrainingError, match="split: validation has fewer slices than the 2 processes"):
        data.val_dataloader()


def test_a_part_without_validation_has_no_loader_for_it(phantom_cache: Cache, tiny_experiment: Build) -> None:
    data = data_module_of(tiny_experiment(run={"batch_size": 2}), phantom_cache, train=("p0_0", "p3_0"))
    assert data.val_dataloader() == []
    assert data.state_dict() == {}


def test_epochs_continue_from_a_first_one() -> None:
    whole, later = (EpochSampler(LABELS, SamplingConfig(kind="all"), seed=1, first_epoch=first) for first in (0, 5))
    assert next(iter(later)).epoch == 5
    whole.set_epoch(7)
    later.set_epoch(2)
    assert list(later) == list(whole)


@pytest.mark.parametrize(("learn", "sizes"), [(5, [4]), (4, [4]), (3, [3]), (2, [2])])
def test_an_epoch_of_less_than_a_batch_is_one_batch_where_that_is_wanted(
    phantom_cache: Cache, tiny_experiment: Build, learn: int, sizes: list[int]
) -> None:
    images = ("p0_0", "p0_1", "p1_0", "p1_1", "p3_0")[:learn]
    experiment = tiny_experiment(run={"batch_size": 4}, sampling={"kind": "all"})
    data = data_module_of(experiment, phantom_cache, options={"lower_batch": True}, train=images)
    assert [len(batch.image) for batch in data.train_dataloader()] == sizes


@pytest.mark.parametrize("learn", [("p0_0",), ("p3_0",)])
def test_an_epoch_of_one_slice_is_refused_even_there(
    phantom_cache: Cache, tiny_experiment: Build, learn: tuple[str, ...]
) -> None:
    experiment = tiny_experiment(sampling={"kind": "all"})
    data = data_module_of(experiment, phantom_cache, options={"lower_batch": True}, train=learn)
    with pytest.raises(TrainingError, match=r"1 slices, fewer than a batch of 2\. Give data with more positive slices"):
        data.train_dataloader()


def test_crops_can_lie_in_a_folder_of_choice(phantom_cache: Cache, tiny_experiment: Build, tmp_path: Path) -> None:
    data_module_of(tiny_experiment(), phantom_cache, options={"crops": tmp_path / "crops"}, train=("p0_0", "p3_0"))
    assert list((tmp_path / "crops").rglob("hounsfield.npy"))
