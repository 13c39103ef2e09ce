"""Writes a phantom, or an array of Hounsfield units, as a folder of CT images."""

from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from hemoscope.testing.ct_image import Acquisition, ct_dataset, stable_uid
from hemoscope.testing.enhanced_ct import enhanced_ct_dataset
from hemoscope.testing.phantom import Phantom
from hemoscope.testing.pixel_coding import Hounsfield, PixelCoding

__all__ = ["Acquisition", "PixelCoding", "ct_dataset", "enhanced_ct_dataset", "save", "stable_uid", "write_series"]


def save(dataset: Dataset, path: Path) -> Path:
    """Write one object as a DICOM file (PS3.10) in the transfer syntax of its file meta information."""
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return path


def write_series(
    head: Phantom | Hounsfield,
    folder: Path,
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] | None = None,
    coding: PixelCoding | None = None,
    acquisition: Acquisition | None = None,
    enhanced: bool = False,
) -> tuple[Path, ...]:
    """Write a head as one CT series, one file per slice; ``IM0001.dcm`` is the most inferior.

    Args:
        head: a phantom, or HU of shape (slices, rows, columns) from feet to head.
        folder: created if missing.
        seed: of the UIDs; series of one seed and different ``acquisition.series_number`` share a study.
        spacing_mm: between slices, rows and columns; the phantom's own by default, else 5 x 0.5 x 0.5 mm.
        coding: of the pixels.
        acquisition: header values.
        enhanced: write one multi-frame Enhanced CT object, ``IM0001.dcm``, instead of one file per slice.

    Returns:
        The files in anatomical order, from feet to head.

    Raises:
        ValueError: if the bits of ``coding`` cannot hold the HU.
    """
    volume = head.hounsfield if isinstance(head, Phantom) else head
    spacing = spacing_mm or (head.spacing_mm if isinstance(head, Phantom) else (5.0, 0.5, 0.5))
    coding, acquisition = coding or PixelCoding(), acquisition or Acquisition()
    folder.mkdir(parents=True, exist_ok=True)
    if enhanced:
        whole = enhanced_ct_dataset(volume, seed=seed, spacing_mm=spacing, coding=coding, acquisition=acquisition)
        return (save(whole, folder / "IM0001.dcm"),)
    one = partial(ct_dataset, seed=seed, spacing_mm=spacing, coding=coding, acquisition=acquisition)
    return tuple(
        save(one(volume[index], index=index, position_mm=tuple(position)), folder / f"IM{index + 1:04d}.dcm")
        for index, position in enumerate(acquisition.positions(volume.shape, spacing))
    )
