"""A head in Hounsfield units: slices stacked along z, read-only.

Axis order is (z, y, x): slice, row, column. Slices run from feet to head (inferior to superior) if positions are
known. Values are whole HU in int16: CT is quantised to whole HU on nearly every scanner, and half of float32's memory
lets a thin series fit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class HounsfieldVolume:
    """A stack of axial slices.

    Attributes:
        hounsfield: int16 HU, shape (slices, rows, columns), read-only.
        spacing_mm: distance between (slices, rows, columns) in mm; the first is None for a single slice or unknown
            positions, all are None if the file has no geometry.
        positions_mm: position of each slice along the normal in mm, or None if unknown.
        orientation: row then column direction cosines (DICOM (0020,0037)), or None if unknown.
    """

    hounsfield: NDArray[np.int16]
    spacing_mm: tuple[float | None, float | None, float | None]
    positions_mm: tuple[float | None, ...]
    orientation: tuple[float, ...] | None

    def __post_init__(self) -> None:
        """Check the shape and type, and make the array read-only."""
        if self.hounsfield.ndim != 3 or self.hounsfield.dtype != np.int16:
            msg = f"expected int16 (z, y, x), got {self.hounsfield.dtype} with shape {self.hounsfield.shape}"
            raise ValueError(msg)
        if len(self.positions_mm) != self.hounsfield.shape[0]:
            msg = f"{len(self.positions_mm)} positions for {self.hounsfield.shape[0]} slices"
            raise ValueError(msg)
        self.hounsfield.flags.writeable = False

    @property
    def slice_spacing_mm(self) -> float | None:
        """Distance between adjacent slices in mm, or None if unknown."""
        return self.spacing_mm[0]

    def __len__(self) -> int:
        """Number of slices."""
        return int(self.hounsfield.shape[0])
