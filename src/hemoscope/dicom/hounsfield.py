"""Converts stored values to Hounsfield units (HU): rescale or Modality LUT, padding, and the 12-bit repair.

Arrays have shape (rows, columns). ``to_hounsfield`` equals pydicom's ``apply_modality_lut``; padding and repair
follow and are reported.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom import tags
from hemoscope.dicom.elements import Elements
from hemoscope.dicom.pixels import PixelFormat, Stored
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import QualityNote

AIR = -1000.0

# No CT scanner exceeds these limits; they keep malicious numbers from overflowing float32.
_STEEPEST = 1e4
_FARTHEST = 1e6
_HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")
_TISSUE = (-200.0, 300.0)
# Values of a CT slice reach from air to bone; those of a picture only through the window that was displayed.
_CT_SPAN = (-900.0, 300.0)
# Fresh blood is about 30 HU above white matter; a step above half of that hides it.
_COARSE_STEP = 16.0

# The 12-bit repair: -1000 HU is stored as 3096; the noise of air extends this much lower; metal has such a rim.
_LOWEST_WRAPPED = 4096 - 1000
_AIR_NOISE = 124
_METAL_RIM = 2000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescale:
    """HU = slope * stored + intercept (PS3.3 C.11.1)."""

    slope: float
    intercept: float

    def apply(self, stored: Stored) -> NDArray[np.float32]:
        """Return HU as a new float32 array."""
        scaled = stored.astype(np.float64)
        scaled *= self.slope
        scaled += self.intercept
        return scaled.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityLUT:
    """HU = ``table[stored - first]``; values outside the table use its ends (PS3.3 C.11.1.1)."""

    first: int
    table: NDArray[np.float32]

    def apply(self, stored: Stored) -> NDArray[np.float32]:
        """Return HU as a new float32 array."""
        index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.table) - 1)
        return self.table[index]


Transform = Rescale | ModalityLUT


@dataclass(frozen=True, slots=True, kw_only=True)
class HounsfieldRule:
    """Conversion of one frame's stored values to HU; ``padding`` is the lowest and highest stored padding value."""

    transform: Transform
    padding: tuple[int, int] | None
    modified: bool = False


def read_rule(group: Elements | None, whole: Elements, pixels: PixelFormat, source: str) -> HounsfieldRule:
    """Read the rule of one frame from its functional group if there is one, else from the data set.

    Args:
        group: the item of the Pixel Value Transformation Sequence of this frame, or None.
        whole: the data set.
        pixels: the pixel format, which gives the padding value its sign.
        source: the input's name, for errors.

    Raises:
        DicomReadError: ``no_rescale`` if neither rescale nor Modality LUT gives HU.
    """
    holder = group if group is not None else whole
    table = holder.item(tags.MODALITY_LUT_SEQUENCE)
    kind = (table.text(tags.MODALITY_LUT_TYPE) if table is not None else holder.text(tags.RESCALE_TYPE)).upper()
    if kind not in _HOUNSFIELD_TYPES:
        raise refusal(source, "no_rescale", "the rescale type (0028,1054) is not HU")
    transform: Transform = _read_table(table, pixels, source) if table is not None else _read_rescale(holder, source)
    return HounsfieldRule(transform=transform, padding=_read_padding(whole, pixels), modified=kind == "HU_MOD")


def _read_rescale(holder: Elements, source: str) -> Rescale:
    slope, intercept = holder.decimal(tags.RESCALE_SLOPE), holder.decimal(tags.RESCALE_INTERCEPT)
    if slope is None or intercept is None:
        missing = "(0028,1053) Rescale Slope" if slope is None else "(0028,1052) Rescale Intercept"
        raise refusal(source, "no_rescale", f"{missing} is missing or not a number")
    if not 0 < abs(slope) <= _STEEPEST or abs(intercept) > _FARTHEST:
        raise refusal(source, "no_rescale", f"rescale slope {slope:g} and intercept {intercept:g} give no HU")
    return Rescale(slope=slope, intercept=intercept)


def _read_table(table: Elements, pixels: PixelFormat, source: str) -> ModalityLUT:
    descriptor = table.words(tags.LUT_DESCRIPTOR)
    if descriptor is None or len(descriptor) != 3 or descriptor[2] not in (8, 16):
        raise refusal(source, "no_rescale", "the LUT descriptor (0028,3002) of the Modality LUT is invalid")
    length = descriptor[0] or 1 << 16
    first = descriptor[1] - (1 << 16) if pixels.signed and descriptor[1] >= 1 << 15 else descriptor[1]
    values = table.words(tags.LUT_DATA)
    if values is None or len(values) < length:
        found = len(values) if values else 0
        raise refusal(source, "no_rescale", f"the Modality LUT should have {length} entries but has {found}")
    return ModalityLUT(first=first, table=np.asarray(values[:length], dtype=np.float32))


def check_is_no_picture(rule: HounsfieldRule, pixels: PixelFormat, source: str) -> None:
    """Refuse 8-bit values that cannot hold both air and bone: a picture of a displayed window.

    Raises:
        DicomReadError: ``picture``.
    """
    if pixels.bits_stored > 8:
        return
    low, high = (-128, 127) if pixels.signed else (0, 2**pixels.bits_stored - 1)
    ends = rule.transform.apply(np.arange(low, high + 1, dtype=np.int16))
    if ends.min() > _CT_SPAN[0] or ends.max() < _CT_SPAN[1]:
        reason = f"8-bit values from {ends.min():g} to {ends.max():g}, a picture of a display window"
        raise refusal(source, "picture", reason)


def _read_padding(whole: Elements, pixels: PixelFormat) -> tuple[int, int] | None:
    """Read padding value and range (0028,0120), (0028,0121), with the sign of the pixels regardless of their VR."""
    value = whole.word(tags.PIXEL_PADDING_VALUE, signed=pixels.signed)
    if value is None:
        return None
    limit = whole.word(tags.PIXEL_PADDING_RANGE_LIMIT, signed=pixels.signed)
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def to_hounsfield(
    stored: Stored, rule: HounsfieldRule, pixels: PixelFormat
) -> tuple[NDArray[np.float32], tuple[QualityNote, ...]]:
    """Return HU with padding as air and, if needed, the 12-bit repair, and notes on what was done."""
    notes: list[QualityNote] = []
    hounsfield = rule.transform.apply(stored)
    padded = _padded(stored, rule.padding)
    if may_need_twelve_bit_repair(rule.transform, pixels):
        repaired = repair_twelve_bits(stored)
        if _more_plausible(repaired, hounsfield, padded):
            hounsfield = repaired
            message = "12-bit values had wrapped below zero; they were repaired (stored + 1000, modulo 4096)"
            notes.append(QualityNote(code="twelve_bit_repair", message=message))
    if padded is not None:
        notes += _note_padding_in_tissue(hounsfield, padded)
        hounsfield[padded] = AIR
    if isinstance(rule.transform, Rescale) and abs(rule.transform.slope) > _COARSE_STEP:
        message = (
            f"one step of the stored values is {abs(rule.transform.slope):.0f} HU, too coarse to tell blood from brain"
        )
        notes.append(QualityNote(code="coarse_hounsfield", message=message))
    if rule.modified:
        notes.append(QualityNote(code="modified_hounsfield", message="the file declares its units as modified HU"))
    return hounsfield, tuple(notes)


def _padded(stored: Stored, padding: tuple[int, int] | None) -> NDArray[np.bool_] | None:
    if padding is None:
        return None
    mask = (stored >= padding[0]) & (stored <= padding[1])
    return mask if mask.any() else None


def _note_padding_in_tissue(hounsfield: NDArray[np.float32], padded: NDArray[np.bool_]) -> list[QualityNote]:
    value = float(hounsfield[padded][0])
    if not _TISSUE[0] < value < _TISSUE[1]:
        return []
    message = f"the padding value (0028,0120) stands for {value:.0f} HU, which tissue also has; it was read as air"
    return [QualityNote(code="padding_in_tissue", message=message)]


def may_need_twelve_bit_repair(transform: Transform, pixels: PixelFormat) -> bool:
    """Whether a header is of the kind known to be wrong: 12 bits, unsigned, slope 1, intercept above -100."""
    return (
        isinstance(transform, Rescale)
        and pixels.bits_stored == 12
        and not pixels.signed
        and transform.slope == 1
        and transform.intercept > -100
    )


def repair_twelve_bits(stored: Stored) -> NDArray[np.float32]:
    """Return HU of 12-bit values that wrapped below zero: (stored + 1000, modulo 4096) - 1000.

    Some scanners stored HU in 12 unsigned bits without an intercept: -1000 became 3096. Two cases depend on the
    surrounding pixels. Metal has such values too: a region whose rim is above 2000 HU on average is left unchanged,
    because values rise next to metal, while they fall through zero next to air in the body. And the noise of air
    extends below -1000: such pixels are repaired too if they touch wrapped ones.
    """
    from scipy import ndimage

    hounsfield = stored.astype(np.float32)
    labels, count = ndimage.label(stored >= _LOWEST_WRAPPED - _AIR_NOISE, structure=np.ones((3, 3), dtype=bool))
    rim = np.where(labels == 0, ndimage.maximum_filter(labels, size=3), 0).ravel()
    sizes = np.bincount(rim, minlength=count + 1)
    means = np.bincount(rim, weights=hounsfield.ravel(), minlength=count + 1) / np.maximum(sizes, 1)
    touched = np.bincount(labels.ravel(), weights=(stored >= _LOWEST_WRAPPED).ravel(), minlength=count + 1) > 0
    back = touched & ~(means > _METAL_RIM)
    back[0] = False
    hounsfield[back[labels]] -= 4096
    return hounsfield


def _more_plausible(
    repaired: NDArray[np.float32], original: NDArray[np.float32], padded: NDArray[np.bool_] | None
) -> bool:
    """Whether the image border shows air near -1000 HU after the repair but not before."""
    width = max(1, min(repaired.shape) // 16)
    border = np.ones(repaired.shape, dtype=bool)
    border[width:-width, width:-width] = False
    if padded is not None:
        border &= ~padded
    if not border.any():
        return False
    before = float(np.mean(np.abs(original[border] - AIR) < 150))
    after = float(np.mean(np.abs(repaired[border] - AIR) < 150))
    return after >= 0.2 and after > before + 0.1
