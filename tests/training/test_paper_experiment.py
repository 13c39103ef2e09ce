"""The paper's experiments, term by term against what Lewicki et al. 2020 state. References are written out here."""

import dataclasses
from pathlib import Path

import lightning
import numpy as np
import pytest
import timm
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import stats
from scipy.special import expit
from sklearn.model_selection import train_test_split
from torch import Tensor

from hemoscope.data.cache import Cache
from hemoscope.data.split import LEAK_WARNING
from hemoscope.inference.preprocess import model_input
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import load_crops
from hemoscope.training.data_splits import make_data_splits, split_images
from hemoscope.training.dataset import EpochSampler, SampleIndex, SliceDataset
from hemoscope.training.experiment import Experiment, read_experiment
from hemoscope.training.lightning_module import TrainingModule
from hemoscope.training.losses import loss_parts
from hemoscope.training.models.network import HemorrhageNetwork, Output, reading_network
from hemoscope.training.train import train
from hemoscope.volume import HounsfieldVolume

# Section IV-A: center and width in HU of the brain, the subdural and the bone window.
WINDOWS = ((40, 80), (80, 200), (600, 2800))
# Section IV-C: weights of any, epidural, intraparenchymal, intraventricular, subarachnoid and subdural.
WEIGHTS = (1.0, 2.0, 1.0, 1.0, 1.0, 1.0)
C = 6  # classes in equation 1
# "To the letter": these differ from paper.toml in one thing each, and in the split.
FAMILY = ("paper", "paper-frozen", "resnet101", "resnet152", "doubly-weighted", "focal")


@pytest.fixture(scope="module")
def paper() -> Experiment:
    return read_experiment(Path("paper"))


def built(experiment: Experiment) -> HemorrhageNetwork:
    learned = experiment.preprocessing
    torch.manual_seed(experiment.run.seed)
    return HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)


@pytest.fixture(scope="module")
def network(paper: Experiment) -> HemorrhageNetwork:
    return built(paper)


def volume(hounsfield: int, *, spacing_mm: float = 1.0) -> HounsfieldVolume:
    """Three slices of 512 x 512, all of one value, as thin as a scanner makes them."""
    return HounsfieldVolume(
        hounsfield=np.full((3, 512, 512), hounsfield, dtype=np.int16),
        spacing_mm=(spacing_mm, 0.5, 0.5),
        positions_mm=(0.0, spacing_mm, 2 * spacing_mm),
        orientation=None,
    )


def scaled(hounsfield: float) -> list[float]:
    """Section IV-A by hand: a window's lower end is 0, its upper end is 1."""
    return [min(max((hounsfield - (center - width / 2)) / width, 0.0), 1.0) for center, width in WINDOWS]


def test_the_windows_are_the_papers_and_each_is_scaled_to_one(paper: Experiment) -> None:
    assert tuple((window.center, window.width) for window in paper.preprocessing.windows) == WINDOWS
    assert scaled(40) == pytest.approx([0.5, 0.3, 0.3])  # the numbers below, once by hand
    assert scaled(80) == pytest.approx([1.0, 0.5, 880 / 2800])


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("hounsfield", [-1000, -800, 0, 40, 80, 180, 1000, 2000, 3000])
def test_the_network_sees_the_windowed_value_between_0_and_1(name: str, hounsfield: int) -> None:
    experiment = read_experiment(Path(name), ["network.backbone=resnet18", "network.hidden=4"])
    network = built(experiment).eval()
    image = torch.from_numpy(model_input(volume(hounsfield), 1, experiment.preprocessing))
    assert image.shape == (3, 224, 224)
    seen: list[Tensor] = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        network(image[None])
    assert seen[0].shape == (1, 3, 224, 224)
    assert seen[0].amin((0, 2, 3)).tolist() == pytest.approx(scaled(hounsfield), abs=1e-6)
    assert seen[0].amax((0, 2, 3)).tolist() == pytest.approx(scaled(hounsfield), abs=1e-6)
    assert 0 <= float(seen[0].min()) <= float(seen[0].max()) <= 1


def test_a_slice_stands_for_itself_however_thin(paper: Experiment) -> None:
    """No crop, no neighbors, no average over thin slices: the paper reads single files."""
    assert (paper.preprocessing.crop, paper.preprocessing.neighbours) == ("none", 0)
    hounsfield = np.stack([np.full((512, 512), value, dtype=np.int16) for value in (0, 40, 80)])
    thin = dataclasses.replace(volume(0, spacing_mm=0.5), hounsfield=hounsfield)
    assert model_input(thin, 1, paper.preprocessing).mean((1, 2)) == pytest.approx(scaled(40), abs=1e-5)


def test_the_base_is_resnet_50_with_imagenet_weights(paper: Experiment, network: HemorrhageNetwork) -> None:
    reference = torchvision.models.resnet50()
    shapes = {name: tensor.shape for name, tensor in reference.state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in network.backbone.state_dict().items()} == shapes
    assert paper.run.init == "pretrained"
    published = timm.models.get_pretrained_cfg(paper.network.backbone)
    assert published is not None
    assert published.url == torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url
    assert published.num_classes == 1000


def test_the_head_has_256_units_with_relu_over_all_features_and_six_sigmoids(
    paper: Experiment, network: HemorrhageNetwork
) -> None:
    features = network.eval().backbone(torch.rand(1, 3, 224, 224))[0]
    assert features.shape == (1, 2048, 7, 7)
    first, second = network.head.hidden, network.head.classifier
    assert first.weight.shape == (256, 7 * 7 * 2048)
    assert second.weight.shape == (6, 256)
    with torch.inference_mode():
        hidden = np.maximum(features.flatten(1).numpy() @ first.weight.numpy().T + first.bias.numpy(), 0)
        expected = expit(hidden @ second.weight.numpy().T + second.bias.numpy())
        found = torch.sigmoid(network.head([features]).logits).numpy()
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_weights_of_the_head_are_drawn_from_a_normal_distribution(network: HemorrhageNetwork) -> None:
    drawn = network.head.hidden.weight.detach().flatten()[:: 25_690_112 // 20_000].numpy()
    assert stats.kstest(drawn, "norm", args=(0, 0.05)).pvalue > 0.01  # 0.05: Keras' own, the paper gives no width
    assert stats.kstest(drawn, "uniform", args=(-0.0866, 2 * 0.0866)).pvalue < 1e-6  # what it must not be


def equation_1(probability: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """The mean over a batch of minus the sum over classes of w (y log p + (1 - y) log(1 - p)), divided by C."""
    losses = []
    for p, y in zip(probability, truth, strict=True):
        terms = [w * (t * np.log(q) + (1 - t) * np.log(1 - q)) for w, t, q in zip(WEIGHTS, y, p, strict=True)]
        losses.append(-sum(terms) / C)
    return float(np.mean(losses))


@pytest.mark.parametrize("name", ["paper", "paper-frozen", "resnet101", "resnet152"])
def test_the_loss_is_equation_1(name: str) -> None:
    experiment = read_experiment(Path(name))
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(0, 3, (16, 6)), (rng.random((16, 6)) > 0.7).astype(float)
    images = torch.zeros(16, 224, 224)
    output = Output(torch.tensor(logits), torch.zeros(16, 6, 7, 7), torch.zeros(16, 2048))
    parts = loss_parts(output, torch.tensor(truth), images, torch.ones(16), experiment.loss)
    assert float(torch.stack(list(parts.values())).sum()) == pytest.approx(equation_1(expit(logits), truth), rel=1e-5)
    assert dict(zip(LABELS, experiment.loss.labels, strict=True))[Hemorrhage.EPIDURAL] == 2.0


def test_a_doubly_weighted_and_a_focal_loss_divide_as_equation_1_does() -> None:
    """With weights of 1 for both sides, and with a gamma of 0, they are equation 1."""
    rng = np.random.default_rng(2)
    logits, truth = rng.normal(0, 3, (16, 6)), (rng.random((16, 6)) > 0.7).astype(float)
    output = Output(torch.tensor(logits), torch.zeros(16, 6, 7, 7), torch.zeros(16, 2048))
    plain = ("loss.positive=[1, 1, 1, 1, 1, 1]", "loss.negative=[1, 1, 1, 1, 1, 1]", "loss.gamma=0.0")
    for name in ("doubly-weighted", "focal"):
        loss = read_experiment(Path(name), plain).loss
        parts = loss_parts(output, torch.tensor(truth), torch.zeros(16, 224, 224), torch.ones(16), loss)
        assert float(parts["scores"]) == pytest.approx(equation_1(expit(logits), truth), rel=1e-5)
        assert parts.keys() == {"scores"}


def test_training_is_adam_with_1e_5_for_ten_epochs_of_sixteen_slices_a_step(
    paper: Experiment, network: HemorrhageNetwork
) -> None:
    run = paper.run
    assert (run.epochs, run.batch_size, run.accumulate, run.devices, run.nodes) == (10, 16, 1, 1, 1)
    assert (run.max_steps, run.early_stop) == (0, 0)
    module = TrainingModule(network, paper.loss, paper.optimizer)
    optimizer = module.configure_optimizers()  # not a dictionary: no schedule
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-5, 0.0, (0.9, 0.999))
    assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in network.parameters()) == 49_199_942
    assert module.trained is module.network  # no average of weights


def test_a_random_tenth_of_the_slices_is_the_test_set_and_the_rest_is_trained_on(
    paper: Experiment, phantom_cache: Cache
) -> None:
    images = sorted(phantom_cache.manifest["image_id"])
    train, test = train_test_split(images, test_size=0.1, random_state=257)  # the seed of the paper's code
    (split,) = make_data_splits(paper, phantom_cache)
    assert (set(split.train), set(split.test), split.validation) == (set(train), set(test), ())
    assert split_images(paper, phantom_cache).warning == LEAK_WARNING


def test_an_epoch_is_every_training_slice_once_as_it_is_scored(paper: Experiment, phantom_cache: Cache) -> None:
    """No augmentation, no pasted or synthetic lesion: the paper names none."""
    assert paper.augment == AugmentConfig(**dict.fromkeys(dataclasses.asdict(AugmentConfig()), 0.0))
    images = tuple(phantom_cache.manifest["image_id"])
    crops = load_crops(phantom_cache, images, paper.preprocessing)
    data = SliceDataset(crops, paper.preprocessing, paper.augment, paper.sampling, seed=paper.run.seed)
    drawn = list(EpochSampler(crops.labels, paper.sampling, seed=paper.run.seed))
    assert sorted(index.row for index in drawn) == list(range(len(images)))
    for row in (0, 1, len(images) - 1):
        series, index = phantom_cache.manifest.iloc[row][["series_id", "index"]]
        expected = model_input(phantom_cache.read_series(series).volume, int(index), paper.preprocessing)
        assert np.array_equal(data[SampleIndex(row, 3, 7)].image.numpy(), expected)


@pytest.mark.parametrize("name", FAMILY)
def test_a_slice_is_scored_once_at_the_size_of_training(name: str) -> None:
    experiment = read_experiment(Path(name))
    network = torch.nn.Identity()
    assert reading_network(network, mirror=experiment.reading.mirror) is network
    assert experiment.reading_preprocessing == experiment.preprocessing
    assert experiment.sequence is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("resnet101", ["run.split=patient", "network.backbone=resnet101.tv_in1k"]),
        ("resnet152", ["run.split=patient", "network.backbone=resnet152.tv_in1k"]),
        ("doubly-weighted", ["run.split=patient", "loss.positive=prevalence", "loss.negative=prevalence"]),
        ("focal", ["run.split=patient", "loss.kind=focal"]),
        ("paper-frozen", ["network.frozen_base=true"]),
    ],
)
def test_the_papers_other_experiments_are_its_recipe_with_one_thing_changed(name: str, changes: list[str]) -> None:
    found = read_experiment(Path(name))
    assert found == read_experiment(Path("paper"), [f"name={name}", f"description={found.description}", *changes])


def test_with_a_frozen_base_only_the_head_is_trained() -> None:
    experiment = read_experiment(Path("paper-frozen"))
    network = built(experiment)
    (group,) = TrainingModule(network, experiment.loss, experiment.optimizer).configure_optimizers().param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in network.head.parameters()}
    assert sum(p.numel() for p in group["params"]) == 7 * 7 * 2048 * 256 + 256 + 256 * 6 + 6


def test_training_with_a_frozen_base_changes_the_head_alone(phantom_cache: Cache, tmp_path: Path) -> None:
    small = ("network.backbone=test_resnet", "network.hidden=8", "preprocessing.size=32", "run.init=none")
    experiment = read_experiment(Path("paper-frozen"), [*small, "run.epochs=1", "run.batch_size=4"])
    (record,) = train(experiment, phantom_cache, tmp_path / "run", threads=1)
    lightning.seed_everything(experiment.run.seed, verbose=False)
    learned = experiment.preprocessing
    before = HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size).state_dict()
    after = load_file(tmp_path / "run" / "split" / "weights.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("head.")}
    assert record.trained_parameters == sum(after[name].numel() for name in changed) < record.parameters
    assert (tmp_path / "run" / "split" / "scores-test.csv").is_file()
