"""Scans data elements of the usual kind: explicit VR little endian, in order, with declared lengths and known VRs.

Nearly all elements of nearly all files are of this kind, and pydicom takes four times as long for them, with several
calls for each; its import alone takes as long as a thousand files. What is not of this kind is left to pydicom as a
whole, so both give the same elements: a test compares them. Nothing declared is trusted: each value lies within the
data, and tags ascend, so the scan ends.
"""

from collections.abc import Collection
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

__all__ = ["LONG_VRS", "SHORT_VRS", "PlainElements", "RawElement", "plain_elements", "plain_items"]

# Value representations by the width of their length: 16 and 32 bits (PS3.5 7.1.2).
SHORT_VRS = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM"}
    | {"UI", "UL", "US"}
)
LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])

# What pydicom would do with other character sets, it alone knows: convert, warn or refuse.
_CHARACTER_SET = 0x00080005
_USUAL_SETS = frozenset({b"ISO_IR 6", b"ISO_IR 100", b"ISO_IR 192"})
_ITEMS = 0xFFFE0000  # and above: delimiters
_ITEM = b"\xfe\xff\x00\xe0"
_LAST = 0xFFFFFFFF
_MOST = 4096  # elements; a file with more is counted one by one while pydicom parses it
_start = Struct("<HH2sH").unpack_from
_raw = tuple.__new__  # a third of what calling RawElement costs
_long_length = Struct("<L").unpack_from
_SHORT = {name.encode(): name for name in SHORT_VRS}
_LONG = {name.encode(): name for name in LONG_VRS}


class RawElement(NamedTuple):
    """An element as pydicom's ``RawDataElement`` has it, so that both can be read alike."""

    tag: int
    VR: str | None
    length: int
    value: bytes
    value_tell: int
    is_implicit_VR: bool  # noqa: N815  # pydicom's names
    is_little_endian: bool


@dataclass(frozen=True, slots=True)
class PlainElements:
    """Elements by tag, where the scan ended, and the end tag's value there: tag, its place and its length."""

    elements: dict[int, RawElement]
    end: int
    stopped_at: tuple[int, int, int] | None


def plain_elements(data: bytes, start: int, *, until: int, stops: Collection[int] = ()) -> PlainElements | None:
    """Return the elements from ``start`` up to the first tag above ``until`` or in ``stops``, or all in the data.

    Returns None if any of them is not plain: an unknown VR, an undefined length, a value beyond the data, tags that do
    not ascend, a delimiter, an unusual character set, or more than 4,096 elements.
    """
    found: dict[int, RawElement] = {}
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
        value = data[value_at:at]
        if tag == _CHARACTER_SET and value.strip() not in _USUAL_SETS:
            return None
        found[tag] = _raw(RawElement, (tag, name, length, value, value_at, False, True))
        last = tag
    return PlainElements(found, at, None)


def plain_items(value: bytes) -> list[dict[int, RawElement]] | None:
    """Return the elements of each item of a sequence; None if an item has an undefined length, or is not plain.

    Also None for more than 4,096 items and elements together.
    """
    found: list[dict[int, RawElement]] = []
    at, count = 0, 0
    while at < len(value):
        if value[at : at + 4] != _ITEM or at + 8 > len(value):
            return None
        (length,) = _long_length(value, at + 4)
        at += 8
        item = plain_elements(value[at : at + length], 0, until=_LAST)
        if item is None or item.end != length:
            return None
        found.append(item.elements)
        at += length
        count += 1 + len(item.elements)
        if count > _MOST:
            return None
    return found
