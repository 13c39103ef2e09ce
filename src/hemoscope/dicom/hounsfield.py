"""Converts stored values to Hounsfield units (HU): rescale or Modality LUT, padding, and the 12-bit repair.

Arrays have shape (rows, columns). ``to_hounsfield`` equals pydicom's ``apply_modality_lut``; padding and repair
follow and are reported.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom import tags
from hemoscope.dicom.elements import Elements
from hemoscope.dicom.pixels import PixelFormat, Stored, Words, stored_values
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import QualityNote

AIR = -1000.0

# No CT scanner exceeds these limits; they keep malicious numbers from overflowing float32.
_STEEPEST = 1e4
_FARTHEST = 1e6
_INT16 = np.iinfo(np.int16)
_WHOLE_FLOAT32 = 2.0**24  # float32 holds every whole number up to here
_HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "US")
_TISSUE = (-200.0, 300.0)
_PADDING_VALUES = 2  # outside the circle of reconstruction, and beyond what was cut off
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
        if self._is_exact(stored):
            exact = stored.astype(np.float32)
            exact *= np.float32(self.slope)
            exact += np.float32(self.intercept)
            return exact
        scaled = stored.astype(np.float64)
        scaled *= self.slope
        scaled += self.intercept
        return scaled.astype(np.float32)

    def _is_exact(self, stored: Stored) -> bool:
        """Whether float32 holds each step without rounding: whole numbers, as in nearly every file."""
        if not (float(self.slope).is_integer() and float(self.intercept).is_integer() and stored.size):
            return False
        reach = max(abs(int(stored.min())), abs(int(stored.max())))
        return reach * abs(self.slope) + abs(self.intercept) <= _WHOLE_FLOAT32


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
    """Conversion of one frame's stored values to HU; ``padding`` is the padding value and the limit of its range."""

    transform: Transform
    padding: tuple[int, int] | None
    modified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Padded:
    """Masks of padding: its exact value, the values of its range, and words beyond the stored bits."""

    exact: NDArray[np.bool_]
    in_range: NDArray[np.bool_]
    beyond: NDArray[np.bool_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self.in_range | self.beyond


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
    return value, value if limit is None else limit


def to_hounsfield(
    words: Words, rule: HounsfieldRule, pixels: PixelFormat
) -> tuple[NDArray[np.float32], tuple[QualityNote, ...]]:
    """Return HU with padding as air and, if needed, the 12-bit repair, and notes on what was done.

    Args:
        words: one decoded frame, shape (rows, columns), with all bits that the file holds.
        rule: the conversion.
        pixels: the pixel format, which says which bits of ``words`` are stored values.
    """
    notes: list[QualityNote] = []
    stored = stored_values(words, pixels)
    hounsfield = rule.transform.apply(stored)
    padded, undeclared = _padded(words, stored, rule.padding, pixels)
    notes += undeclared
    if may_need_twelve_bit_repair(rule.transform, pixels):
        repaired = repair_twelve_bits(stored)
        if _more_plausible(repaired, hounsfield, padded.mask if padded is not None else None):
            hounsfield = repaired
            message = "12-bit values had wrapped below zero; they were repaired (stored + 1000, modulo 4096)"
            notes.append(QualityNote(code="twelve_bit_repair", message=message))
    if padded is not None:
        air, found = _air(hounsfield, padded)
        notes += found
        hounsfield[air] = AIR
    if isinstance(rule.transform, Rescale) and abs(rule.transform.slope) > _COARSE_STEP:
        message = (
            f"one step of the stored values is {abs(rule.transform.slope):.0f} HU, too coarse to tell blood from brain"
        )
        notes.append(QualityNote(code="coarse_hounsfield", message=message))
    return hounsfield, (*notes, *_unit_notes(rule))


def _unit_notes(rule: HounsfieldRule) -> tuple[QualityNote, ...]:
    message = "the file declares its units as modified HU"
    return (QualityNote(code="modified_hounsfield", message=message),) if rule.modified else ()


def to_rounded(
    words: Words, rule: HounsfieldRule, pixels: PixelFormat, *, into: NDArray[np.int16] | None = None
) -> tuple[NDArray[np.int16], tuple[QualityNote, ...]]:
    """Return what ``to_hounsfield`` does, rounded and limited to int16. In most files, that is one addition.

    Its result goes ``into`` an array of the frame's shape, if one is given; what needs more work is a new array.
    """
    added = _added(words, rule, pixels, into)
    if added is not None:
        return added, _unit_notes(rule)
    hounsfield, notes = to_hounsfield(words, rule, pixels)
    return rounded(hounsfield), notes


def rounded(hounsfield: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return HU rounded to whole numbers and limited to int16, as a new array."""
    whole = np.rint(hounsfield)
    return np.clip(whole, _INT16.min, _INT16.max, out=whole).astype(np.int16)


def _added(
    words: Words, rule: HounsfieldRule, pixels: PixelFormat, into: NDArray[np.int16] | None
) -> NDArray[np.int16] | None:
    """Return stored values plus the intercept, padding as air; None if more is to be done, or int16 does not hold it.

    Then nothing is noted of the pixels.
    """
    transform = rule.transform
    simple = isinstance(transform, Rescale) and transform.slope == 1 and transform.intercept.is_integer()
    if not simple or words.dtype != np.uint16 or may_need_twelve_bit_repair(transform, pixels):
        return None
    intercept = int(transform.intercept)  # type: ignore[union-attr]  # simple
    values = words.view(np.int16)
    if pixels.signed and pixels.bits_stored == 16:
        low, high = int(values.min()), int(values.max())
    else:  # no word may have a bit beyond the stored ones, or a sign
        low, high = 0, int(words.max())
        if high >= 1 << min(pixels.bits_stored - pixels.signed, 15):
            return None
    if low + intercept < _INT16.min or high + intercept > _INT16.max or abs(intercept) > _INT16.max:
        return None
    if rule.padding is not None and not _is_plain_padding(rule.padding, intercept, pixels):
        return None
    hounsfield: NDArray[np.int16] = np.add(values, np.int16(intercept), out=into)
    if rule.padding is not None:
        hounsfield[values == rule.padding[0]] = AIR
    return hounsfield


def _is_plain_padding(padding: tuple[int, int], intercept: int, pixels: PixelFormat) -> bool:
    """Whether padding is one value that the stored bits hold, and no HU of tissue."""
    least = -(1 << (pixels.bits_stored - 1)) if pixels.signed else 0
    held = least <= padding[0] < least + (1 << pixels.bits_stored) and abs(padding[0]) <= _INT16.max
    return padding[0] == padding[1] and held and not _TISSUE[0] < padding[0] + intercept < _TISSUE[1]


def _padded(
    words: Words, stored: Stored, padding: tuple[int, int] | None, pixels: PixelFormat
) -> tuple[_Padded | None, list[QualityNote]]:
    """Return the masks of padding, or None, and a note on padding that the header does not declare.

    Some writers give padding a value that the stored bits cannot hold, such as 63536 (-2000) over 12 unsigned bits; it
    is found in the word as allocated.
    """
    declared = None if padding is None else _declared(words, stored, padding, pixels)
    found = _undeclared(words, stored, pixels)
    if found is not None and declared is not None:
        found &= ~declared.mask
    if found is None or not found.any():
        return declared, []
    value = int(words[found].max()) - (1 << pixels.bits_allocated)
    message = f"the value {value} exceeds the stored bits, and no padding value (0028,0120) declares it: read as air"
    note = QualityNote(code="undeclared_padding", message=message)
    if declared is None:
        nothing = np.zeros(stored.shape, dtype=bool)
        return _Padded(exact=nothing, in_range=nothing, beyond=found), [note]
    return _Padded(exact=declared.exact, in_range=declared.in_range, beyond=declared.beyond | found), [note]


def _as_allocated(words: Words, pixels: PixelFormat) -> NDArray[np.int64]:
    """Return words with their sign as allocated, of which the stored bits are a part."""
    allocated = words.astype(np.int64)
    if pixels.signed:
        allocated[allocated >= 1 << (pixels.bits_allocated - 1)] -= 1 << pixels.bits_allocated
    return allocated


def _declared(words: Words, stored: Stored, padding: tuple[int, int], pixels: PixelFormat) -> _Padded:
    low, high = min(padding), max(padding)
    least = -(1 << (pixels.bits_stored - 1)) if pixels.signed else 0
    beyond = np.zeros(stored.shape, dtype=bool)
    if low < least or high >= least + (1 << pixels.bits_stored):
        allocated = _as_allocated(words, pixels)
        beyond = (allocated >= low) & (allocated <= high) & (allocated != stored)
    return _Padded(
        exact=(stored == padding[0]) & ~beyond, in_range=(stored >= low) & (stored <= high) & ~beyond, beyond=beyond
    )


def _undeclared(words: Words, stored: Stored, pixels: PixelFormat) -> NDArray[np.bool_] | None:
    """Return the mask of words that look like padding beyond the stored bits, or None.

    Such padding has one or two negative values. Other bits beyond those stored are overlays or undefined (PS3.5 8.1.1),
    above pixels of any value.
    """
    if pixels.bits_stored == pixels.bits_allocated or int(words.max()) >> (pixels.bits_allocated - 1) == 0:
        return None
    beyond: NDArray[np.bool_] = _as_allocated(words, pixels) != stored
    values = np.unique(words[beyond])
    negative = values.size > 0 and int(values[0]) >> (pixels.bits_allocated - 1) == 1
    return beyond if negative and values.size <= _PADDING_VALUES else None


def _air(hounsfield: NDArray[np.float32], padded: _Padded) -> tuple[NDArray[np.bool_], list[QualityNote]]:
    """Return the mask of what to read as air, and notes if padding has HU of tissue: only its value is air then."""
    tissue = (hounsfield > _TISSUE[0]) & (hounsfield < _TISSUE[1])
    exact, kept = padded.exact & tissue, padded.in_range & tissue & ~padded.exact
    notes = []
    if exact.any():
        value = float(hounsfield[exact][0])
        message = f"the padding value (0028,0120) stands for {value:.0f} HU, which tissue also has; it was read as air"
        notes.append(QualityNote(code="padding_in_tissue", message=message))
    if kept.any():
        message = "the padding range (0028,0121) includes HU of tissue; pixels with these HU were left as they are"
        notes.append(QualityNote(code="padding_in_tissue", message=message))
    return padded.mask & ~kept, notes


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
