"""Orders slices: by position, else by Slice Location, else by instance number. File names never count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hemoscope.dicom.geometry import SAME_PLACE_MM, measured_positions
from hemoscope.dicom.slices import SliceHeader

By = Literal["position", "slice location", "instance number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedSlices:
    """Slices in anatomical order.

    Attributes:
        headers: from feet to head, or by instance number.
        places: of each slice in mm, ascending; None if instance numbers order them.
        by: what orders them; None if nothing does, and their order means nothing.
        unplaced: slices that lack what orders the others.
    """

    headers: tuple[SliceHeader, ...]
    places: tuple[float, ...] | None
    by: By | None
    unplaced: tuple[SliceHeader, ...] = ()


def tie_break(header: SliceHeader) -> tuple[float, str, str, int, str]:
    """Sort key of slices at one place; it does not depend on the order of the files."""
    number = float("inf") if header.instance_number is None else header.instance_number
    return (number, header.acquisition[1], header.sop_instance_uid, header.frame, header.source)


def in_order(headers: Sequence[SliceHeader]) -> OrderedSlices:
    """Order slices by the first of position, Slice Location and instance number that more than half of them have.

    Values that are all the same order nothing: three or more slices at one position have no position.
    """
    ways: tuple[tuple[By, list[float | None]], ...] = (
        ("position", measured_positions(headers)),
        ("slice location", [header.slice_location_mm for header in headers]),
    )
    for by, values in ways:
        placed = _placed(headers, values)
        if _usable([place for place, _ in placed], len(headers), apart=SAME_PLACE_MM):
            return _ordered(headers, [header for _, header in placed], by, tuple(place for place, _ in placed))
    numbered = sorted((header for header in headers if header.instance_number is not None), key=tie_break)
    # Without positions, the slices of two scans that count alike would take turns.
    alike = len(headers) > 2 and 2 * len({(one.instance_number, one.frame) for one in numbered}) <= len(headers)
    if not alike and _usable([header.instance_number or 0 for header in numbered], len(headers), apart=0):
        return _ordered(headers, numbered, "instance number", None)
    frames = len({header.source for header in headers}) == 1  # of one file, in its order
    return OrderedSlices(
        headers=tuple(sorted(headers, key=tie_break)), places=None, by="instance number" if frames else None
    )


def _placed(headers: Sequence[SliceHeader], values: list[float | None]) -> list[tuple[float, SliceHeader]]:
    known = [(value, header) for value, header in zip(values, headers, strict=True) if value is not None]
    return sorted(known, key=lambda one: (one[0], tie_break(one[1])))


def _usable(values: Sequence[float], count: int, *, apart: float) -> bool:
    return 2 * len(values) > count and (max(values) - min(values) > apart or count <= 2)


def _ordered(
    headers: Sequence[SliceHeader], kept: list[SliceHeader], by: By, places: tuple[float, ...] | None
) -> OrderedSlices:
    found = {id(header) for header in kept}
    unplaced = tuple(header for header in headers if id(header) not in found)
    return OrderedSlices(headers=tuple(kept), places=places, by=by, unplaced=unplaced)
