"""NIfTI in and out: head CT in Hounsfield units, in any orientation, as a volume of axial slices and back.

A volume's axes are (slice, row, column), feet to head, front to back, the patient's right to left: the axes of an axial
DICOM series. NIfTI orders them (column, row, slice) and measures in RAS. nibabel is in the extra ``nifti``.
"""

import gzip
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import MissingExtraError, NiftiError
from hemoscope.files import write_bytes
from hemoscope.volume import HounsfieldVolume

_Image = Any  # nibabel.Nifti1Image, most of whose methods have no types
MAX_VOXELS = 1 << 28
SUFFIXES = (".nii", ".nii.gz")

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LENGTH_BITS = 7
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by the unit's code: unknown, metre, millimetre, micrometre
_PIXEL_MM = (0.05, 10.0)
_AIR, _AIR_AT_MOST, _BONE_AT_LEAST = -1000, -500.0, 300.0
_SHEARED = 0.005  # cosine between two axes
_PADDING_BELOW = -1500.0  # no tissue, and less than the noise of air: what scanners write outside their field of view
_SHEAR = 0.01  # cosine between rows and columns; half a degree
_OBLONG = 1.2
_CONVERT = "Convert the DICOM series again, for example with: dcm2niix -z y FOLDER"
_READ_ERRORS = (OSError, EOFError, ValueError, OverflowError, zlib.error)
_INT16 = np.iinfo(np.int16)


def is_nifti(path: Path) -> bool:
    """Whether a path is named as NIfTI: ``.nii`` or ``.nii.gz``, in any case."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: str | Path, *, max_voxels: int = MAX_VOXELS) -> HounsfieldVolume:
    """Read a head CT in Hounsfield units from a NIfTI file, whatever its orientation.

    Axes are flipped and exchanged, never resampled, so that slices are axial and run from feet to head, rows from front
    to back and columns from the patient's right to left. The sform gives the place of a voxel, else the qform. A
    sheared affine is read as a gantry tilt. Values below -1500 HU are padding and become air (-1000 HU).

    Args:
        path: a ``.nii`` or ``.nii.gz`` file of NIfTI-1 or NIfTI-2.
        max_voxels: largest number of voxels to read, checked before anything is inflated.

    Raises:
        NiftiError: it is no such file, is damaged or too large; has more than three axes, colours or no orientation;
            its slices are not axial; or its values are no Hounsfield units of a head with air and bone around it.
        MissingExtraError: nibabel is not installed.

    Examples:
        >>> read_nifti("head.txt")
        Traceback (most recent call last):
        ...
        hemoscope.errors.NiftiError: head.txt: not named .nii or .nii.gz. Give a NIfTI file with one of these suffixes
    """
    path = Path(path)
    if not is_nifti(path):
        raise _refused(path, "not named .nii or .nii.gz", "Give a NIfTI file with one of these suffixes")
    with np.errstate(all="ignore"):  # what a damaged header makes infinite is refused, not warned of
        image = _load(path)
        _check_layout(path, image, max_voxels)
        order, affine = _axial(path, image)
        hounsfield = _hounsfield(path, image, order)
    return _volume(path, hounsfield, affine)


def write_nifti(
    path: str | Path, values: NDArray[np.int16] | NDArray[np.float32], affine: NDArray[np.float64], *, note: str = ""
) -> None:
    """Write values of shape (slices, rows, columns) with the affine of their transpose, as ``HounsfieldVolume`` has it.

    Args:
        path: ends in ``.nii`` or ``.nii.gz``; an existing file is replaced.
        values: HU or a heat map.
        affine: from ``values.T`` to RAS in mm, shape (4, 4).
        note: at most 79 ASCII characters for the header's description.

    Raises:
        NiftiError: the name has another suffix, or the file cannot be written.
        MissingExtraError: nibabel is not installed.
    """
    nib = _nibabel()
    path = Path(path)
    if not is_nifti(path):
        raise _refused(path, "not named .nii or .nii.gz", "Give the file one of these suffixes")
    image = nib.Nifti1Image(np.ascontiguousarray(values.T), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = note.encode("ascii", "replace")[:79]
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner", strip_shears=True)
    content = image.to_bytes()
    try:
        write_bytes(path, gzip.compress(content, 6, mtime=0) if path.suffix.lower() == ".gz" else content)
    except OSError as error:
        raise _refused(path, f"cannot be written ({error.strerror or error})", "Choose another folder") from error


def _nibabel() -> Any:
    if find_spec("nibabel") is None:
        raise MissingExtraError(package="nibabel", extra="nifti")
    import nibabel

    return nibabel


def _refused(path: Path, reason: str, remedy: str) -> NiftiError:
    return NiftiError(f"{path.name}: {reason}. {remedy}")


def _load(path: Path) -> _Image:
    """Read the header; nothing of the voxels is read or inflated yet."""
    nib = _nibabel()
    if not path.is_file():
        raise _refused(path, "no such file", "Check the path")
    try:
        image = nib.load(path)
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, *_READ_ERRORS) as error:
        raise _refused(path, f"no readable NIfTI file ({type(error).__name__})", _CONVERT) from error
    if not isinstance(image, nib.Nifti1Image):
        raise _refused(path, "no NIfTI file", _CONVERT)
    return image


def _check_layout(path: Path, image: _Image, max_voxels: int) -> None:
    shape, dtype = image.shape, image.get_data_dtype()
    if len(shape) < 3 or any(count != 1 for count in shape[3:]) or min(shape) < 1:
        raise _refused(path, f"shape {shape}, expected one volume of three axes", "Give one volume in each file")
    if (voxels := int(np.prod(shape, dtype=np.int64))) > max_voxels:
        raise _refused(path, f"{voxels} voxels, the limit max_voxels is {max_voxels}", "If it is genuine, raise it")
    if dtype.kind not in "iuf":
        raise _refused(path, f"values of type {dtype}, expected one number a voxel", _CONVERT)
    header = image.header
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise _refused(path, "neither sform nor qform says which side is left", _CONVERT)
    if int(header["xyzt_units"]) & _LENGTH_BITS not in _MM:
        raise _refused(path, "lengths in an unknown unit", "Write the file with millimetres")


def _axial(path: Path, image: _Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how axes are exchanged and flipped to LPS, and the affine after it, in LPS and mm."""
    orientations = _nibabel().orientations
    affine = _checked_affine(path, image)
    found = orientations.io_orientation(affine)
    if np.isnan(found).any():
        raise _refused(path, "its affine is nearly singular", _CONVERT)
    wanted = orientations.axcodes2ornt(("L", "P", "S"))
    order = orientations.ornt_transform(found, wanted)
    reordered = affine @ orientations.inv_ornt_aff(order, image.shape[:3])
    columns, rows = (_RAS_TO_LPS @ reordered)[:3, :2].T
    column_mm, row_mm = float(np.linalg.norm(columns)), float(np.linalg.norm(rows))
    if not _PIXEL_MM[0] <= min(column_mm, row_mm) <= _PIXEL_MM[1]:
        raise _refused(path, f"pixels of {row_mm:.3g} x {column_mm:.3g} mm are none of a head", "Correct the unit")
    if max(column_mm, row_mm) > _OBLONG * min(column_mm, row_mm):
        reason = f"axial pixels of {row_mm:.2f} x {column_mm:.2f} mm: its slices were not axial"
        raise _refused(path, reason, "Convert the axial series")
    if abs(columns @ rows) > _SHEAR * column_mm * row_mm:
        raise _refused(path, "rows and columns are not at right angles", "Resample it to an orthogonal grid")
    return np.asarray(order), np.asarray(_RAS_TO_LPS @ reordered, dtype=np.float64)


def _checked_affine(path: Path, image: _Image) -> NDArray[np.float64]:
    """Return the affine to RAS in mm.

    A singular one places nothing; a qform that contradicts the sform leaves the side of a bleed open.
    """
    header = image.header
    affine = np.array(image.affine, dtype=np.float64)
    scale = _MM[int(header["xyzt_units"]) & _LENGTH_BITS]
    affine[:3] *= scale
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise _refused(path, "its affine is singular or not finite", _CONVERT)
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        try:
            forms = header.get_sform(), header.get_qform()
        except ValueError as error:
            raise _refused(path, "its qform is no rotation", _CONVERT) from error
        sides = {_nibabel().aff2axcodes(form) for form in forms}
        if len(sides) > 1:
            shown = " and ".join(sorted("".join(map(str, codes)) for codes in sides))
            raise _refused(path, f"sform and qform contradict each other ({shown})", "Correct one of them")
    return _with_voxel_sizes(affine, np.array(header.get_zooms()[:3]) * scale)


def _with_voxel_sizes(affine: NDArray[np.float64], sizes_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the axes of a sheared affine the lengths of pixdim, the size of a voxel (NIfTI-1 standard).

    For a tilted gantry, dcm2niix writes an sform whose in-plane axis is longer than its voxels.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / lengths
    angles = np.abs(axes.T @ axes - np.eye(3))
    if angles.max() < _SHEARED or not (np.isfinite(sizes_mm).all() and (sizes_mm > 0).all()):
        return affine
    changed = affine.copy()
    changed[:3, :3] = axes * sizes_mm
    return changed


def _hounsfield(path: Path, image: _Image, order: NDArray[np.float64]) -> NDArray[np.int16]:
    """Whole HU as int16 (slices, rows, columns), scaled by scl_slope and scl_inter, slice after slice."""
    try:
        stored = np.asarray(image.dataobj.get_unscaled())
    except _READ_ERRORS as error:
        raise _refused(path, f"its voxels cannot be read ({type(error).__name__})", "Copy it again") from error
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    slices = _nibabel().orientations.apply_orientation(stored.reshape(image.shape[:3]), order).T
    hounsfield = np.empty(slices.shape, dtype=np.int16)
    lowest, highest = np.inf, -np.inf
    for index, one in enumerate(slices):
        scaled = one.astype(np.float64) * slope + intercept
        if not np.isfinite(scaled).all():
            raise _refused(path, "values that are not finite", "Replace them by air, -1000 HU")
        scaled[scaled < _PADDING_BELOW] = _AIR
        lowest, highest = min(lowest, float(scaled.min())), max(highest, float(scaled.max()))
        hounsfield[index] = np.clip(np.rint(scaled), _INT16.min, _INT16.max)
    if lowest > _AIR_AT_MOST or highest < _BONE_AT_LEAST:
        reason = f"values from {lowest:g} to {highest:g}; a head CT in Hounsfield units has air (about -1000) and bone"
        raise _refused(path, reason, "Give the whole head in Hounsfield units, without window, mask or normalisation")
    return hounsfield


def _volume(path: Path, hounsfield: NDArray[np.int16], affine: NDArray[np.float64]) -> HounsfieldVolume:
    """``affine`` is that of ``hounsfield.T``, in LPS and mm."""
    columns, rows, step, origin = affine[:3].T
    column_mm, row_mm = float(np.linalg.norm(columns)), float(np.linalg.norm(rows))
    row_direction, column_direction = columns / column_mm, rows / row_mm
    normal = np.cross(row_direction, column_direction)
    origins = origin + np.arange(len(hounsfield))[:, None] * step
    spacing = float(step @ normal)
    if len(hounsfield) > 1 and spacing <= 0:
        raise _refused(path, "slices lie in one plane", _CONVERT)
    return HounsfieldVolume(
        hounsfield=hounsfield,
        spacing_mm=(spacing if len(hounsfield) > 1 else None, row_mm, column_mm),
        positions_mm=_floats(origins @ normal),
        orientation=(*_floats(row_direction), *_floats(column_direction)),
        origins_mm=tuple((x, y, z) for x, y, z in origins.tolist()),
    )


def _floats(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
