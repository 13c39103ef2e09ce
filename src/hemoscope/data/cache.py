"""The training cache: each series stored once as integer HU, and one table of slices.

A folder with ``manifest.parquet`` (one row per slice: ``image_id, patient_id, study_id, series_id, index, masked`` and
the six labels, empty if unknown), ``dataset.json`` (name and terms of the dataset, which the cards of models trained on
it repeat) and ``series/ID.npz`` (NumPy's archive, never pickled): ``hounsfield`` int16 (z, y, x), ``spacing_mm``,
``images`` (the image id of each slice), ``positions_mm`` along the normal if known, ``mask`` (lesions, bool packed
to bits) if there is one, ``version`` of this format, 2, and ``sha256`` over the archive's own list of arrays: their
names, CRC-32 and sizes. Each array is compared with its CRC-32 when it is read. ``SHA256SUMS`` has the checksums of the
other two files. ``index/`` is of ``header_index``.
Series files are written atomically and the manifest and its checksum last, so that an interrupted preparation can
resume.

A series without ``version`` is of version 1, whose ``sha256`` is over the content of all arrays; it is checked as such.
A folder without ``SHA256SUMS`` is of an earlier version: it is read with a warning, and prepared again from scratch.
"""

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.checksums import SUMS, ChecksumError, read_checked, read_sums, warn_unchecked, write_sums
from hemoscope.errors import DataError, MissingExtraError
from hemoscope.files import atomic_file, atomic_path, write_text
from hemoscope.inference.card import TrainingData, parse_dataclass, to_plain
from hemoscope.labels import LABELS
from hemoscope.volume import HounsfieldVolume

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("image_id", "patient_id", "study_id", "series_id", "index", "masked", *LABELS)
# Errors that NumPy and zipfile raise for a damaged or invalid archive.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_DIGEST, _VERSION = "sha256", "version"
_ARRAYS = {"hounsfield", "spacing_mm", "positions_mm", "thickness_mm", "mask", "images", _VERSION, _DIGEST}
_FORMAT = 2
_MANIFEST, _DATASET = "manifest.parquet", "dataset.json"
_STEP = 1 << 18
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSeries:
    """One series for training; ``mask`` is bool of the volume's shape, or None if there is no lesion mask."""

    volume: HounsfieldVolume
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Cache:
    """A prepared dataset on disk; ``checked`` unless it is of an earlier version, without checksums."""

    folder: Path
    manifest: "pd.DataFrame"
    dataset: TrainingData
    checked: bool = False

    def read_series(self, series_id: str) -> CachedSeries:
        """Read one series. Raises DataError if its file is missing or damaged."""
        with self._stored(series_id) as archive:
            stored = _verified(archive)
            hounsfield = stored["hounsfield"]
            spacing = tuple(None if np.isnan(value) else float(value) for value in stored["spacing_mm"])
            mask = _unpack(stored["mask"], hounsfield.shape) if "mask" in stored else None
            places, thickness = (
                _stored_lengths(stored[name], len(hounsfield)) if name in stored else None
                for name in ("positions_mm", "thickness_mm")
            )
        volume = HounsfieldVolume(
            hounsfield=hounsfield,
            spacing_mm=(spacing[0], spacing[1], spacing[2]),
            positions_mm=places or _positions(len(hounsfield), spacing[0]),
            orientation=None,
            thickness_mm=thickness,
        )
        return CachedSeries(volume=volume, mask=mask)

    def read_positions(self, series_id: str, places: Sequence[int]) -> tuple[float | None, ...]:
        """Return positions in mm of some slices of a series, as in ``read_series``, without reading its pixels."""
        with self._stored(series_id) as archive:
            if "positions_mm" in _names(archive):
                positions = _array(archive, "positions_mm")
                return tuple(float(positions[place]) for place in places)
            spacing = float(_array(archive, "spacing_mm")[0])
        return tuple(None if np.isnan(spacing) else place * spacing for place in places)

    @contextmanager
    def _stored(self, series_id: str) -> Iterator[zipfile.ZipFile]:
        """Open the arrays of a series file. Raises DataError if it is missing or damaged."""
        path = series_path(self.folder, series_id)
        try:
            with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
                _check_list(archive, checked=self.checked)
                yield archive
        except (*_DAMAGED, IndexError) as error:
            reason = str(error) if isinstance(error, ChecksumError) else type(error).__name__
            msg = f"series/{path.name}: not a readable series of this cache ({reason}). Delete it and prepare again"
            raise DataError(msg) from error


def open_cache(folder: Path) -> Cache:
    """Open a prepared dataset. Raises DataError if the folder holds none or its columns differ."""
    path = folder / _MANIFEST
    if not path.is_file():
        msg = f"{folder.name} holds no manifest.parquet. Create it with: hemoscope prepare ... --output {folder.name}"
        raise DataError(msg)
    sums = read_sums(folder / SUMS)
    if sums is None:
        warn_unchecked(f"The prepared data {folder.name}", "Prepare it again")
    try:
        manifest = import_pandas().read_parquet(io.BytesIO(read_checked(path, sums)))
    except ChecksumError as error:
        msg = f"{error}: it is damaged. Prepare the data again"
        raise DataError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path.name}: not a readable table ({type(error).__name__}). Prepare the data again"
        raise DataError(msg) from error
    if list(manifest.columns) != list(COLUMNS):
        msg = f"{path.name} has columns {list(manifest.columns)}, expected {list(COLUMNS)}. Prepare the data again"
        raise DataError(msg)
    return Cache(folder, manifest, read_dataset(folder / _DATASET, sums), checked=sums is not None)


def read_dataset(path: Path, sums: Mapping[str, str] | None = None) -> TrainingData:
    """Read the description of a cached dataset. Raises DataError if ``dataset.json`` is missing, damaged or invalid."""
    try:
        return parse_dataclass(TrainingData, json.loads(read_checked(path, sums)), where=path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{path.name} does not describe the dataset ({reason}). Prepare the data again"
        raise DataError(msg) from error


def write_series(
    folder: Path,
    series_id: str,
    *,
    hounsfield: NDArray[np.int16],
    spacing_mm: tuple[float | None, float | None, float | None] = (None, None, None),
    positions_mm: Sequence[float | None] = (),
    thickness_mm: Sequence[float | None] = (),
    mask: NDArray[np.bool_] | None = None,
    images: Sequence[str] = (),
) -> None:
    """Write one series (z, y, x) atomically.

    ``images`` names each slice, so that a later preparation can tell whether the file is current. ``positions_mm`` is
    stored if known for every slice; otherwise slices count as evenly spaced. ``thickness_mm`` is stored likewise.

    Raises:
        DataError: the series id is not safe as a file name, or images and slices differ in number.
    """
    if images and len(images) != len(hounsfield):
        msg = f"{series_id}: {len(images)} images for {len(hounsfield)} slices"
        raise DataError(msg)
    path = series_path(folder, series_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    spacing = np.array([np.nan if value is None else value for value in spacing_mm], dtype=np.float64)
    arrays: dict[str, NDArray[Any]] = {"hounsfield": hounsfield, "spacing_mm": spacing}
    for name, values in (("positions_mm", positions_mm), ("thickness_mm", thickness_mm)):
        known = [value for value in values if value is not None]
        if len(known) == len(hounsfield):
            arrays[name] = np.array(known, dtype=np.float64)
    if mask is not None:
        arrays["mask"] = np.packbits(mask)
    if images:
        arrays["images"] = np.array(list(images))
    arrays[_VERSION] = np.array(_FORMAT)
    with atomic_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            _write_array(archive, name, array)
        _write_array(archive, _DIGEST, _list_digest(archive))


def _write_array(archive: zipfile.ZipFile, name: str, given: NDArray[Any]) -> None:
    """Write what ``np.savez`` writes, byte for byte, without its copy of the array."""
    array = np.asarray(given, order="C")  # before the header, which names the order of what follows
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
        content = array.reshape(-1).view(np.uint8).data
        for start in range(0, len(content), _STEP):  # in the processor's cache for its CRC-32 and the write
            member.write(content[start : start + _STEP])


def stored_images(folder: Path, series_id: str) -> tuple[str, ...]:
    """Return the image ids of a series file; none if it is missing, damaged, or has no ids or no checksum."""
    try:
        with series_path(folder, series_id).open("rb") as stream, zipfile.ZipFile(stream) as archive:
            _check_list(archive, checked=True)
            if _VERSION in _names(archive):
                shapes = {name: _checked_shape(archive, name) for name in _names(archive)}
                images, whole = _array(archive, "images"), shapes["hounsfield"]
            else:
                stored = _verified(archive)
                images, whole = stored["images"], stored["hounsfield"].shape
            return tuple(images.tolist()) if len(whole) == 3 else ()
    except _DAMAGED:
        return ()


def write_manifest(folder: Path, rows: Sequence[Mapping[str, object]], dataset: TrainingData) -> None:
    """Write the dataset's description, then its table of slices. Raises DataError if an image id occurs twice."""
    pandas = import_pandas()
    table = pandas.DataFrame.from_records(list(rows), columns=list(COLUMNS))
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        msg = f"{len(twice)} image ids occur twice, first {twice.iloc[0]}. Remove the repeated rows"
        raise DataError(msg)
    table = table.astype(dict.fromkeys(LABELS, "Int8"))
    write_text(folder / _DATASET, json.dumps(to_plain(dataset), indent=2) + "\n")
    with atomic_path(folder / _MANIFEST) as draft:
        table.to_parquet(draft, index=False)
    write_sums(folder, (_DATASET, _MANIFEST))


def series_path(folder: Path, series_id: str) -> Path:
    """Return the path of a series. Raises DataError for an id that is unsafe as a file name."""
    if not _SAFE_ID.fullmatch(series_id):
        msg = f"series id {series_id!r} is not safe as a file name: letters, digits, '_', '.', '-', at most 128"
        raise DataError(msg)
    return folder / "series" / f"{series_id}.npz"


def _names(archive: zipfile.ZipFile) -> set[str]:
    return {name.removesuffix(".npy") for name in archive.namelist()}


def _check_list(archive: zipfile.ZipFile, *, checked: bool) -> None:
    """Check which arrays a series file has: one whose name is damaged would count as missing.

    Raises:
        ChecksumError: an array is unknown, missing or listed with another CRC-32 than it was written with, or the file
            is of a later version.
    """
    names = _names(archive)
    if unknown := names - _ARRAYS:
        msg = f"{len(unknown)} arrays have unknown names"
        raise ChecksumError(msg)
    if _DIGEST not in names:
        if checked:
            msg = "it has no checksum"
            raise ChecksumError(msg)
        return
    if _VERSION not in names:
        return  # version 1: ``_verified`` compares the content
    if not np.array_equal(_array(archive, _DIGEST), _list_digest(archive)):
        msg = "its checksum is wrong"
        raise ChecksumError(msg)
    if (version := int(_array(archive, _VERSION))) != _FORMAT:
        msg = f"it is of format {version}, of a later version of Hemoscope than this one"
        raise ChecksumError(msg)


def _verified(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    """Read all arrays of a series file whose list was checked. Raises ChecksumError."""
    arrays = {name: _array(archive, name) for name in _names(archive)}
    digest = arrays.pop(_DIGEST, None)
    first = arrays.pop(_VERSION, None) is None
    if first and digest is not None and not np.array_equal(digest, _content_digest(arrays)):
        msg = "its checksum is wrong"
        raise ChecksumError(msg)
    return arrays


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one array to its end, where the archive compares its CRC-32. Raises one of ``_DAMAGED``."""
    with archive.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):
            msg = f"{name} is longer than its header says"
            raise ChecksumError(msg)
    return array


def _checked_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """Compare an array with its CRC-32 without keeping it, and return its shape; errors as ``_array``."""
    with archive.open(f"{name}.npy") as member:
        np.lib.format.read_magic(member)
        shape: tuple[int, ...] = np.lib.format.read_array_header_1_0(member)[0]
        while member.read(_STEP):
            pass
    return shape


def _list_digest(archive: zipfile.ZipFile) -> NDArray[np.uint8]:
    """SHA-256 of what the archive says of its arrays but the checksum: names, CRC-32 and sizes."""
    lines = sorted(
        f"{one.filename} {one.CRC:08x} {one.file_size}\n"
        for one in archive.infolist()
        if one.filename != f"{_DIGEST}.npy"
    )
    return np.frombuffer(hashlib.sha256("".join(lines).encode()).digest(), dtype=np.uint8)


def _content_digest(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """SHA-256 of arrays with their names, types and shapes, as version 1 stored it."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def _positions(slices: int, spacing: float | None) -> tuple[float | None, ...]:
    return tuple(None if spacing is None else index * spacing for index in range(slices))


def _stored_lengths(values: NDArray[np.float64], slices: int) -> tuple[float | None, ...]:
    if values.shape != (slices,):
        msg = f"{values.shape} values in mm for {slices} slices"
        raise ValueError(msg)
    return tuple(float(value) for value in values)


def _unpack(bits: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def import_pandas() -> Any:
    """Return pandas, with pyarrow beside it. Raises MissingExtraError."""
    try:
        import pandas as pd
        import pyarrow as pa  # noqa: F401  (pandas writes Parquet through it)
    except ImportError as error:
        raise MissingExtraError(package="pandas with pyarrow", extra="study") from error
    return pd
