"""Heads out as DICOM: a phantom, a volume or an array of Hounsfield units becomes a folder of CT images."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from hemoscope.data.ct_image import Acquisition, ct_dataset, made_uid
from hemoscope.data.phantom import Phantom
from hemoscope.data.pixel_coding import PixelCoding

__all__ = ["Acquisition", "PixelCoding", "ct_dataset", "made_uid", "save", "write_series"]


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
    head: Phantom | NDArray[np.generic],
    folder: Path,
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] | None = None,
    coding: PixelCoding | None = None,
    acquisition: Acquisition | None = None,
) -> tuple[Path, ...]:
    """Write a head as one CT series, one file a slice, ``IM0001.dcm`` being the lowest.

    Args:
        head: a phantom, or HU of shape (slices, rows, columns) from feet to head.
        folder: made if it is not there.
        seed: gives the UIDs; series of one seed and different ``acquisition.series_number`` share a study.
        spacing_mm: between slices, rows and columns; the phantom's own by default, else 5 x 0.5 x 0.5 mm.
        coding: how the pixels are stored.
        acquisition: what the headers say.

    Returns:
        The files in anatomical order, from feet to head.
    """
    volume = head.hounsfield if isinstance(head, Phantom) else head
    spacing = spacing_mm or (head.spacing_mm if isinstance(head, Phantom) else (5.0, 0.5, 0.5))
    coding, acquisition = coding or PixelCoding(), acquisition or Acquisition()
    positions = acquisition.positions(volume.shape, spacing)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, position in enumerate(positions):
        dataset = ct_dataset(
            volume[index],
            seed=seed,
            index=index,
            position_mm=tuple(position),
            spacing_mm=spacing,
            coding=coding,
            acquisition=acquisition,
        )
        paths.append(save(dataset, folder / f"IM{index + 1:04d}.dcm"))
    return tuple(paths)
