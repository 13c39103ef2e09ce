"""Slices in one NumPy file, each with a checksum, so that one can be read and checked without the others.

The array's elements are records (a structured data type): ``crc32``, of the type, shape and place of a slice and of
its bytes, and ``values``. A CRC-32 finds every change of one bit. Files of earlier versions hold plain arrays.
"""

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hemoscope.checksums import NPY_ERRORS, warn_unchecked
from hemoscope.errors import StoreError
from hemoscope.store.refusals import refusal

_CRC, _VALUES = "crc32", "values"


class StoredSlices:
    """The slices of a file, mapped into memory."""

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        """Take the array of ``open_slices``."""
        self._array = array
        self._checked = array.dtype.names is not None

    def __len__(self) -> int:
        """Number of slices."""
        return len(self._array)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return one slice. Raises StoreError ``damaged_pixels`` if it is not as it was written."""
        if not self._checked:
            return np.asarray(self._array[index])
        record = self._array[index]
        values = np.asarray(record[_VALUES])
        if int(record[_CRC]) != _checksum(values, index):
            raise _damaged()
        return values

    def several(self, indices: range) -> NDArray[Any]:
        """Return those slices of ``indices`` that there are, stacked.

        Raises:
            StoreError: ``no_such_slice`` if there is none of them, ``damaged_pixels``.
        """
        there = [index for index in indices if 0 <= index < len(self)]
        if not there:
            raise refusal("no_such_slice", f"slice {indices.start} of a study of {len(self)}")
        return np.stack([self[index] for index in there])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yield all slices; errors as for one."""
        return (self[index] for index in range(len(self)))


def write_slices(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array of slices, two dimensions or more, with a checksum of each."""
    record = np.dtype([(_CRC, "<u4"), (_VALUES, array.dtype, array.shape[1:])])
    header = {"descr": np.lib.format.dtype_to_descr(record), "fortran_order": False, "shape": (len(array),)}
    np.lib.format.write_array_header_1_0(file, header)
    for index, one in enumerate(array):
        values = np.ascontiguousarray(one)
        file.write(np.array(_checksum(values, index), dtype="<u4").tobytes())
        file.write(values.tobytes())


def open_slices(path: Path) -> StoredSlices:
    """Map a file of ``write_slices`` into memory.

    Raises:
        StoreError: ``damaged_pixels``.
        OSError: it cannot be read.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = StoredSlices(array)
        whole = array.offset + array.nbytes == path.stat().st_size
    except (*NPY_ERRORS, AttributeError) as error:
        raise _damaged() from error
    if not whole or array.dtype.names not in (None, (_CRC, _VALUES)):
        raise _damaged()
    if array.dtype.names is None:
        _warn_once()
    return found


def _checksum(values: NDArray[Any], index: int) -> int:
    """CRC-32 of a slice and of what gives its bytes their meaning."""
    head = f"{values.dtype.str} {values.shape} {index}".encode("ascii")
    return zlib.crc32(np.ascontiguousarray(values).data, zlib.crc32(head))


@cache
def _warn_once() -> None:
    warn_unchecked("A stored study", "Upload it again to have it checked")


def _damaged() -> StoreError:
    return refusal("damaged_pixels", "the study's pixels in the storage folder are not those that were written")
