"""Head-cropped Hounsfield units of many slices, from which samples are built; in memory or memory-mapped.

``model_input`` crops, resizes and then applies the windows. Crops are that array before the windows, so augmentation
can act on Hounsfield units, and without augmentation training shows the network exactly what serving does. With
neighbours, a crop is a stack: every neighbour is cropped with the box of the middle slice.

On disk, each set of crops has its own folder, named by a hash of its inputs (the slices, the dataset, and the
preprocessing without its windows, which are applied later). It holds ``hounsfield.npy``, ``outlines.npy`` (lesion
masks) and ``checksums.npy`` (a CRC-32 of each crop and mask, checked whenever one is read): plain NumPy files that are
memory-mapped, so that 700,000 slices need no more memory than a few. While they are
written, the folder's name ends in ``.part`` and ``written.txt`` lists the finished series; an interrupted process
resumes there. A file lock lets one process write while others wait and then read. Changed series with unchanged ids
are not detected: delete the crops after preparing the data again.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from hemoscope.checksums import NPY_ERRORS
from hemoscope.data.cache import Cache
from hemoscope.errors import DataError
from hemoscope.files import publish, write_text
from hemoscope.inference.card import to_plain
from hemoscope.inference.preprocess import Preprocessing, resized, slice_box, square_pixels, stacked
from hemoscope.labels import LABELS
from hemoscope.progress import Progress, no_progress

_FORMAT = 3
_HOUNSFIELD, _MASKS, _SUMS, _WRITTEN = "hounsfield.npy", "outlines.npy", "checksums.npy", "written.txt"
_NAMES = (_HOUNSFIELD, _MASKS, _SUMS)
_TYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.uint32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crops:
    """Crops of selected slices of a cache, in the manifest's order.

    Attributes:
        table: their rows of the manifest, numbered from 0.
        hounsfield: float32 (n, stack, S, S), the slices of a stack from inferior to superior.
        masks: uint8 (m, S, S) for the m slices that have a lesion mask: 1 inside a lesion of the middle slice.
        mask_of: (n,) the index in ``masks`` of each slice's mask; -1 if it has none.
        labels: float32 (n, 6), NaN if unknown.
        checksums: uint32 (n, 2), of each slice's crop and mask, for those on disk; None for those in memory.
    """

    table: pd.DataFrame
    hounsfield: NDArray[np.float32]
    masks: NDArray[np.uint8]
    mask_of: NDArray[np.int64]
    labels: NDArray[np.float32]
    checksums: NDArray[np.uint32] | None = None

    def stack(self, row: int) -> NDArray[np.float32]:
        """Return the crop (stack, S, S) of one slice. Raises DataError if it is not as it was written."""
        return self._checked(self.hounsfield[row], row, 0)

    def mask(self, row: int) -> NDArray[np.float32]:
        """Return the lesion mask (S, S) of one slice as a new array, all zero if it has none; errors as ``stack``."""
        place = int(self.mask_of[row])
        if place < 0:
            return np.zeros(self.hounsfield.shape[2:], dtype=np.float32)
        return self._checked(self.masks[place], row, 1).astype(np.float32)

    def _checked(self, values: NDArray[Any], row: int, column: int) -> NDArray[Any]:
        if self.checksums is not None and zlib.crc32(values.data) != self.checksums[row, column]:
            msg = f"{(_HOUNSFIELD, _MASKS)[column]}: the crop of {self.table['image_id'][row]} is damaged. {_AGAIN}"
            raise DataError(msg)
        return np.asarray(values)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle memory-mapped arrays as their file names: the other process maps them again."""
        arrays = (_named(self.hounsfield), _named(self.masks))
        sums = None if self.checksums is None else _named(self.checksums)
        return _unpacked, (self.table, *arrays, self.mask_of, self.labels, sums)


def _named(array: NDArray[Any]) -> NDArray[Any] | Path:
    return Path(array.filename) if isinstance(array, np.memmap) and array.filename else array


def _mapped(source: NDArray[Any] | Path) -> NDArray[Any]:
    return np.asanyarray(np.load(source, mmap_mode="r")) if isinstance(source, Path) else source


def _unpacked(
    table: pd.DataFrame,
    hounsfield: NDArray[Any] | Path,
    masks: NDArray[Any] | Path,
    mask_of: NDArray[np.int64],
    labels: NDArray[np.float32],
    sums: NDArray[Any] | Path | None,
) -> Crops:
    return Crops(
        table=table,
        hounsfield=_mapped(hounsfield),
        masks=_mapped(masks),
        mask_of=mask_of,
        labels=labels,
        checksums=None if sums is None else _mapped(sums),
    )


def chosen_slices(cache: Cache, image_ids: Sequence[str]) -> pd.DataFrame:
    """Return rows of the manifest in its order, whatever the order of the ids. Raises DataError for an unknown id."""
    wanted = set(image_ids)
    table = cache.manifest[cache.manifest["image_id"].isin(wanted)].reset_index(drop=True)
    missing = sorted(wanted - set(table["image_id"]))
    if missing:
        msg = f"{len(missing)} images are not in the prepared data, first {missing[0]}. Was the data prepared again?"
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
    """Crop and resize slices once, without the windows, exactly as ``model_input`` does.

    Args:
        cache: the prepared dataset.
        image_ids: the slices.
        preprocessing: of the model.
        folder: where crops are stored and reused; None keeps them in memory.
        progress: called with the slices done and their total.

    Raises:
        DataError: the cache lacks an image or a mask that its manifest lists, or a series cannot be read.
    """
    table = chosen_slices(cache, image_ids)
    masked = table["masked"].to_numpy(dtype=bool)
    plan = _Plan(cache, table, np.where(masked, np.cumsum(masked) - 1, -1), preprocessing)
    show = progress or (no_progress)
    arrays = plan.in_memory(show) if folder is None else plan.in_folder(folder, show)
    return Crops(
        table=table,
        hounsfield=arrays[0],
        masks=arrays[1],
        checksums=arrays[2] if folder is not None else None,
        mask_of=plan.mask_of,
        labels=table[[label.value for label in LABELS]].to_numpy(dtype=np.float32, na_value=np.nan),
    )


Arrays = tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint32]]
_AGAIN = "Delete the folder of crops: they are written again"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to crop, and where each row's crop and mask go."""

    cache: Cache
    table: pd.DataFrame
    mask_of: NDArray[np.int64]
    preprocessing: Preprocessing

    @property
    def key(self) -> str:
        """Hash of the inputs: equal for equal crops."""
        settings = self.preprocessing.to_json()
        del settings["windows"]
        head = json.dumps([_FORMAT, settings, to_plain(self.cache.dataset)], sort_keys=True)
        digest = hashlib.sha256(head.encode())
        columns = (self.table[name] for name in ("image_id", "series_id", "index", "masked"))
        for row in zip(*columns, strict=True):
            digest.update("\t".join(map(str, row)).encode() + b"\n")
        return digest.hexdigest()[:32]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the three arrays."""
        side = self.preprocessing.size
        stack = 2 * self.preprocessing.neighbours + 1
        count = len(self.table)
        return (count, stack, side, side), (int(self.mask_of.max(initial=-1)) + 1, side, side), (count, 2)

    def in_memory(self, show: Progress) -> Arrays:
        """Return the crops in memory."""
        shape, mask_shape, sums = self.shapes
        arrays = np.empty(shape, np.float32), np.zeros(mask_shape, np.uint8), np.zeros(sums, np.uint32)
        done = 0
        for _, rows in self._series(set()):
            self._crop(rows, arrays)
            done += len(rows)
            show(done, len(self.table))
        return arrays

    def in_folder(self, folder: Path, show: Progress) -> Arrays:
        """Return memory-mapped crops, read-only; write the files first if they are missing."""
        whole = folder / self.key
        if not whole.is_dir():  # existing crops may be in a read-only folder
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{self.key}.lock"):
                if not whole.is_dir():
                    part = folder / f"{self.key}.part"
                    self._write(part, show)
                    publish(part, whole)
        return self._mapped(whole)

    def _mapped(self, whole: Path) -> Arrays:
        """Map the arrays. Raises DataError for a damaged header, which would give their bytes another meaning."""
        try:
            found = tuple(_mapped(whole / name) for name in _NAMES)
        except (OSError, *NPY_ERRORS) as error:
            msg = f"crops {whole.name} cannot be read ({type(error).__name__}). {_AGAIN}"
            raise DataError(msg) from error
        for name, array, shape, kind in zip(_NAMES, found, self.shapes, _TYPES, strict=True):
            if (array.shape, array.dtype, array.flags.c_contiguous) != (shape, kind, True):
                msg = f"crops {whole.name}: {name} has another shape or type than it was written with. {_AGAIN}"
                raise DataError(msg)
        return found  # type: ignore[return-value]  # as was just checked

    def _write(self, part: Path, show: Progress) -> None:
        arrays, written = self._opened(part)
        done = int(self.table["series_id"].isin(written).sum())
        with (part / _WRITTEN).open("a") as log:
            for series_id, rows in self._series(written):
                self._crop(rows, arrays)
                for array in arrays:
                    array.flush()  # before the series counts as written
                log.write(f"{series_id}\n")
                log.flush()
                done += len(rows)
                show(done, len(self.table))

    def _opened(self, part: Path) -> tuple[tuple[np.memmap[Any, Any], ...], set[str]]:
        """Return the files to write to, and the series that they already hold."""
        log = part / _WRITTEN
        if log.is_file():  # created last: both arrays have their full size
            *lines, _ = log.read_text().split("\n")  # text after the last newline is incomplete
            write_text(log, "".join(f"{line}\n" for line in lines))
            return tuple(open_memmap(part / name, mode="r+") for name in _NAMES), set(lines)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        made = tuple(
            open_memmap(part / name, mode="w+", dtype=kind, shape=shape)
            for name, kind, shape in zip(_NAMES, _TYPES, self.shapes, strict=True)
        )
        log.touch()
        return made, set()

    def _series(self, skipped: set[str]) -> Iterator[tuple[str, pd.DataFrame]]:
        for series_id, rows in self.table.groupby("series_id"):
            if series_id not in skipped:
                yield str(series_id), rows

    def _crop(self, rows: pd.DataFrame, arrays: Any) -> None:
        """Fill in the crops, masks and checksums of one series; ``arrays`` as ``Arrays``."""
        hounsfield, masks, sums = arrays
        series = self.cache.read_series(str(rows["series_id"].iloc[0]))
        volume, size = series.volume, self.preprocessing.size
        for place, index in zip(rows.index, rows["index"], strict=True):
            box = slice_box(volume, int(index), self.preprocessing)
            hounsfield[place] = stacked(volume, int(index), box, self.preprocessing)
            sums[place, 0] = zlib.crc32(hounsfield[place])
            if self.mask_of[place] >= 0:
                if series.mask is None:
                    image_id = rows["image_id"][place]
                    msg = f"{image_id}: no mask in its series, but the manifest lists one. Prepare the data again"
                    raise DataError(msg)
                # resized() pads with air (-1000), so the mask is resized on that scale too.
                scaled = resized(square_pixels(series.mask[index].astype(np.float32) * 1000 - 1000, volume), box, size)
                mask = (scaled > -500).astype(np.uint8)
                masks[self.mask_of[place]] = mask
                sums[place, 1] = zlib.crc32(mask.data)
