"""Measures how many slices per second one core prepares, crops, augments and trains on, and bytes on disk.

The basis of docs/explanation/a-million-slices.md. Processor time of one thread, so that a shared machine gives the same
result; uncompressed phantoms of 512 x 512 pixels, like RSNA 2019.

    .venv/bin/python benchmarks/training_rates.py
    .venv/bin/python benchmarks/training_rates.py --slices 360 --steps 6
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hemoscope.data.cache import open_cache
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.labels import LABELS
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import load_crops
from hemoscope.training.dataset import SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.lightning_module import OptimizerConfig, TrainingModule
from hemoscope.training.losses import LossConfig
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig

_SLICES_A_SERIES = 36
_SIZE = 224
_BATCH = 16
Row = tuple[str, str, str]


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


def prepared(folder: Path, count: int) -> Row:
    """Run the command as a user does, including start-up."""
    command = [str(Path(sys.executable).with_name("hemoscope")), "prepare", "rsna", "--workers", "1"]
    paths = ["--images", folder / "images", "--labels", folder / "labels.csv", "--output", folder / "cache"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, *map(str, paths)], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own command
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = sum(path.stat().st_size for path in (folder / "cache" / "series").iterdir())
    return "prepare rsna", f"{count / seconds:.0f}", f"{size / count / 1000:.0f} kB"


def cropped_and_drawn(folder: Path) -> list[Row]:
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


def trained(name: str, config: NetworkConfig, steps: int) -> Row:
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
