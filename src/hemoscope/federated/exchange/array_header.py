"""The header of numpy's file format 1.0 (NEP 1), read as a pattern: whoever wrote it may be hostile.

``numpy.lib.format.read_array_header_1_0`` evaluates it as a Python literal. Of text made for the purpose it raises what
nobody expects of a file (TokenError, TypeError, MemoryError), and it believes dimensions below 0: one site could end
everybody's round.
"""

import math
import re
from dataclasses import dataclass

_MAGIC = b"\x93NUMPY\x01\x00"
# As numpy writes it: these keys in this order, spaces, one end of line.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][a-zA-Z][0-9]{1,4})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,18}, ?)*(?:[0-9]{1,18})?)\),? ?\} *\n"
)
_MOST_DIMENSIONS = 32
_MOST_VALUES = 1 << 40  # of the dimensions above 0: numpy cannot count further than an index reaches


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayHeader:
    """What a file of numpy's says of its array.

    Attributes:
        descr: numpy's word for the type, such as ``<f4``.
        fortran: whether the first axis changes fastest.
        shape: of the array, as claimed.
        start: of the values, in bytes.
    """

    descr: str
    fortran: bool
    shape: tuple[int, ...]
    start: int


def read_array_header(stored: bytes) -> ArrayHeader | None:
    """The header of an array of plain numbers; None where there is none such as numpy writes."""
    begin = len(_MAGIC) + 2
    if len(stored) < begin or not stored.startswith(_MAGIC):
        return None
    start = begin + int.from_bytes(stored[len(_MAGIC) : begin], "little")
    found = _HEADER.fullmatch(stored, begin, start) if start <= len(stored) else None
    if found is None:
        return None
    descr, fortran, sizes = found.groups()
    shape = tuple(int(size) for size in sizes.split(b",") if size.strip())
    if len(shape) > _MOST_DIMENSIONS or math.prod(max(size, 1) for size in shape) > _MOST_VALUES:
        return None
    return ArrayHeader(descr=descr.decode(), fortran=fortran == b"True", shape=shape, start=start)
