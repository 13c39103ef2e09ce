"""A head in Hounsfield units: slices stacked along z, read-only, and the exchange of axes between storages of one.

Axis order is (z, y, x): slice, row, column. Slices run from feet to head (inferior to superior) if positions are
known. Values are whole HU in int16: CT is quantised to whole HU on nearly every scanner, and half of float32's memory
lets a thin series fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import GeometryError
from hemoscope.progress import Arrival

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNEVEN = 0.1  # of the slice spacing; the quality note ``uneven_spacing`` begins there too
Scalar = TypeVar("Scalar", bound=np.generic)
Point = tuple[float, float, float]
Vectors = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisChange:
    """How rows and columns of stored slices become those of the radiological convention, and back.

    The patient's right is at the left of the picture, and the front (anterior) at the top. Flips and an exchange of
    the axes suffice to come within 45 degrees of it; nothing is resampled.

    Attributes:
        exchanged: rows and columns are exchanged first.
        rows_flipped: then the order of the rows is reversed.
        columns_flipped: and that of the columns.
    """

    exchanged: bool = False
    rows_flipped: bool = False
    columns_flipped: bool = False

    @classmethod
    def of(cls, orientation: Sequence[float] | None) -> "AxisChange":
        """Return the change for slices of these row and column direction cosines (DICOM (0020,0037), LPS).

        Slices of unknown orientation, and those that are not axial, stay as they are.

        Examples:
            >>> AxisChange.of((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
            AxisChange(exchanged=False, rows_flipped=True, columns_flipped=True)
        """
        return cls() if orientation is None else _axis_change(tuple(orientation))

    def apply(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return a view of ``values`` (..., rows, columns) in the radiological convention."""
        turned = values.swapaxes(-1, -2) if self.exchanged else values
        return self._flipped(turned)

    def undo(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return a view of ``values`` (..., rows, columns), given in the radiological convention, as stored."""
        flipped = self._flipped(values)
        return flipped.swapaxes(-1, -2) if self.exchanged else flipped

    def apply_directions(self, row: Vectors, column: Vectors) -> tuple[Vectors, Vectors]:
        """Return the directions of a row and of a column after ``apply``, given those before it."""
        right, down = (column, row) if self.exchanged else (row, column)
        return (-right if self.columns_flipped else right), (-down if self.rows_flipped else down)

    def undo_directions(self, row: Vectors, column: Vectors) -> tuple[Vectors, Vectors]:
        """Return the directions of a row and of a column after ``undo``, given those before it."""
        right, down = (-row if self.columns_flipped else row), (-column if self.rows_flipped else column)
        return (down, right) if self.exchanged else (right, down)

    def _flipped(self, values: NDArray[Scalar]) -> NDArray[Scalar]:
        steps = slice(None, None, -1 if self.rows_flipped else 1), slice(None, None, -1 if self.columns_flipped else 1)
        return values[(..., *steps)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HounsfieldVolume:
    """A stack of axial slices.

    Attributes:
        hounsfield: int16 HU, shape (slices, rows, columns), read-only.
        spacing_mm: distance between (slices, rows, columns) in mm; the first is None for a single slice or unknown
            positions, all are None if the file has no geometry.
        positions_mm: position of each slice along the normal in mm, or None if unknown.
        orientation: row then column direction cosines (DICOM (0020,0037)), or None if unknown.
        origins_mm: (x, y, z) of the first pixel of each slice in the patient system, LPS (DICOM (0020,0032)), or None
            if unknown.
        thickness_mm: of each slice (DICOM (0018,0050)), or None if unknown.
        aspect_ratio: height of a pixel over its width (DICOM (0028,0034)), used if the spacing is unknown.
        arrival: of a volume that is being decoded, which slices are; None if all are.
    """

    hounsfield: NDArray[np.int16]
    spacing_mm: tuple[float | None, float | None, float | None]
    positions_mm: tuple[float | None, ...]
    orientation: tuple[float, ...] | None
    origins_mm: tuple[Point, ...] | None = None
    thickness_mm: tuple[float | None, ...] | None = None
    aspect_ratio: float | None = None
    arrival: Arrival | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the shape and type, and make the array read-only."""
        if self.hounsfield.ndim != 3 or self.hounsfield.dtype != np.int16:
            msg = f"expected int16 (z, y, x), got {self.hounsfield.dtype} with shape {self.hounsfield.shape}"
            raise ValueError(msg)
        if len(self.positions_mm) != self.hounsfield.shape[0]:
            msg = f"{len(self.positions_mm)} positions for {self.hounsfield.shape[0]} slices"
            raise ValueError(msg)
        for name, values in (("origins", self.origins_mm), ("values of thickness", self.thickness_mm)):
            if values is not None and len(values) != len(self.positions_mm):
                msg = f"{len(values)} {name} for {len(self.positions_mm)} slices"
                raise ValueError(msg)
        self.hounsfield.flags.writeable = False

    def part(self, first: int, last: int) -> NDArray[np.int16]:
        """Return the slices from ``first`` to ``last``, both included; wait for those that are still decoded."""
        if self.arrival is not None:
            self.arrival.wait(first, last)
        return self.hounsfield[first : last + 1]

    @property
    def slice_spacing_mm(self) -> float | None:
        """Distance between adjacent slices in mm, or None if unknown."""
        return self.spacing_mm[0]

    @property
    def pixel_aspect(self) -> float:
        """Height of a pixel over its width; 1 if unknown."""
        rows_mm, columns_mm = self.spacing_mm[1:]
        if rows_mm and columns_mm:
            return rows_mm / columns_mm
        return self.aspect_ratio or 1.0

    @property
    def canonical(self) -> "HounsfieldVolume":
        """The same slices in the radiological convention; the volume itself if they are stored so."""
        change = AxisChange.of(self.orientation)
        if change == AxisChange() or self.orientation is None:
            return self
        right, down = change.apply_directions(*np.array(self.orientation, dtype=np.float64).reshape(2, 3))
        slices_mm, rows_mm, columns_mm = self.spacing_mm
        ratio = self.aspect_ratio
        return replace(
            self,
            hounsfield=change.apply(self.hounsfield),
            spacing_mm=(slices_mm, *((columns_mm, rows_mm) if change.exchanged else (rows_mm, columns_mm))),
            orientation=tuple(float(cosine) + 0.0 for cosine in (*right, *down)),
            origins_mm=self._corners(change),
            aspect_ratio=1 / ratio if ratio and change.exchanged else ratio,
        )

    def _corners(self, change: AxisChange) -> tuple[Point, ...] | None:
        """Return the place of the pixel of each slice that is the first one in the radiological convention."""
        rows_mm, columns_mm = self.spacing_mm[1:]
        if self.origins_mm is None or self.orientation is None or rows_mm is None or columns_mm is None:
            return None
        down, right = (count - 1 for count in self.hounsfield.shape[1:])
        flips = (
            (change.columns_flipped, change.rows_flipped)
            if change.exchanged
            else (change.rows_flipped, change.columns_flipped)
        )
        row, column = np.array(self.orientation, dtype=np.float64).reshape(2, 3)
        moved = flips[0] * down * rows_mm * column + flips[1] * right * columns_mm * row
        return tuple((x, y, z) for x, y, z in (np.array(self.origins_mm) + moved).tolist())

    @property
    def affine(self) -> NDArray[np.float64]:
        """The affine of NIfTI, float64 (4, 4): voxel indices of ``hounsfield.T`` to millimetres in RAS.

        ``affine @ (column, row, slice, 1)`` is (x, y, z, 1) with x rising to the patient's right, y to the front and z
        to the head. A gantry tilt makes it sheared: the step between slices is not along their normal.

        Raises:
            GeometryError: positions, orientation or spacing are unknown, or one affine cannot place every slice within
                a tenth of the slice spacing.

        Examples:
            >>> volume = HounsfieldVolume(
            ...     hounsfield=np.zeros((2, 4, 4), dtype=np.int16),
            ...     spacing_mm=(5.0, 0.5, 0.5),
            ...     positions_mm=(30.0, 35.0),
            ...     orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            ...     origins_mm=((-110.0, -100.0, 30.0), (-110.0, -100.0, 35.0)),
            ... )
            >>> column, row, index = 2, 0, 1
            >>> [float(mm) for mm in (volume.affine @ (column, row, index, 1))[:3]]
            [109.0, 100.0, 35.0]
        """
        rows_mm, columns_mm = self.spacing_mm[1:]
        if self.origins_mm is None or self.orientation is None or rows_mm is None or columns_mm is None:
            msg = "the volume has no affine: position, orientation or pixel spacing are unknown"
            raise GeometryError(msg)
        matrix = np.eye(4)
        matrix[:3, 0] = _unit(self.orientation[:3]) * columns_mm
        matrix[:3, 1] = _unit(self.orientation[3:]) * rows_mm
        matrix[:3, 2] = _step(np.array(self.origins_mm, dtype=np.float64))
        matrix[:3, 3] = self.origins_mm[0]
        return _LPS_TO_RAS @ matrix

    def __len__(self) -> int:
        """Number of slices."""
        return int(self.hounsfield.shape[0])


@lru_cache(maxsize=1024)
def _axis_change(orientation: tuple[float, ...]) -> AxisChange:
    """Return the change for known directions: asked for each slice, and nearly all slices of a scan share them."""
    row, column = np.array(orientation, dtype=np.float64).reshape(2, 3)
    if np.abs(np.cross(row, column)).argmax() != 2:
        return AxisChange()
    exchanged = bool(abs(row[1]) + abs(column[0]) > abs(row[0]) + abs(column[1]))
    right, down = (column, row) if exchanged else (row, column)
    return AxisChange(exchanged=exchanged, rows_flipped=bool(down[1] < 0), columns_flipped=bool(right[0] < 0))


def _unit(cosines: tuple[float, ...]) -> NDArray[np.float64]:
    vector = np.array(cosines, dtype=np.float64)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)


def _step(origins: NDArray[np.float64]) -> NDArray[np.float64]:
    """The step from slice to slice (3,), of origins (slices, 3)."""
    if len(origins) < 2:
        msg = "the volume has no affine: one slice alone has no slice spacing"
        raise GeometryError(msg)
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    placed = origins[0] + np.arange(len(origins))[:, None] * step
    apart = float(np.linalg.norm(origins - placed, axis=1).max())
    if apart > _UNEVEN * np.linalg.norm(step):
        msg = (
            f"the volume has no affine: slices are unevenly spaced, one lies {apart:.1f} mm from its place in an even "
            "stack. Use origins_mm, which places each slice"
        )
        raise GeometryError(msg)
    return np.asarray(step, dtype=np.float64)
