"""Measures what lesion augmentation adds to normal slices, and draws it.

    python experiments/augmentation.py cache/ct-ich [--experiment default] [--set sampling.tries=8 ...]
        [--draws 300] [--crops FOLDER] [--sheets FOLDER]

Draws normal slices (seed 0) and asks the training's own sampler for a lesion in each, by the experiment's shares.
Prints the share that got one, of all and of those with a closed skull around brain; how many of each type; by how many
HU a lesion raises its place, pasted and made; the outlines that are no donors; and the time of a sample. ``--sheets``
writes a contact sheet of each kind: before, after, and the mask, in the brain window.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from hemoscope.data.cache import open_cache
from hemoscope.inference.windows import BRAIN
from hemoscope.labels import SUBTYPES
from hemoscope.progress import no_progress
from hemoscope.training.crops import Crops, load_crops
from hemoscope.training.dataset import SampleIndex, SamplingConfig, SliceDataset
from hemoscope.training.experiment import read_experiment
from hemoscope.training.synthetic_lesions import inside_skull

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One normal slice after the sampler was asked for a lesion; ``lift_hu`` is None if it got none."""

    row: int
    room: bool
    lift_hu: float | None = None
    types: tuple[int, ...] = ()
    picture: NDArray[np.float32] | None = None


def asked(data: SliceDataset, sampling: SamplingConfig, rows: Sequence[int]) -> list[Drawn]:
    """Ask for a lesion in each row."""
    data.sampling = sampling
    found = []
    for place, row in enumerate(rows):
        stack, labels = data.crops.stack(row), data.crops.labels[row]
        middle = len(stack) // 2
        room = inside_skull(stack[middle]) is not None
        lesion = data.lesion(row, stack, labels.copy(), np.random.default_rng([0, place]))
        if lesion is None:
            found.append(Drawn(row=row, room=room))
            continue
        after, mask, gained = lesion
        rise = float((after - stack)[middle][mask].mean())
        shown = [BRAIN.apply(stack[middle]), BRAIN.apply(after[middle]), mask.astype(np.float32)]
        types = tuple(int(kind) for kind in np.flatnonzero(gained[1:] == 1))
        found.append(Drawn(row=row, room=room, lift_hu=rise, types=types, picture=np.concatenate(shown, axis=1)))
    return found


def milliseconds(data: SliceDataset, sampling: SamplingConfig, rows: Sequence[int]) -> float:
    """CPU time of one sample; the first pass over the rows is not counted, as in all epochs but one."""
    data.sampling = sampling
    for number in (0, 1):
        start = time.process_time()
        for place, row in enumerate(rows):
            data[SampleIndex(row, number, place)]
    return (time.process_time() - start) / len(rows) * 1e3


def summary(found: Sequence[Drawn]) -> list[str]:
    """One row of the table: shares, types and lifts."""
    lifts = np.array([one.lift_hu for one in found if one.lift_hu is not None])
    with_room = sum(one.room for one in found)
    types = np.bincount([kind for one in found for kind in one.types], minlength=len(SUBTYPES))
    if not len(lifts):
        return ["0", "0", "-", "-", "-", "-"]
    return [
        f"{len(lifts) / len(found):.2f}",
        f"{len(lifts) / max(with_room, 1):.2f}",
        " ".join(map(str, types)),
        " / ".join(f"{value:.0f}" for value in np.quantile(lifts, [0.1, 0.5, 0.9])),
        f"{(lifts < 8).mean():.2f}",
        f"{(lifts < 0).mean():.2f}",
    ]


def sheet(found: Sequence[Drawn], path: Path) -> None:
    """Write the first lesions of a list, three to a row."""
    pictures = [one.picture for one in found if one.picture is not None][:_SHOWN]
    if not pictures:
        return
    blank = np.zeros_like(pictures[0])
    pictures += [blank] * (-len(pictures) % 3)
    lines = [np.concatenate(pictures[i : i + 3], axis=1) for i in range(0, len(pictures), 3)]
    Image.fromarray((np.concatenate(lines) * 255).astype(np.uint8)).save(path)


def draw(crops: Crops, count: int) -> list[int]:
    """Draw normal slices."""
    normal = np.flatnonzero(crops.labels[:, 0] == 0)
    rng = np.random.default_rng(0)
    return [int(row) for row in rng.choice(normal, min(count, len(normal)), replace=False)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--experiment", type=Path, default=Path("default"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--crops", type=Path, help="folder for crops, used again; without it they stay in memory")
    parser.add_argument("--sheets", type=Path, help="write contact sheets here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    experiment = read_experiment(arguments.experiment, arguments.set)
    cache = open_cache(arguments.cache)
    crops = load_crops(
        cache,
        cache.manifest["image_id"].tolist(),
        experiment.preprocessing,
        folder=arguments.crops,
        progress=no_progress,
    )
    sampling = experiment.sampling
    data = SliceDataset(crops, experiment.preprocessing, experiment.augment, sampling, seed=1)
    rows = draw(crops, arguments.draws)
    table = Table("lesions", "of all", "with room", "types", "lift 10/50/90%", "below 8 HU", "below 0")
    kinds = {
        "as asked": sampling,
        "pasted alone": replace(sampling, pasted=1.0, made=0.0),
        "made alone": replace(sampling, pasted=0.0, made=1.0),
    }
    for name, kind in kinds.items():
        found = asked(data, kind, rows)
        table.add_row(name, *summary(found))
        if arguments.sheets is not None:
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            sheet(found, arguments.sheets / f"{name.replace(' ', '-')}.png")
    console = Console(width=140)
    console.print(table)
    console.print(f"{sum(inside_skull(crops.stack(r)[len(crops.stack(r)) // 2]) is not None for r in rows)} with room")
    plain = milliseconds(data, replace(sampling, pasted=0.0, made=0.0), rows)
    console.print(f"a sample: {milliseconds(data, sampling, rows):.1f} ms, without lesions {plain:.1f} ms (CPU time)")
    console.print(f"{len(data.donors)} donors, {len(data.excluded)} excluded:")
    for donor in data.excluded:
        console.print(f"  {donor.image_id} {'not measured' if donor.lift_hu is None else f'{donor.lift_hu:+.1f} HU'}")


if __name__ == "__main__":
    main()
