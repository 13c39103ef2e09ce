"""Volumes from the slices of a series: one of all, one of each grid where there are several, and one of some slices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.geometry import known_positions, spacing_mm
from hemoscope.dicom.grids import is_on_grid, origin_on_grid
from hemoscope.dicom.slices import SliceHeader
from hemoscope.volume import HounsfieldVolume


def series_volume(slices: Sequence[SliceHeader], hounsfield: NDArray[np.int16], grid: SliceHeader) -> HounsfieldVolume:
    """Return the volume of slices on one grid: HU of shape (slices, rows, columns), in the order of the headers."""
    positions = known_positions(slices)
    usable = positions is not None and (len(slices) == 1 or len(set(positions)) > 1)
    rows_mm, columns_mm = grid.pixel_spacing_mm or (None, None)
    return HounsfieldVolume(
        hounsfield=hounsfield,
        spacing_mm=(spacing_mm(positions) if usable and positions else None, rows_mm, columns_mm),
        positions_mm=tuple(positions) if usable and positions else (None,) * len(slices),
        orientation=grid.orientation,
        origins_mm=_origins(slices, grid) if usable else None,
        thickness_mm=tuple(header.slice_thickness_mm for header in slices),
        aspect_ratio=grid.pixel_aspect,
    )


def native_stacks(
    slices: Sequence[SliceHeader], volume: HounsfieldVolume, stored: Mapping[int, NDArray[np.int16] | None]
) -> tuple[tuple[HounsfieldVolume, tuple[int, ...]], ...]:
    """Return the stacks of each grid with their places in the volume; ``stored`` is None for slices on its grid."""
    groups: list[list[int]] = []
    for place, header in enumerate(slices):
        fitting = next((group for group in groups if is_on_grid(header, slices[group[0]])), None)
        if fitting is None:
            groups.append([place])
        else:
            fitting.append(place)
    if len(groups) < 2:
        return ()
    return tuple(
        (
            series_volume(
                [slices[place] for place in group],
                np.stack([volume.hounsfield[place] if (own := stored[place]) is None else own for place in group]),
                slices[group[0]],
            ),
            tuple(group),
        )
        for group in groups
    )


def volume_part(volume: HounsfieldVolume, kept: Sequence[int]) -> HounsfieldVolume:
    """Return a volume of some slices, by their indices in order."""
    places = [volume.positions_mm[index] for index in kept]
    known = [place for place in places if place is not None]
    return replace(
        volume,
        hounsfield=volume.hounsfield[kept],
        spacing_mm=(spacing_mm(known) if len(known) == len(places) else None, *volume.spacing_mm[1:]),
        positions_mm=tuple(places),
        origins_mm=None if volume.origins_mm is None else tuple(volume.origins_mm[index] for index in kept),
        thickness_mm=None if volume.thickness_mm is None else tuple(volume.thickness_mm[index] for index in kept),
    )


def _origins(slices: Sequence[SliceHeader], grid: SliceHeader) -> tuple[tuple[float, float, float], ...] | None:
    found = (origin_on_grid(header, grid) for header in slices)
    known = tuple(origin for origin in found if origin is not None)
    return known if len(known) == len(slices) else None
