"""Measures how many slices per second one core prepares, crops, augments and trains on, and bytes on disk.

The basis of docs/explanation/a-million-slices.md. Processor time of one thread, so that a shared machine gives the same
result; uncompressed phantoms of 512 x 512 pixels, like RSNA 2019.

    .venv/bin/python benchmarks/training_rates.py
    .venv/bin/python benchmarks/training_rates.py --slices 360 --steps 6
"""

import argparse
import copy
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import process_time

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rows import Row, interleaved
from torch.utils.data import default_collate

from hemoscope.data.cache import open_cache
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.labels import LABELS
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import load_crops
from hemoscope.training.dataset import Sample, SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.experiment import Experiment, read_experiment
from hemoscope.training.lightning_module import OptimizerConfig, TrainingModule, adam
from hemoscope.training.losses import LossConfig, loss_parts
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

_SLICES_A_SERIES = 36
_SIZE = 224
_BATCH = 16
_EXPERIMENTS = Path(__file__).resolve().parents[1] / "src" / "hemoscope" / "experiments"
_STEP_BATCH = 4
TableRow = tuple[str, str, str]


def kaggle_folder(folder: Path, slices: int) -> None:
    """Write phantoms in Kaggle's layout: ID_x.dcm in one folder, six lines per image in one CSV file."""
    lines = ["ID,Label"]
    for series in track(range(slices // _SLICES_A_SERIES), "phantoms", transient=True):
        drafts = write_series(
            make_phantom(seed=series, shape=(_SLICES_A_SERIES, 512, 512)), folder / "draft", seed=series
        )
        for place, draft in enumerate(drafts):
            name = f"ID_{series:04d}{place:04d}"
            draft.rename(folder / "images" / f"{name}.dcm")
            lines += [f"{name}_{label.value},{int(series % 4 == 0)}" for label in LABELS]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def prepared(folder: Path, count: int) -> TableRow:
    """Run the command as a user does, including start-up."""
    command = [str(Path(sys.executable).with_name("hemoscope")), "prepare", "rsna", "--workers", "1"]
    paths = ["--images", folder / "images", "--labels", folder / "labels.csv", "--output", folder / "cache"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, *map(str, paths)], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own command
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(path.stat().st_size for path in (folder / "cache" / "series").iterdir())
    return "prepare rsna", f"{count / seconds:.0f}", f"{size / count / 1000:.0f} kB"


def cropped_and_drawn(folder: Path) -> list[TableRow]:
    """Write crops to disk, then read, augment and window them."""
    cache, preprocessing = open_cache(folder / "cache"), Preprocessing(size=_SIZE)
    images = cache.manifest["image_id"].tolist()
    start = process_time()
    crops = load_crops(cache, images, preprocessing, folder=folder / "crops")
    cropping = process_time() - start
    size = sum(path.stat().st_size for path in (folder / "crops").rglob("*") if path.is_file())
    sampling = SamplingConfig(kind="all", pasted=0.0, made=0.0)
    data = SliceDataset(crops, preprocessing, AugmentConfig(), sampling, seed=1)
    start = process_time()
    for place in range(len(images)):
        data[SampleIndex(place, 0, place)]
    drawing = process_time() - start
    rows = [("crops, written once", f"{len(images) / cropping:.0f}", f"{size / len(images) / 1000:.0f} kB")]
    return [*rows, ("samples, augmented", f"{len(images) / drawing:.0f}", "-")]


def trained(name: str, config: NetworkConfig, steps: int) -> TableRow:
    """Run forward, backward and optimiser step of one network on random input."""
    network = HemorrhageNetwork(config, channels=3, size=_SIZE)
    module = TrainingModule(network, LossConfig(map=0.0, dice=0.0), OptimizerConfig(ema=0.0))
    adam = torch.optim.Adam(network.parameters(), lr=1e-5)
    image, labels = torch.rand(_BATCH, 3, _SIZE, _SIZE), torch.from_numpy(np.eye(_BATCH, 6, dtype=np.float32))
    seconds = []
    for _ in track(range(steps + 1), name, transient=True):
        start = process_time()
        adam.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(module.network(image).logits, labels).backward()
        adam.step()
        seconds.append(process_time() - start)
    return f"training, {name}", f"{_BATCH * steps / sum(seconds[1:]):.2f}", "-"  # the first step allocates


def rows() -> Iterator[Row]:
    """Measure training steps and the input of the default recipe with one thread, for ``make bench``."""
    torch.set_num_threads(1)
    for name in ("default", "paper"):
        yield from _steps(name)
    yield _input()


def _steps(name: str) -> Iterator[Row]:
    """Measure one recipe's step beside plain PyTorch: the same network, loss and optimiser, memory as it comes."""
    experiment = read_experiment(_EXPERIMENTS / f"{name}.toml")
    size = experiment.preprocessing.size
    torch.manual_seed(0)
    network = HemorrhageNetwork(experiment.network, channels=3, size=size)
    sample = _random_batch(size)
    ours, bf16 = (_Steps(network, experiment, sample) for _ in range(2))
    plain = _plain_step(copy.deepcopy(network), sample, experiment)
    found = interleaved(ours.step, lambda: bf16.step(reduced=True), plain, times=6)
    for seconds, precision in zip(found, ("float32", "bf16-mixed"), strict=False):
        yield Row(
            what=f"training step, {name} recipe, {size} pixels, batch of {_STEP_BATCH}, {precision}",
            limit="the matrix products of forward and backward pass at the ceiling of PyTorch above, all cores",
            measured=seconds,
            beside="plain PyTorch, same network, float32",
            compared=found[2],
            unit="CPU s",
            bar=0.8,
            better="at most",
        )


class _Steps:
    """Training steps as Lightning's trainer takes them with a ``TrainingModule``, without its loop."""

    def __init__(self, network: HemorrhageNetwork, experiment: Experiment, sample: Sample) -> None:
        self.module = TrainingModule(copy.deepcopy(network), experiment.loss, experiment.optimizer)
        self.sample = sample._replace(image=sample.image.contiguous(memory_format=torch.channels_last))
        self.adam = adam(self.module.network, experiment.optimizer)

    def step(self, *, reduced: bool = False) -> float:
        """Take one step, in bf16 where autocast allows it if ``reduced``; return the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            loss = _loss(self.module.network, self.sample, self.module.loss)
        _descend(self.adam, loss)
        if self.module.average is not None:
            self.module.average.update_parameters(self.module.network)
        return float(loss.detach())


def _plain_step(network: HemorrhageNetwork, sample: Sample, experiment: Experiment) -> Callable[[], float]:
    config = experiment.optimizer
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[config.kind]
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = kind(weights, lr=config.learning_rate, weight_decay=config.weight_decay)

    def step() -> float:
        found = _loss(network, sample, experiment.loss)
        _descend(optimizer, found)
        return float(found.detach())

    return step


def _loss(network: HemorrhageNetwork, sample: Sample, loss: LossConfig) -> torch.Tensor:
    output = network(sample.image)
    parts = loss_parts(output, sample.labels, sample.mask, sample.typed, loss, mask_known=sample.mask_known)
    return torch.stack(list(parts.values())).sum()


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _random_batch(size: int) -> Sample:
    image = torch.rand(_STEP_BATCH, 3, size, size)
    labels = torch.from_numpy(np.eye(_STEP_BATCH, 6, dtype=np.float32))
    ones = torch.ones(_STEP_BATCH)
    return Sample(image, labels, torch.zeros(_STEP_BATCH, size, size), ones, ones)


def _input() -> Row:
    """Measure samples of the default recipe, lesions and augmentation included, beside the step they feed."""
    experiment = read_experiment(_EXPERIMENTS / "default.toml")
    size = experiment.preprocessing.size
    steps = _Steps(HemorrhageNetwork(experiment.network, channels=3, size=size), experiment, _random_batch(size))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        kaggle_folder(folder, 4 * _SLICES_A_SERIES)
        prepared(folder, 4 * _SLICES_A_SERIES)
        cache = open_cache(folder / "cache")
        crops = load_crops(cache, cache.manifest["image_id"].tolist(), experiment.preprocessing)
    data = SliceDataset(crops, experiment.preprocessing, experiment.augment, experiment.sampling, seed=1)
    for row in range(len(crops.labels)):  # what a first epoch finds out once: the inside of each skull
        data._inside(row, crops.stack(row))  # a sample does it for some slices
    places = count()

    def fed() -> None:
        rows = [next(places) for _ in range(_STEP_BATCH)]
        default_collate([data[SampleIndex(row % len(crops.labels), 0, row)] for row in rows])
        steps.step()

    with_input, alone = interleaved(fed, steps.step, times=8)
    return Row(
        what=f"training input of the default recipe, batch of {_STEP_BATCH}: sample, augment, window, step",
        limit=f"{_STEP_BATCH} x {size} x {size} pixels to move, resample, blur and window; no limit below a percent",
        measured=with_input,
        beside="the same step on random data",
        compared=alone,
        unit="CPU s",
        bar=1.05,
        better="at most",
    )


def main() -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=720, help="phantom slices, in series of 36")
    parser.add_argument("--steps", type=int, default=4, help="training steps of 16 slices")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    count = chosen.slices // _SLICES_A_SERIES * _SLICES_A_SERIES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        kaggle_folder(folder, chosen.slices)
        rows = [prepared(folder, count), *cropped_and_drawn(folder)]
    rows.append(
        trained("ResNet-50, flatten (the paper)", NetworkConfig(backbone="resnet50", head="flatten"), chosen.steps)
    )
    rows.append(trained("EfficientNet-Lite0, maps", NetworkConfig(), chosen.steps))
    table = Table(
        "step", "slices per processor second", "bytes per slice", title=f"{count} slices, one thread, {_SIZE} pixels"
    )
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
