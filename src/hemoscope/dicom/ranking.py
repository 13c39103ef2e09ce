"""The rule by which series, and overlapping stacks of one series, are preferred: a sort key, and words for it."""

from collections.abc import Sequence

from hemoscope.dicom.geometry import known_positions, plane, spacing_mm
from hemoscope.dicom.quality import HEAD_MM, HEAD_SLICES, covered_mm, is_other_anatomy, is_sharp_kernel
from hemoscope.dicom.slices import SliceHeader

_THICK_MM = (2.0, 6.0)

# Why slices rank behind others, in the order of the values of ``preference``.
REASONS = (
    "a projection or a computed image",
    "orientation unknown",
    "its slices cannot be ordered",
    "contrast agent",
    "bone kernel",
    "its body part is not the head",
    "covers less than a head",
    "thinner or thicker slices than preferred",
    "fewer slices",
)


def preference(headers: Sequence[SliceHeader], *, ordered: bool = True) -> tuple[float, ...]:
    """Return the rule of ``choose_series`` as a sort key: the smallest wins. Values match ``REASONS``."""
    thickness = _thickness(headers)
    preferred = thickness is not None and _THICK_MM[0] <= thickness <= _THICK_MM[1]
    thickness_class = 0 if preferred else 1 if thickness is not None and thickness < _THICK_MM[0] else 2
    return (
        max(header.kind.rank for header in headers),
        plane_of(headers) is None,
        not ordered,
        any(header.contrast_agent is not None for header in headers),
        any(is_sharp_kernel(header.convolution_kernel, header.series_description) for header in headers),
        any(is_other_anatomy(header) for header in headers),
        not covers_head(headers),
        thickness_class,
        -len(headers),
    )


def plane_of(headers: Sequence[SliceHeader]) -> str | None:
    """Return the plane nearest to the first slice, or None if its orientation is unknown."""
    orientation = headers[0].orientation
    return plane(orientation) if orientation is not None else None


def covers_head(headers: Sequence[SliceHeader]) -> bool:
    """Whether slices cover ``HEAD_MM``, or are ``HEAD_SLICES`` if positions are unknown."""
    covered = covered_mm(headers)
    return len(headers) >= HEAD_SLICES if covered is None else covered >= HEAD_MM


def _thickness(headers: Sequence[SliceHeader]) -> float | None:
    positions = known_positions(headers)
    return headers[0].slice_thickness_mm or (spacing_mm(positions) if positions else None)
