"""A volume without DICOM headers becomes a decoded series, so that the rest of the chain needs no second way."""

import hashlib
import uuid

import numpy as np

from hemoscope.dicom.archive import DecodedSeries
from hemoscope.dicom.geometry import normal
from hemoscope.dicom.quality import series_notes
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.volume import HounsfieldVolume

_NO_HEADERS = QualityNote(
    code="no_dicom_headers",
    message="read without DICOM headers: kernel, tube voltage, contrast agent and body part are unknown",
)


def series_of_volume(volume: HounsfieldVolume, *, source: str = "volume") -> DecodedSeries:
    """Describe a volume as one file of many frames, one frame a slice.

    UIDs are made from the voxels and their places (PS3.5 B.2): the same volume always has the same ones.

    Args:
        volume: slices from feet to head.
        source: the input as the user may see it, never an absolute path.
    """
    rows, columns = volume.hounsfield.shape[1:]
    rows_mm, columns_mm = volume.spacing_mm[1:]
    study, series, instance = _uids(volume)
    headers = tuple(
        SliceHeader(
            source=source,
            frame=index,
            sop_instance_uid=instance,
            study_instance_uid=study,
            series_instance_uid=series,
            rows=rows,
            columns=columns,
            pixel_spacing_mm=(rows_mm, columns_mm) if rows_mm is not None and columns_mm is not None else None,
            position_mm=_origin(volume, index),
            orientation=_orientation(volume),
            slice_thickness_mm=volume.slice_spacing_mm,
        )
        for index in range(len(volume))
    )
    return DecodedSeries(
        volume=volume,
        slices=headers,
        slice_quality=((),) * len(volume),
        quality=(*series_notes(headers), _NO_HEADERS),
        rejected=(),
    )


def _origin(volume: HounsfieldVolume, index: int) -> tuple[float, float, float] | None:
    """Return the place of a slice's first pixel; a volume that knows the place along the normal alone gives that."""
    if volume.origins_mm is not None:
        return volume.origins_mm[index]
    position, orientation = volume.positions_mm[index], volume.orientation
    if position is None or orientation is None:
        return None
    x, y, z = normal(orientation)
    return (position * x, position * y, position * z)


def _orientation(volume: HounsfieldVolume) -> tuple[float, float, float, float, float, float] | None:
    if volume.orientation is None:
        return None
    a, b, c, d, e, f = volume.orientation
    return (a, b, c, d, e, f)


def _uids(volume: HounsfieldVolume) -> tuple[str, str, str]:
    """Study, series and instance UID."""
    digest = hashlib.sha256(np.ascontiguousarray(volume.hounsfield).data)
    digest.update(repr((volume.hounsfield.shape, volume.spacing_mm, volume.origins_mm)).encode())
    study, series, instance = (
        f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'hemoscope {level} {digest.hexdigest()}').int}"
        for level in ("study", "series", "instance")
    )
    return study, series, instance
