"""Scans data elements of the usual kind: explicit VR little endian, in order, with declared lengths and known VRs.

Nearly all elements of nearly all files are of this kind, and pydicom takes six times as long for them, with several
calls for each. What is not of this kind is left to pydicom as a whole, so both give the same elements: a test compares
them. Nothing declared is trusted: each value lies within the data, and tags ascend, so the scan ends.
"""

from collections.abc import Collection
from dataclasses import dataclass
from struct import Struct

from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

__all__ = ["PlainElements", "plain_elements"]

# What pydicom would do with other character sets, it alone knows: convert, warn or refuse.
_CHARACTER_SET = 0x00080005
_USUAL_SETS = frozenset({b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192"})
_ITEMS = 0xFFFE0000  # and above: delimiters
_MOST = 4096  # elements; a file with more is counted one by one while pydicom parses it
_start = Struct("<HH2sH").unpack_from
_raw = tuple.__new__  # a third of what RawDataElement(...) costs
_long_length = Struct("<L").unpack_from
_SHORT = {name.encode(): str(name) for name in EXPLICIT_VR_LENGTH_16}
_LONG = {name.encode(): str(name) for name in EXPLICIT_VR_LENGTH_32}
_EMPTY = {name: empty_value_for_VR(name, raw=True) for name in (*_SHORT.values(), *_LONG.values())}


@dataclass(frozen=True, slots=True)
class PlainElements:
    """Elements by tag, where the scan ended, and the end tag's value there: tag, its place and its length."""

    elements: dict[int, RawDataElement]
    end: int
    stopped_at: tuple[int, int, int] | None


def plain_elements(data: bytes, start: int, *, until: int, stops: Collection[int] = ()) -> PlainElements | None:
    """Return the elements from ``start`` up to the first tag above ``until`` or in ``stops``, or all in the data.

    Returns None if any of them is not plain: an unknown VR, an undefined length, a value beyond the data, tags that do
    not ascend, a delimiter, an unusual character set, or more than 4,096 elements.
    """
    found: dict[int, RawDataElement] = {}
    at, last, size = start, 0xFFFF, len(data)  # group 0000 is not plain
    while at + 8 <= size:
        group, number, kind, length = _start(data, at)
        tag = group << 16 | number
        value_at = at + 8
        name = _SHORT.get(kind)
        if name is None:
            name = _LONG.get(kind)
            if name is None or value_at + 4 > size:
                return None
            (length,) = _long_length(data, value_at)
            value_at += 4
        if tag >= _ITEMS:
            return None
        if tag > until or tag in stops:
            return PlainElements(found, at, (tag, value_at, length))
        at = value_at + length
        if tag <= last or at > size or len(found) == _MOST:
            return None
        value = data[value_at:at] if length else _EMPTY[name]
        if tag == _CHARACTER_SET and value not in _USUAL_SETS and (value or b"").strip() not in _USUAL_SETS:
            return None
        found[tag] = _raw(RawDataElement, (tag, name, length, value, value_at, False, True))
        last = tag
    return PlainElements(found, at, None)
