"""The sequence network trains on cached embeddings, is deterministic, resumes, and serves as it scored."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hemoscope.data.cache import Cache, open_cache, write_manifest, write_series
from hemoscope.errors import ConfigError, TrainingError
from hemoscope.inference.bundle import write_bundle
from hemoscope.inference.card import SequenceRule
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.preprocess import model_input
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training import sequence as sequence_module
from hemoscope.training.data_splits import DataSplit
from hemoscope.training.embeddings import EmbeddingStore, spatially_augmented
from hemoscope.training.experiment import Experiment
from hemoscope.training.models.export import onnx_graph
from hemoscope.training.models.network import HemorrhageNetwork, MirroredNetwork
from hemoscope.training.models.sequence import SequenceNetwork, sequence_graph
from hemoscope.training.sequence import fit_sequence, score_sequence
from hemoscope.training.series_batches import SeriesDataset, SeriesIndex, highest_known, padded, refined, series_sample
from hemoscope.training.train import train

Build = Callable[..., Experiment]
COLUMNS = [f"logit_{label}" for label in LABELS]
SEQUENCE = {"hidden": 16, "epochs": 3, "batch_series": 2, "views": 1, "dropout": 0.1}


@pytest.fixture
def experiment(tiny_experiment: Build) -> Experiment:
    return tiny_experiment(sequence=SEQUENCE)


@pytest.fixture(scope="module")
def network() -> HemorrhageNetwork:
    """A slice network that nobody trained; its scores spread."""
    from hemoscope.training.models.network import NetworkConfig

    torch.manual_seed(3)
    config = NetworkConfig(backbone="test_efficientnet", width=8, pooled=4)
    return HemorrhageNetwork(config, channels=3, size=32).eval()


@pytest.fixture(scope="module")
def series_cache(phantom_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Four patients: three series of 5, 4 and 6 thick slices, one of 17 thin ones; two bleed."""
    folder = tmp_path_factory.mktemp("series")
    rows: list[dict[str, Any]] = []
    for number, (slices, spacing) in enumerate([(5, 5.0), (4, 5.0), (17, 1.25), (6, None)]):
        patient = f"s{number}"
        phantom = make_phantom(
            seed=number, shape=(slices, 64, 64), bleeds=frozenset(SUBTYPES) if number % 2 else frozenset()
        )
        write_series(folder, patient, hounsfield=np.array(phantom.hounsfield), spacing_mm=(spacing, 1.0, 1.0))
        for index, labels in enumerate(phantom.slice_labels):
            ids = {"image_id": f"{patient}_{index}", "patient_id": patient, "study_id": patient, "series_id": patient}
            known = {label.value: int(shown) for label, shown in zip(LABELS, labels, strict=True)}
            rows.append({**ids, "index": index, "masked": False, **known})
    write_manifest(folder, rows, phantom_cache.dataset)
    return open_cache(folder)


def whole_split(cache: Cache, name: str = "final") -> DataSplit:
    return DataSplit(name=name, train=tuple(cache.manifest["image_id"]))


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, rtol=5e-7, atol=1e-7) for a, b in pairs)


@pytest.fixture
def store(network: HemorrhageNetwork, experiment: Experiment, series_cache: Cache, tmp_path: Path) -> EmbeddingStore:
    made = EmbeddingStore(network, experiment, series_cache, tmp_path, views=1)
    made.fill(["s0", "s2", "s3"], lambda _done, _total: None)
    return made


def test_the_first_view_is_what_serving_computes(
    store: EmbeddingStore, network: HemorrhageNetwork, experiment: Experiment, series_cache: Cache
) -> None:
    volume = series_cache.read_series("s2").volume
    images = np.stack([model_input(volume, i, experiment.reading_preprocessing) for i in range(len(volume))])
    with torch.inference_mode():
        expected = MirroredNetwork(network).eval()(torch.from_numpy(images))
    found = store.read("s2")
    assert found.embeddings.shape == (4, 17, network.embedding_size)  # served, two halves, one augmented
    assert torch.allclose(found.embeddings[0], expected.embedding, atol=1e-5)
    assert torch.allclose(found.logits[0], expected.logits, atol=1e-5)
    assert torch.allclose(found.logits[1:3].mean(0), expected.logits, atol=1e-5)
    assert not torch.allclose(found.logits[3], expected.logits, atol=1e-3)
    assert found.positions_mm == volume.positions_mm
    assert store.read("s3").positions_mm == (None,) * 6


def test_without_the_mirror_the_first_view_is_the_slice_alone(
    store: EmbeddingStore, network: HemorrhageNetwork, tiny_experiment: Build, series_cache: Cache, tmp_path: Path
) -> None:
    experiment = tiny_experiment(sequence=SEQUENCE, reading={"mirror": False})
    plain = EmbeddingStore(network, experiment, series_cache, tmp_path, views=1)
    assert plain.folder != store.folder
    plain.fill(["s2"], lambda _done, _total: None)
    found, mirrored = plain.read("s2"), store.read("s2")
    assert torch.equal(found.logits, mirrored.logits[1:])  # the slice, its mirror image, one augmented
    assert torch.equal(found.embeddings, mirrored.embeddings[1:])


def test_embeddings_are_computed_once_and_again_for_other_weights(
    store: EmbeddingStore, experiment: Experiment, series_cache: Cache, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    store.fill(["s0", "s1", "s2"], lambda *done: told.append(done))
    assert told == [(3, 3)]
    store.fill(["s0", "s1", "s2"], lambda *done: told.append(done))
    assert told == [(3, 3)]
    torch.manual_seed(99)
    other = HemorrhageNetwork(experiment.network, channels=3, size=32)
    assert EmbeddingStore(other, experiment, series_cache, tmp_path, views=1).folder != store.folder
    assert EmbeddingStore(store.network, experiment, series_cache, tmp_path, views=2).folder != store.folder
    assert EmbeddingStore(store.network, experiment, series_cache, tmp_path, views=1).folder == store.folder


def test_a_network_trained_in_half_precision_is_read_as_it_is_served(
    network: HemorrhageNetwork, experiment: Experiment, series_cache: Cache, tmp_path: Path
) -> None:
    half = copy.deepcopy(network).bfloat16()
    served = copy.deepcopy(half).float()
    stores = [EmbeddingStore(one, experiment, series_cache, tmp_path, views=0) for one in (half, served)]
    assert stores[0].folder == stores[1].folder
    stores[0].fill(["s0"], lambda _done, _total: None)
    assert stores[0].read("s0").logits.dtype == torch.float32


def test_embeddings_that_are_damaged_are_refused_without_a_path(store: EmbeddingStore, tmp_path: Path) -> None:
    (store.folder / "s0.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"embeddings/s0.safetensors cannot be read .*Delete it") as refused:
        store.read("s0")
    assert str(tmp_path) not in str(refused.value)


def test_slices_of_a_series_move_alike_and_air_comes_in() -> None:
    from hemoscope.training.augment import AugmentConfig

    images = torch.zeros(3, 1, 32, 32)
    images[:, :, 12:20, 10:18] = 1
    turned = spatially_augmented(images, AugmentConfig(), np.random.default_rng(5))
    assert torch.equal(turned[0], turned[1])
    assert torch.equal(turned[0], turned[2])
    assert not torch.equal(turned, images)
    assert turned.min() >= 0
    assert turned.max() <= 1
    still = AugmentConfig(flip=0, rotation=0, scale=0, shift=0)
    assert torch.allclose(spatially_augmented(images, still, np.random.default_rng(5)), images, atol=1e-5)


def test_thin_slices_share_places_and_are_corrected_alike(store: EmbeddingStore) -> None:
    series = store.read("s2")
    sample = series_sample(series, np.zeros((17, 6), np.float32))
    assert sample.places.tolist() == [i // 4 for i in range(17)]
    assert sample.length == 5
    assert torch.allclose(sample.before[0], series.logits[0][:4].mean(0), atol=1e-6)
    torch.manual_seed(1)
    config = dataclasses.replace(store.experiment.sequence, dropout=0.0)  # type: ignore[type-var]
    network = SequenceNetwork(config, embedding_size=series.embeddings.shape[2]).eval()
    torch.nn.init.normal_(network.correction.weight)
    corrections = (refined(network, padded([sample]))[0][0] - series.logits[0]).detach()
    assert torch.allclose(corrections[0], corrections[3], atol=1e-5)
    assert not torch.allclose(corrections[3], corrections[4], atol=1e-3)


def test_a_turned_series_holds_the_same_slices_from_head_to_feet(store: EmbeddingStore) -> None:
    series, labels = store.read("s2"), np.zeros((17, 6), np.float32)
    straight, turned = series_sample(series, labels), series_sample(series, labels, turned=True)
    assert torch.equal(turned.embeddings, straight.embeddings.flip(0))
    assert torch.allclose(turned.before[turned.places], straight.before[straight.places], atol=1e-5)
    assert torch.equal(turned.logits, straight.logits)


def test_a_padded_batch_scores_as_its_series_alone(store: EmbeddingStore) -> None:
    torch.manual_seed(1)
    samples = []
    for name, slices in (("s0", 5), ("s2", 17), ("s3", 6)):
        samples.append(series_sample(store.read(name), np.zeros((slices, 6), np.float32)))
    network = SequenceNetwork(store.experiment.sequence, embedding_size=samples[0].embeddings.shape[1]).eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(network.correction.weight)
    batch = padded(samples)
    assert batch.labels.isnan().sum() == (12 + 11) * 6  # what is padded is unknown
    slices, studies = refined(network, batch)
    for row, sample in enumerate(samples):
        alone = refined(network, padded([sample]))
        assert torch.allclose(slices[row, : len(sample.logits)], alone[0][0], atol=1e-5)
        assert torch.allclose(studies[row], alone[1][0], atol=1e-5)


def test_a_series_is_positive_where_a_known_slice_is_and_unknown_where_none_is_known() -> None:
    nan = float("nan")
    labels = torch.tensor([[[1.0, nan], [0.0, nan]], [[0.0, nan], [nan, 0.0]]])
    expected = torch.tensor([[1.0, nan], [0.0, 0.0]])
    assert torch.equal(highest_known(labels).nan_to_num(9), expected.nan_to_num(9))


def test_the_same_draw_gives_the_same_sample_and_only_given_images_have_labels(
    store: EmbeddingStore, series_cache: Cache
) -> None:
    table = series_cache.manifest[series_cache.manifest["image_id"].isin(["s0_1", "s0_3"])]
    data = SeriesDataset(store, table, store.experiment.sequence, seed=4)  # type: ignore[arg-type]
    assert len(data) == 1
    first, again = data[SeriesIndex(0, 2, 0)], data[SeriesIndex(0, 2, 0)]
    assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(first, again, strict=True))
    assert len(first.logits) == 5
    assert (~first.labels.isnan()).all(dim=1).tolist() == [False, True, False, True, False]
    seen = {tuple(data[SeriesIndex(0, epoch, 0)].embeddings.flatten()[:4].tolist()) for epoch in range(40)}
    assert len(seen) > 4  # views and directions


def test_training_again_gives_the_same_network_and_a_finished_one_is_loaded(
    network: HemorrhageNetwork, experiment: Experiment, series_cache: Cache, tmp_path: Path
) -> None:
    split, stages = whole_split(series_cache), set[str]()
    first = fit_sequence(
        network, experiment, series_cache, split, tmp_path / "a", lambda stage, _d, _t: stages.add(stage)
    )
    assert stages == {"final: embedding", "final: training the sequence"}
    assert same_weights(first, fit_sequence(network, experiment, series_cache, split, tmp_path / "b"))
    rows = [json.loads(line) for line in (tmp_path / "a/sequence/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert all(row["train/loss"] == pytest.approx(row["train/slices"] + row["train/studies"], rel=1e-5) for row in rows)
    weights = (tmp_path / "a/sequence.safetensors").read_bytes()
    assert same_weights(first, fit_sequence(network, experiment, series_cache, split, tmp_path / "a"))
    assert (tmp_path / "a/sequence.safetensors").read_bytes() == weights
    assert not any(path.suffix in {".pt", ".pth", ".pkl", ".ckpt"} and path.is_file() for path in tmp_path.rglob("*"))


def test_a_sequence_network_is_added_to_finished_folds_whose_weights_stay(
    tiny_experiment: Build, phantom_cache: Cache, tmp_path: Path
) -> None:
    """Copy the weights and the record of a fold, and resume with an experiment that has a sequence."""
    alone, both = tmp_path / "alone" / "fold-0", tmp_path / "both" / "fold-0"
    train(tiny_experiment(run={"epochs": 1}), phantom_cache, alone.parent, only=("fold-0",))
    both.mkdir(parents=True)
    for name in ("weights.safetensors", "part.json"):
        shutil.copyfile(alone / name, both / name)
    experiment = tiny_experiment(run={"epochs": 1}, sequence=SEQUENCE)
    train(experiment, phantom_cache, both.parent, only=("fold-0",), resume=True)
    assert (both / "weights.safetensors").read_bytes() == (alone / "weights.safetensors").read_bytes()
    first, second = (pd.read_csv(folder / "scores.csv") for folder in (alone, both))
    assert first["image_id"].tolist() == second["image_id"].tolist()
    assert abs(first[COLUMNS] - second[COLUMNS]).to_numpy().max() > 1e-3
    assert len(pd.read_csv(both / "studies.csv")) == first["patient_id"].nunique()


class KilledError(Exception):
    """Stands for kill -9."""


def test_a_training_that_was_killed_resumes_to_the_same_network(
    network: HemorrhageNetwork,
    experiment: Experiment,
    series_cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = whole_split(series_cache)
    whole = fit_sequence(network, experiment, series_cache, split, tmp_path / "whole")
    step = sequence_module.SequenceModule.training_step

    def killed(self: Any, batch: Any, index: int) -> torch.Tensor:
        if self.trainer.current_epoch == 2:
            raise KilledError
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(sequence_module.SequenceModule, "training_step", killed)
        with pytest.raises(KilledError):
            fit_sequence(network, experiment, series_cache, split, tmp_path / "killed")
    assert not (tmp_path / "killed/sequence.safetensors").exists()
    torch.rand(7)
    assert same_weights(fit_sequence(network, experiment, series_cache, split, tmp_path / "killed"), whole)


def test_an_experiment_without_a_sequence_is_refused(
    network: HemorrhageNetwork, tiny_experiment: Build, series_cache: Cache, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"tiny has no sequence network. Add the table \[sequence\]"):
        fit_sequence(network, tiny_experiment(), series_cache, whole_split(series_cache), tmp_path)


@pytest.mark.parametrize("study", ["sequence", "study_rule"])
def test_scores_are_what_the_bundle_serves(
    network: HemorrhageNetwork,
    tiny_experiment: Build,
    series_cache: Cache,
    tmp_path: Path,
    make_card: Callable[..., Any],
    study: str,
) -> None:
    experiment = tiny_experiment(sequence={**SEQUENCE, "study": study, "learning_rate": 0.02})
    sequence = fit_sequence(network, experiment, series_cache, whole_split(series_cache), tmp_path)
    images = [image for image in series_cache.manifest["image_id"] if image != "s1_2"]
    score_sequence(network, sequence, series_cache, images, experiment, tmp_path / "scores-test.csv")
    slices, studies = (pd.read_csv(tmp_path / f"{name}-test.csv") for name in ("scores", "studies"))
    assert slices["image_id"].tolist() == images
    assert studies["series_id"].tolist() == ["s0", "s1", "s2", "s3"]
    preprocessing = experiment.reading_preprocessing
    rule = SequenceRule(embedding_size=network.embedding_size, study_scores=study)  # type: ignore[arg-type]
    bundle = write_bundle(
        tmp_path / "bundle",
        make_card(preprocessing=preprocessing, sequence=rule),
        onnx_graph(network, channels=3, size=preprocessing.size, mirror=experiment.reading.mirror, embedding=True),
        sequence=sequence_graph(sequence),
    )
    predictor = Predictor(bundle, threads=1)
    for row, name in enumerate(["s0", "s1", "s2", "s3"]):
        served, _ = predictor.probabilities(series_cache.read_series(name).volume)
        chosen = slices[slices["patient_id"] == name]
        assert np.abs(served.slice_logits[chosen["index"]] - chosen[COLUMNS].to_numpy()).max() < 1e-4
        assert np.abs(served.study_logits - studies.loc[row, COLUMNS].to_numpy(dtype=float)).max() < 1e-4
        known = series_cache.manifest.query(f"series_id == '{name}' and image_id != 's1_2'")
        assert studies.loc[row, [str(label) for label in LABELS]].tolist() == [known[label].max() for label in LABELS]
    plain = MirroredNetwork(network).eval()
    volume = series_cache.read_series("s1").volume
    with torch.inference_mode():
        before = plain(torch.from_numpy(np.stack([model_input(volume, i, preprocessing) for i in range(4)]))).logits
    now = slices[slices["patient_id"] == "s1"]
    assert np.abs(before.numpy()[now["index"]] - now[COLUMNS].to_numpy()).max() > 0.01  # the sequence did something
