"""A head phantom: synthetic CT in Hounsfield units, with bleeds and their ground truth.

For tests and tutorials, which must not use patients' data. Arrays are (z, y, x), z from feet to head, y from front to
back, x from the patient's right to left: the axes of the DICOM patient system (LPS) at identity orientation; the origin
in mm is the middle of the head. Shapes are simplified; HU are those of tissue, and each bleed has the location of its
type: epidural as a lens and subdural as a crescent under the inner table, subarachnoid in the sulci, and so on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.volume import HounsfieldVolume

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Half axes of the skin in mm (x, y, z), and the depths of the outer and inner surface of the skull.
HEAD_MM = (74.0, 92.0, 82.0)
SKULL_OUTER_MM = 5.0
SKULL_INNER_MM = 12.0
FIELD_OF_VIEW_MM = 230.0

# Typical HU at 120 kVp: air, skin and fat, cortical and spongy bone, grey and white matter, CSF, falx, fresh blood.
AIR, SCALP, BONE, DIPLOE, GREY, WHITE, CSF, FALX, BLOOD = -1000.0, 10.0, 1300.0, 700.0, 38.0, 28.0, 6.0, 44.0, 68.0
TABLE, MARKER = 250.0, 1600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A synthetic head CT and its ground truth.

    Attributes:
        hounsfield: int16 HU, shape (slices, rows, columns), read-only.
        masks: for each label a bool array of the same shape, read-only; ``any`` is the union of the five.
        spacing_mm: distance between slices, rows and columns.
        side: of unilateral bleeds, the patient's ``"left"`` or ``"right"`` (subdural: the opposite side).
    """

    hounsfield: NDArray[np.int16]
    masks: PerLabel[Mask]
    spacing_mm: tuple[float, float, float]
    side: str

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for array in (self.hounsfield, *self.masks.values):
            array.flags.writeable = False

    @property
    def slice_labels(self) -> NDArray[np.bool_]:
        """Labels of each slice, shape (slices, 6) in label order."""
        return np.stack([mask.any(axis=(1, 2)) for mask in self.masks.values], axis=1)

    @property
    def positions_mm(self) -> tuple[float, ...]:
        """Position of each slice along z, increasing towards the head; the middle of the stack is 0."""
        return tuple(float(z) for z in _axis(len(self.hounsfield), self.spacing_mm[0]))

    @property
    def volume(self) -> HounsfieldVolume:
        """The same head as a volume, without DICOM files."""
        _, rows, columns = self.hounsfield.shape
        left, front = (-(count - 1) / 2 * mm for count, mm in zip((columns, rows), self.spacing_mm[:0:-1], strict=True))
        return HounsfieldVolume(
            hounsfield=self.hounsfield,
            spacing_mm=self.spacing_mm,
            positions_mm=self.positions_mm,
            orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            origins_mm=tuple((left, front, z) for z in self.positions_mm),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """Coordinates in mm from the centre of the head, and the regions where bleeds are placed."""

    x: Field
    y: Field
    z: Field
    depth: Field  # mm under the skin along the ray from the middle; negative outside the head
    azimuth: Field  # 0 at the patient's left, pi / 2 at the back
    sign: float  # +1 where one-sided bleeds lie on the patient's left
    ventricles: Mask
    sulci: Mask

    @property
    def cranium(self) -> Mask:
        return self.depth >= SKULL_INNER_MM

    @property
    def inner_depth(self) -> Field:
        return self.depth - np.float32(SKULL_INNER_MM)


def make_phantom(
    *,
    seed: int,
    shape: tuple[int, int, int] = (12, 128, 128),
    bleeds: frozenset[Hemorrhage] = frozenset(),
    spacing_mm: tuple[float, float, float] | None = None,
    noise_hu: float = 3.0,
    side: str | None = None,
    table: bool = False,
    marker: bool = False,
) -> Phantom:
    """Create a phantom; the same arguments give the same phantom.

    Args:
        seed: of size, rotation and side of the head, the texture and the noise.
        shape: slices, rows, columns; every bleed is visible on the middle slices.
        bleeds: types to include, of the five types (``any`` follows from them).
        spacing_mm: between slices, rows and columns; by default 5 mm slices and a field of view of 230 mm.
        noise_hu: standard deviation of the noise inside the field.
        side: ``"left"`` or ``"right"`` of the patient for unilateral bleeds; by default chosen by the seed.
        table: whether the scanner's table is visible behind the head.
        marker: whether a dense rod is beside the patient's left temple, to detect mirrored images.

    Raises:
        ValueError: if the shape, spacing, noise, side or a bleed is invalid.
    """
    spacing = spacing_mm or (5.0, FIELD_OF_VIEW_MM / shape[1], FIELD_OF_VIEW_MM / shape[2])
    _check(shape, bleeds, spacing, noise_hu, side)
    random = np.random.default_rng(seed)
    chosen_side = side or ("left", "right")[int(random.integers(2))]
    head = _head(random, shape, spacing, 1.0 if chosen_side == "left" else -1.0)
    texture = ndimage.gaussian_filter(random.standard_normal(shape, dtype=np.float32), 1.0) * 4.0
    masks = _place_bleeds(head, bleeds)
    field = np.where(masks[Hemorrhage.ANY], BLOOD + 1.5 * texture, _tissue(head, texture))
    if table:
        _add_table(field, shape, spacing)
    if marker:
        _add_marker(field, shape, spacing)
    hounsfield = _scan(field, noise_hu * random.standard_normal(shape, dtype=np.float32))
    return Phantom(hounsfield=hounsfield, masks=masks, spacing_mm=spacing, side=chosen_side)


def _scan(field: Field, noise: Field) -> NDArray[np.int16]:
    """Simulate the scanner: partial volume at the edges, noise, and integer HU of 12 bits."""
    blurred = ndimage.gaussian_filter(field, (0.0, 0.5, 0.5)) + noise
    hounsfield: NDArray[np.int16] = np.clip(np.rint(blurred), -1024, 3071).astype(np.int16)
    return hounsfield


def _check(
    shape: tuple[int, int, int],
    bleeds: frozenset[Hemorrhage],
    spacing: tuple[float, float, float],
    noise_hu: float,
    side: str | None,
) -> None:
    if len(shape) != 3 or shape[0] < 1 or min(shape[1:]) < 16:
        msg = f"a phantom needs at least one slice of 16 x 16 pixels, got shape {shape}"
        raise ValueError(msg)
    if min(spacing) <= 0:
        msg = f"spacing must be positive, got {spacing} mm"
        raise ValueError(msg)
    if noise_hu < 0:
        msg = f"noise cannot be negative, got {noise_hu} HU"
        raise ValueError(msg)
    if side not in {None, "left", "right"}:
        msg = f"side must be 'left' or 'right', got {side!r}"
        raise ValueError(msg)
    if Hemorrhage.ANY in bleeds:
        msg = "'any' is not a type of bleed. Name the types"
        raise ValueError(msg)


def _axis(count: int, spacing: float) -> Field:
    """Millimetres of each voxel centre, with 0 in the middle."""
    return ((np.arange(count) - (count - 1) / 2) * spacing).astype(np.float32)


def _grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> tuple[Field, Field, Field]:
    """Open grids z, y, x in mm that broadcast to ``shape``."""
    z, y, x = (_axis(n, mm) for n, mm in zip(shape, spacing, strict=True))
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _head(
    random: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float], sign: float
) -> _Head:
    """Place a head of slightly random size and rotation about z."""
    z, y0, x0 = _grid(shape, spacing)
    turn = np.float32(np.deg2rad(random.uniform(-5.0, 5.0)))
    x = x0 * np.cos(turn) + y0 * np.sin(turn)
    y = y0 * np.cos(turn) - x0 * np.sin(turn)
    a, b, c = (np.float32(half * random.uniform(0.96, 1.04)) for half in HEAD_MM)
    relative = np.maximum(np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2), np.float32(1e-3))
    radius = np.sqrt(x**2 + y**2 + z**2)
    depth = np.where(relative < 0.05, min(a, b, c), radius / relative - radius).astype(np.float32)
    azimuth = np.broadcast_to(np.arctan2(y, x), depth.shape)
    phase = np.float32(random.uniform(0, 2 * np.pi))
    ventricles = _ventricles(x, y, z)
    sulci = _sulci(x, y, z, depth - np.float32(SKULL_INNER_MM), azimuth, phase) & ~ventricles
    return _Head(x=x, y=y, z=z, depth=depth, azimuth=azimuth, sign=sign, ventricles=ventricles, sulci=sulci)


def _ellipsoid(distances: tuple[Field, Field, Field], half_axes: tuple[float, float, float]) -> Mask:
    """Mask of an ellipsoid, from the distances to its centre."""
    squares = sum((d / np.float32(h)) ** 2 for d, h in zip(distances, half_axes, strict=True))
    return np.asarray(squares <= 1.0)


def _ventricles(x: Field, y: Field, z: Field) -> Mask:
    """Two lateral ventricles that diverge posteriorly, and the third between them."""
    lateral = abs(x) - (8.0 + 0.22 * np.clip(y + 30.0, 0.0, 70.0))
    horns = _ellipsoid((lateral, y, z - 6.0), (6.0, 42.0, 16.0))
    return horns | _ellipsoid((x, y - 2.0, z + 6.0), (2.5, 14.0, 12.0))


def _sulci(x: Field, y: Field, z: Field, inner_depth: Field, azimuth: Field, phase: np.float32) -> Mask:
    """CSF on the outside of the brain: the rim, sulci, both Sylvian fissures and a basal cistern."""
    inside = inner_depth >= 0
    folds = np.cos(22.0 * azimuth + phase + 1.5 * np.sin(z / 9.0)) > 0.82
    sylvian = (abs(y + 8.0 + 0.15 * z) < 2.5) & (abs(x) > 30.0) & (abs(z) < 25.0)
    cistern = _ellipsoid((x, y + 5.0, z + 32.0), (20.0, 16.0, 9.0))
    outside: Mask = (inner_depth < 1.5) | (folds & (inner_depth < 11.0)) | sylvian | cistern
    return inside & outside


def _tissue(head: _Head, texture: Field) -> Field:
    """The head without bleeds, in HU."""
    field = np.full(head.depth.shape, AIR, dtype=np.float32)
    field[head.depth >= 0] = SCALP
    field[head.depth >= SKULL_OUTER_MM] = BONE
    middle = (SKULL_OUTER_MM + SKULL_INNER_MM) / 2
    field[abs(head.depth - middle) < 1.2] = DIPLOE
    inside = head.cranium
    nuclei = _ellipsoid((abs(head.x) - 24.0, head.y - 2.0, head.z), (9.0, 20.0, 14.0))
    grey = (head.inner_depth < 6.0) | ndimage.binary_dilation(head.sulci, iterations=1) | nuclei
    field[inside] = np.where(grey, GREY, WHITE)[inside] + texture[inside]
    field[inside & (abs(head.x) < 1.0) & (abs(head.y) > 48.0)] = FALX
    field[(head.sulci | head.ventricles) & inside] = CSF
    return field


def _epidural(head: _Head) -> Mask:
    """A lens: the intersection of the cranium with a ball outside it."""
    return head.cranium & _ellipsoid((head.x - head.sign * 78.0, head.y - 24.0, head.z - 2.0), (36.0, 36.0, 36.0))


def _subdural(head: _Head) -> Mask:
    """A crescent opposite the other bleeds: thick laterally, thin anteriorly and posteriorly."""
    mirrored = np.arctan2(np.sin(head.azimuth), -head.sign * np.cos(head.azimuth))
    thickness = 9.0 * np.clip(np.cos(mirrored / 1.35 * np.pi / 2), 0.0, None) * (abs(mirrored) < 1.35)
    return head.cranium & (head.inner_depth < thickness) & (abs(head.z) < 45.0)


def _intraparenchymal(head: _Head) -> Mask:
    """An ellipsoid in the basal ganglia."""
    ellipsoid = _ellipsoid((head.x - head.sign * 28.0, head.y + 10.0, head.z - 2.0), (11.0, 17.0, 14.0))
    return ellipsoid & ~head.ventricles & ~head.sulci


def _intraventricular(head: _Head) -> Mask:
    """The posterior ventricles, where blood settles in a supine patient."""
    return head.ventricles & (head.y > 8.0)


def _subarachnoid(head: _Head) -> Mask:
    """The sulci and the Sylvian fissure of one side, and the basal cistern."""
    return head.sulci & ((head.sign * head.x > 10.0) | (head.z < -22.0))


_BLEEDS: dict[Hemorrhage, Callable[[_Head], Mask]] = {
    Hemorrhage.EPIDURAL: _epidural,
    Hemorrhage.SUBDURAL: _subdural,
    Hemorrhage.INTRAPARENCHYMAL: _intraparenchymal,
    Hemorrhage.INTRAVENTRICULAR: _intraventricular,
    Hemorrhage.SUBARACHNOID: _subarachnoid,
}


def _place_bleeds(head: _Head, bleeds: frozenset[Hemorrhage]) -> PerLabel[Mask]:
    """The masks of all six labels; a voxel belongs to one type at most."""
    taken: Mask = np.zeros(head.depth.shape, dtype=np.bool_)
    masks: dict[str, Mask] = {label: np.zeros_like(taken) for label in LABELS}
    for label, shape_of in _BLEEDS.items():
        if label in bleeds:
            masks[label] = shape_of(head) & ~taken
            taken |= masks[label]
    masks[Hemorrhage.ANY] = taken
    return PerLabel.from_mapping(masks)


def _add_table(field: Field, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """Add a curved table top behind the head."""
    _, y, x = _grid(shape, spacing)
    top = 103.0 - (x / 18.0) ** 2 / 4.0
    arc = np.broadcast_to((y >= top) & (y < top + 4.0), field.shape)
    field[arc & (field == AIR)] = TABLE


def _add_marker(field: Field, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    """Add a dense rod beside the patient's left temple, in every slice."""
    _, y, x = _grid(shape, spacing)
    rod = np.broadcast_to((x - 90.0) ** 2 + (y + 40.0) ** 2 <= 16.0, field.shape)
    field[rod] = MARKER
