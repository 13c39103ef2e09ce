"""Head-cropped Hounsfield units of many slices: what samples are made from, in memory or mapped from a file.

``model_input`` crops, resizes and only then looks through the windows. Crops are that array before the windows, so
augmentation can act on Hounsfield units, and training without augmentation shows the network exactly what serving
shows it. With neighbours, a crop is a stack: every neighbour is cut with the box of the slice in the middle.

In a folder, crops of one kind lie in a folder of their own, named by a hash of what they were made from (the slices,
the dataset, and the preprocessing but for its windows, which come later): ``hounsfield.npy`` and ``outlines.npy``,
plain NumPy files that are mapped into memory, so that 700,000 slices need no more of it than a few. While they are
written the folder's name ends in ``.part`` and ``written.txt`` lists the series that are done; after a kill, writing
goes on there. A lock keeps processes apart that start at once: one writes, the others wait and then read. Series that
changed under their old ids are not noticed: delete the crops when the data was prepared anew.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.errors import DataError
from hemoscope.inference.card import to_plain
from hemoscope.inference.preprocess import Preprocessing, resized, slice_box, stacked
from hemoscope.labels import LABELS
from hemoscope.progress import Progress, no_progress

_FORMAT = 1
_HOUNSFIELD, _OUTLINES, _WRITTEN = "hounsfield.npy", "outlines.npy", "written.txt"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Crops of some slices of a cache, in the manifest's order.

    Attributes:
        table: their rows of the manifest, numbered from 0.
        hounsfield: float32 (n, stack, S, S), the slices of a stack from below to above.
        outlines: uint8 (m, S, S) for the m slices whose lesions were outlined: 1 inside a lesion of the middle slice.
        outline_of: (n,) which of ``outlines`` belongs to a slice; -1 where nobody outlined.
        labels: float32 (n, 6), NaN where unknown.
    """

    table: pd.DataFrame
    hounsfield: NDArray[np.float32]
    outlines: NDArray[np.uint8]
    outline_of: NDArray[np.int64]
    labels: NDArray[np.float32]

    def outline(self, row: int) -> NDArray[np.float32]:
        """The outline (S, S) of one slice, a new array; empty where nobody outlined."""
        place = int(self.outline_of[row])
        empty = np.zeros(self.hounsfield.shape[2:], dtype=np.float32)
        return empty if place < 0 else np.asarray(self.outlines[place], dtype=np.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        """Mapped arrays go to another process as their files' names: that process maps them too."""
        arrays = (_named(self.hounsfield), _named(self.outlines))
        return _unpacked, (self.table, *arrays, self.outline_of, self.labels)


def _named(array: NDArray[Any]) -> NDArray[Any] | Path:
    return Path(array.filename) if isinstance(array, np.memmap) and array.filename else array


def _mapped(source: NDArray[Any] | Path) -> NDArray[Any]:
    return np.asanyarray(np.load(source, mmap_mode="r")) if isinstance(source, Path) else source


def _unpacked(
    table: pd.DataFrame,
    hounsfield: NDArray[Any] | Path,
    outlines: NDArray[Any] | Path,
    outline_of: NDArray[np.int64],
    labels: NDArray[np.float32],
) -> Crops:
    return Crops(
        table=table, hounsfield=_mapped(hounsfield), outlines=_mapped(outlines), outline_of=outline_of, labels=labels
    )


def chosen_slices(cache: Cache, image_ids: Sequence[str]) -> pd.DataFrame:
    """Rows of the manifest, in its order, whatever the order of the ids. Raises DataError for an id it lacks."""
    wanted = set(image_ids)
    table = cache.manifest[cache.manifest["image_id"].isin(wanted)].reset_index(drop=True)
    missing = sorted(wanted - set(table["image_id"]))
    if missing:
        msg = f"{len(missing)} images are not in the prepared data, first {missing[0]}. Was it prepared again since?"
        raise DataError(msg)
    return table


def load_crops(
    cache: Cache,
    image_ids: Sequence[str],
    preprocessing: Preprocessing,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Crops:
    """Crop and resize slices once, before the windows, exactly as ``model_input`` does.

    Args:
        cache: the prepared dataset.
        image_ids: the slices.
        preprocessing: of the model.
        folder: where crops are kept as files and found again; None holds them in memory.
        progress: told how many slices are done, and of how many.

    Raises:
        DataError: the cache lacks an image, or a mask that its manifest promises, or a series cannot be read.
    """
    table = chosen_slices(cache, image_ids)
    masked = table["masked"].to_numpy(dtype=bool)
    plan = _Plan(cache, table, np.where(masked, np.cumsum(masked) - 1, -1), preprocessing)
    show = progress or (no_progress)
    hounsfield, outlines = plan.in_memory(show) if folder is None else plan.in_folder(folder, show)
    return Crops(
        table=table,
        hounsfield=hounsfield,
        outlines=outlines,
        outline_of=plan.outline_of,
        labels=table[[label.value for label in LABELS]].to_numpy(dtype=np.float32, na_value=np.nan),
    )


Arrays = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be cropped, and where each row's crop and outline go."""

    cache: Cache
    table: pd.DataFrame
    outline_of: NDArray[np.int64]
    preprocessing: Preprocessing

    @property
    def key(self) -> str:
        """The same for the same crops, another for any others."""
        settings = self.preprocessing.to_json()
        del settings["windows"]
        head = json.dumps([_FORMAT, settings, to_plain(self.cache.dataset)], sort_keys=True)
        digest = hashlib.sha256(head.encode())
        columns = (self.table[name] for name in ("image_id", "series_id", "index", "masked"))
        for row in zip(*columns, strict=True):
            digest.update("\t".join(map(str, row)).encode() + b"\n")
        return digest.hexdigest()[:32]

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the two arrays."""
        side = self.preprocessing.size
        stack = 2 * self.preprocessing.neighbours + 1
        return (len(self.table), stack, side, side), (int(self.outline_of.max(initial=-1)) + 1, side, side)

    def in_memory(self, show: Progress) -> Arrays:
        """Crops that live as long as this process."""
        shape, outlined = self.shapes
        arrays = np.empty(shape, dtype=np.float32), np.zeros(outlined, dtype=np.uint8)
        done = 0
        for _, rows in self._series(set()):
            self._crop(rows, arrays)
            done += len(rows)
            show(done, len(self.table))
        return arrays

    def in_folder(self, folder: Path, show: Progress) -> Arrays:
        """Crops in files, written unless they are there; mapped read-only."""
        whole = folder / self.key
        if not whole.is_dir():  # where they lie already, the folder may be read-only
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{self.key}.lock"):
                if not whole.is_dir():
                    part = folder / f"{self.key}.part"
                    self._write(part, show)
                    part.replace(whole)
        return _mapped(whole / _HOUNSFIELD), _mapped(whole / _OUTLINES)

    def _write(self, part: Path, show: Progress) -> None:
        (hounsfield, outlines), written = self._opened(part)
        done = int(self.table["series_id"].isin(written).sum())
        with (part / _WRITTEN).open("a") as log:
            for series_id, rows in self._series(written):
                self._crop(rows, (hounsfield, outlines))
                hounsfield.flush()  # on disk before it counts as written
                outlines.flush()
                log.write(f"{series_id}\n")
                log.flush()
                done += len(rows)
                show(done, len(self.table))

    def _opened(self, part: Path) -> tuple[list[np.memmap[Any, Any]], set[str]]:
        """The files to write into, and the series that are in them already."""
        log = part / _WRITTEN
        names = (_HOUNSFIELD, _OUTLINES)
        if log.is_file():  # made last: both arrays have their full size
            *lines, _ = log.read_text().split("\n")  # what follows the last line end was cut short
            log.write_text("".join(f"{line}\n" for line in lines))
            return [open_memmap(part / name, mode="r+") for name in names], set(lines)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        made = [
            open_memmap(part / name, mode="w+", dtype=kind, shape=shape)
            for name, kind, shape in zip(names, (np.float32, np.uint8), self.shapes, strict=True)
        ]
        log.touch()
        return made, set()

    def _series(self, skipped: set[str]) -> Iterator[tuple[str, pd.DataFrame]]:
        for series_id, rows in self.table.groupby("series_id"):
            if series_id not in skipped:
                yield str(series_id), rows

    def _crop(self, rows: pd.DataFrame, arrays: Arrays) -> None:
        """Fill in the crops and outlines of one series."""
        hounsfield, outlines = arrays
        series = self.cache.read_series(str(rows["series_id"].iloc[0]))
        volume, size = series.volume, self.preprocessing.size
        for place, index in zip(rows.index, rows["index"], strict=True):
            box = slice_box(volume, int(index), self.preprocessing)
            hounsfield[place] = stacked(volume, int(index), box, self.preprocessing)
            if self.outline_of[place] >= 0:
                if series.mask is None:
                    image_id = rows["image_id"][place]
                    msg = f"{image_id}: the manifest says outlined, but its series has no mask. Prepare the data again"
                    raise DataError(msg)
                # Air past the image is -1000, so the outline is resized on that scale too.
                scaled = resized(series.mask[index].astype(np.float32) * 1000 - 1000, box, size)
                outlines[self.outline_of[place]] = scaled > -500
