"""Measures what `preprocessing.outside = "air"` changes in a prepared dataset, and draws it.

    python experiments/outside_head.py cache/ct-ich [--sheets FOLDER] [--patients ID ...] [--every 4]

For every slice: the share of its pixels denser than -500 HU that become air; whether a pixel inside the skull changes;
whether the mirrored slice gives the mirrored result; whether a second pass changes anything; and the CPU time. Of every
``--every``-th slice of ``--patients``, a sheet shows what is kept (gray) and what becomes air (red), -250 to 200 HU.
The inside of the skull is the region that `training.synthetic_lesions` finds on crops of 256 pixels, here at the
resolution of the slice.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from hemoscope.data.cache import Cache, open_cache
from hemoscope.inference.head_mask import kept_pixels
from hemoscope.inference.preprocess import AIR, square_pixels
from hemoscope.training.synthetic_lesions import inside_skull
from hemoscope.volume import HounsfieldVolume

Mask = NDArray[np.bool_]
_SLAB_MM = 5.0
_DENSE_HU = -500
_TILE, _COLUMNS = 200, 12


@dataclass
class Measured:
    """What was found, by slice."""

    shares: list[float] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    unlike_mirror: list[str] = field(default_factory=list)
    unlike_again: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def masks(volume: HounsfieldVolume, seconds: list[float]) -> list[Mask]:
    """Return what is kept of each slice."""
    found = []
    for index in range(len(volume)):
        start = time.process_time()
        kept = kept_pixels(volume, index, _SLAB_MM, partial(square_pixels, volume=volume))
        seconds.append(time.process_time() - start)
        found.append(np.ones(volume.hounsfield.shape[1:], dtype=bool) if kept is None else kept)
    return found


def measure(volume: HounsfieldVolume, name: str, found: Measured) -> None:
    """Measure the slices of one series, whose pixels are square."""
    kept = np.stack(masks(volume, found.seconds))
    aired = np.where(kept, volume.hounsfield, np.int16(AIR))
    mirrored = masks(replace(volume, hounsfield=volume.hounsfield[:, :, ::-1]), [])
    again = masks(replace(volume, hounsfield=aired), [])
    for index, hounsfield in enumerate(volume.hounsfield):
        label = f"{name} slice {index}"
        changed = ~kept[index] & (hounsfield != AIR)
        found.shares.append(float((changed & (hounsfield > _DENSE_HU)).mean()))
        inside = inside_skull(np.asarray(hounsfield, dtype=np.float32))
        if inside is not None and (changed & inside.mask).any():
            found.inside.append(label)
        if not np.array_equal(mirrored[index][:, ::-1], kept[index]):
            found.unlike_mirror.append(label)
        if (~again[index] & (aired[index] != AIR)).any():
            found.unlike_again.append(label)


def sheet(cache: Cache, patients: Sequence[str], every: int, path: Path) -> None:
    """Write a contact sheet of slices of some patients."""
    tiles = []
    for patient in patients:
        series = str(cache.manifest.loc[cache.manifest["patient_id"] == patient, "series_id"].iloc[0])
        volume = cache.read_series(series).volume
        for index, kept in list(enumerate(masks(volume, [])))[::every]:
            gray = np.clip((volume.hounsfield[index].astype(np.float32) + 250) / 450, 0, 1)
            red = np.where(kept, gray, np.maximum(gray, np.float32(0.35)))
            rest = np.where(kept, gray, gray * np.float32(0.4))
            picture = Image.fromarray((np.stack([red, rest, rest], axis=-1) * 255).astype(np.uint8))
            tiles.append(np.asarray(picture.resize((_TILE, _TILE))))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _COLUMNS)
    lines = [np.concatenate(tiles[i : i + _COLUMNS], axis=1) for i in range(0, len(tiles), _COLUMNS)]
    Image.fromarray(np.concatenate(lines)).save(path)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--sheets", type=Path, help="folder for the sheet")
    parser.add_argument("--patients", nargs="*", default=[])
    parser.add_argument("--every", type=int, default=4)
    arguments = parser.parse_args()
    cache, found = open_cache(arguments.cache), Measured()
    if arguments.sheets is not None and arguments.patients:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        sheet(cache, arguments.patients, arguments.every, arguments.sheets / "outside.png")
    for series_id, rows in track(cache.manifest.groupby("series_id"), description="slices"):
        measure(cache.read_series(str(series_id)).volume, str(rows["patient_id"].iloc[0]), found)
    shares = np.array(found.shares)
    console = Console(width=140)
    console.print(
        f"{len(shares)} slices, dense pixels that become air: mean {shares.mean():.4f}, of most {shares.max():.3f}"
    )
    console.print(f"slices with 1 in 1,000 of such pixels or more: {(shares >= 0.001).sum()}")
    for name in ("inside", "unlike_mirror", "unlike_again"):
        which = getattr(found, name)
        console.print(f"{name}: {len(which)} slices {', '.join(which[:8])}")
    console.print(f"{1e3 * float(np.mean(found.seconds)):.2f} ms a slice (CPU time)")


if __name__ == "__main__":
    main()
