"""Finds slices of the same scan in other series: scanners may write each tilt, or each half of a head, as a series.

Such series are not united, since a result names one series: the study is incomplete, and says so.
"""

from collections.abc import Hashable

import numpy as np

from hemoscope.dicom.acquisitions import APART, extents_mm
from hemoscope.dicom.geometry import measured_positions
from hemoscope.dicom.quality import is_other_anatomy
from hemoscope.dicom.ranking import plane_of
from hemoscope.dicom.series import Series, Study
from hemoscope.dicom.slices import SliceHeader, UnreadSlices
from hemoscope.dicom.wording import counted

__all__ = ["rest_in_other_series"]

_NEAR_MM = 30.0  # as for stacks of one series
# No head with its holder is higher: what reaches farther is a neck or a spine.
_HIGHEST_MM = 250.0
_MOSTLY = 0.5


def _slices(series: Series) -> str:
    return counted(len(series), "slice")


def rest_in_other_series(study: Study, chosen: Series) -> tuple[UnreadSlices, ...]:
    """Return the slices of other series that show what the chosen series does not, of the same scan and head."""
    found = [
        UnreadSlices(
            code="other_series",
            message=f"another series of {_slices(series)} shows a part of the head that this one does not",
            count=count,
        )
        for series in study.series
        if series is not chosen and (count := _beyond(series, chosen))
    ]
    return tuple(found)


def _scan(header: SliceHeader) -> Hashable:
    return (
        header.frame_of_reference_uid,
        header.convolution_kernel,
        header.image_type[:2],
        header.kind,
        header.contrast_agent is None,
    )


def _beyond(series: Series, chosen: Series) -> int:
    """Return how many slices of a series lie beside those of the chosen one; 0 if it is of another scan."""
    mine, theirs = series.headers, chosen.headers
    same = _scan(mine[0]) == _scan(theirs[0]) and mine[0].frame_of_reference_uid is not None
    if not same or plane_of(mine) != "axial" or is_other_anatomy(mine[0]):
        return 0
    places = [place for place in measured_positions([*mine, *theirs]) if place is not None]
    if len(places) < len(mine) + len(theirs) or np.ptp(places) > _HIGHEST_MM:
        return 0
    here, there = places[: len(mine)], places[len(mine) :]
    distances = np.abs(np.subtract.outer(here, there))
    least = APART * np.add.outer(extents_mm(mine, here), extents_mm(theirs, there)) / 2
    beside = (distances >= least).all(axis=1)
    near = float(distances.min()) <= _NEAR_MM
    return int(beside.sum()) if near and float(beside.mean()) > _MOSTLY else 0
