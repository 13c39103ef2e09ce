"""Parses the DICOM file format (PS3.10 section 7): the data set, its transfer syntax and the position of its pixels.

Every declared length is compared with the remaining bytes, a deflated data set is inflated up to a limit, and parsing
stops at the pixels: ``encapsulation`` splits them into frames and ``pixels`` decodes them.
"""

import io
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hemoscope.dicom import tags
from hemoscope.dicom.elements import PARSE_ERRORS, CountedBytes, Elements, quiet
from hemoscope.dicom.plain_elements import plain_elements
from hemoscope.dicom.read_budget import FileBudget, ReadBudget
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.transfer_syntaxes import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

UNDEFINED_LENGTH = 0xFFFFFFFF
_LAST_TAG = 0xFFFFFFFF
_LAST_META_TAG = 0x0002FFFF
_PIXEL_TAGS = (tags.PIXEL_DATA, tags.FLOAT_PIXEL_DATA, tags.DOUBLE_PIXEL_DATA)
_INFLATE_STEP = 1 << 20
# Tags ascend (PS3.5 7.1); real files have a few that do not, and repeated ones cost time and name nothing.
_MOST_DISORDERED = 1000
# Archives that reach the parser, by their first bytes, and what to do.
_ARCHIVES = {
    b"PK\x03\x04": "ZIP file without the extension .zip: give its path or rename it",
    b"\x1f\x8b": "gzip file without the extension .gz: give its path or rename it",
    b"7z\xbc\xaf\x27\x1c": "7-Zip archive: unpack it first, or make a ZIP",
    b"Rar!\x1a\x07": "RAR archive: unpack it first, or make a ZIP",
    b"BZh": "bzip2 file: unpack it first",
    b"\xfd7zXZ\x00": "XZ file: unpack it first",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelElement:
    """Position of the pixel data: ``data[start:]`` is the value; ``length`` is None if it is encapsulated.

    Its fragments are counted from ``budget``.
    """

    tag: int
    data: bytes
    start: int
    length: int | None
    budget: FileBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomObject:
    """One parsed file: its elements before the pixels, its transfer syntax UID, and its pixel element if it has one.

    What is still parsed, its sequences and fragments, is counted from ``budget``.
    """

    elements: Elements
    meta: Elements
    syntax: str
    pixels: PixelElement | None
    budget: FileBudget


def parse(
    data: bytes, *, source: str, limits: ReadLimits, until: int = _LAST_TAG, together: ReadBudget | None = None
) -> DicomObject:
    """Parse one DICOM file, with or without preamble and file meta information, up to its pixels or the tag ``until``.

    Args:
        data: the file.
        source: the input as the user named it.
        limits: of one file.
        until: the last tag to read.
        together: of all files that are opened together, with the same limits.

    Raises:
        DicomReadError: ``not_dicom``, ``malformed``, or ``too_large`` for a deflate bomb, too many elements or too much
            processor time.
    """
    budget = (together or ReadBudget(limits)).open(source)
    with quiet(), budget:
        try:
            return _parse(data, source, budget, until)
        except PARSE_ERRORS as error:
            raise refusal(source, "malformed", f"the data set cannot be parsed ({type(error).__name__})") from error


def read_whole(data: bytes, found: DicomObject, budget: FileBudget) -> "Dataset":
    """Read a file that was parsed as pydicom does, with what follows its pixels.

    Sequences of defined length stay bytes: ``sequence_of`` counts what is in them.

    Raises:
        DicomReadError: ``too_large`` for more elements than the budget allows.
        One of PARSE_ERRORS: pydicom cannot read it.
    """
    from pydicom import dcmread

    if found.syntax == DEFLATED and found.pixels is not None:  # pydicom inflates it into a stream that is not counted
        _read(CountedBytes(found.pixels.data, budget), DEFLATED, None)
    return dcmread(CountedBytes(data, budget), force=True)


def _parse(data: bytes, source: str, budget: FileBudget, until: int) -> DicomObject:
    start = 132 if data[128:132] == b"DICM" else 0
    if start == 0 and not _looks_like_elements(data):
        reason = f"no DICOM prefix and no DICOM elements at its start{_advice(data)}"
        raise refusal(source, "not_dicom", reason)
    meta, at = Elements({}, little_endian=True, budget=budget), start
    if data[start : start + 2] == b"\x02\x00":
        part = _read_part(data, start, EXPLICIT, source, budget, until=_LAST_META_TAG)
        meta, at = part.elements, part.end
    syntax = meta.text(tags.TRANSFER_SYNTAX_UID) or _guess_syntax(data[at : at + 6])
    if syntax == DEFLATED:
        data, at = _inflate(data[at:], source, budget), 0
    body = _read_part(data, at, syntax, source, budget, until=until, stops=_PIXEL_TAGS)
    if len(body.elements) == 0:
        raise refusal(source, "malformed", "no data elements can be read after the file meta information")
    pixels = None
    if body.stopped_at is not None and body.stopped_at[0] in _PIXEL_TAGS:
        tag, value_at, length = body.stopped_at
        known = None if length == UNDEFINED_LENGTH else length
        pixels = PixelElement(tag=tag, data=data, start=value_at, length=known, budget=budget)
    return DicomObject(elements=body.elements, meta=meta, syntax=syntax, pixels=pixels, budget=budget)


@dataclass(frozen=True, slots=True)
class _Part:
    """Elements, where reading ended, and the tag, place and length of the value that ended it, if one did."""

    elements: Elements
    end: int
    stopped_at: tuple[int, int, int] | None


def _read_part(
    data: bytes, start: int, syntax: str, source: str, budget: FileBudget, *, until: int, stops: Collection[int] = ()
) -> _Part:
    """Read elements up to the first above ``until`` or in ``stops``: plain ones at once, others as pydicom does."""
    plain = None if syntax in (IMPLICIT, BIG_ENDIAN) else plain_elements(data, start, until=until, stops=stops)
    if plain is not None:
        budget.count(len(plain.elements))
        return _Part(Elements(plain.elements, little_endian=True, budget=budget), plain.end, plain.stopped_at)
    stream = CountedBytes(data, budget)
    stream.seek(start)
    stop = _Stop(stream, source, budget, lambda tag: tag > until or tag in stops)
    found = {int(tag): element for tag, element in _read(stream, syntax, stop).items()}
    return _Part(Elements(found, little_endian=syntax != BIG_ENDIAN, budget=budget), stream.tell(), stop.found)


class _Stop:
    """A ``stop_when`` for pydicom: stops at a tag, records its value's position, and refuses lengths beyond the end."""

    def __init__(self, stream: CountedBytes, source: str, budget: FileBudget, ends: Callable[[int], bool]) -> None:
        self._stream = stream
        self._source = source
        self._budget = budget
        self._ends = ends
        self.found: tuple[int, int, int] | None = None
        self._last = 0
        self._disordered = 0

    def __call__(self, tag: int, _vr: str | None, length: int) -> bool:
        """Return True at the end tag. Raises DicomReadError for no order, or a value beyond the data's end."""
        tag = int(tag)  # pydicom's own class of tags compares slowly
        if self._ends(tag):
            self.found = (tag, self._stream.tell(), length)
            return True
        self._check_order(tag)
        left = self._stream.size - self._stream.tell()
        if length not in (UNDEFINED_LENGTH, 0) and length > left:
            group, element = tag >> 16, tag & 0xFFFF
            reason = f"element ({group:04X},{element:04X}) declares {length} bytes, but only {left} are left"
            raise refusal(self._source, "malformed", reason)
        return False

    def _check_order(self, tag: int) -> None:
        if tag >> 16 == 0:
            reason = f"it has the element (0000,{tag:04X}); group 0000 is for the network alone"
            raise refusal(self._source, "malformed", reason)
        self._disordered += tag <= self._last
        self._last = tag
        if self._disordered > _MOST_DISORDERED:
            raise refusal(self._source, "malformed", "its data elements are repeated or in no order")


def _read(stream: io.BytesIO, syntax: str, stop: _Stop | None) -> "Dataset":
    from pydicom.filereader import read_dataset  # slow to import, and not needed for plain elements

    return read_dataset(stream, syntax == IMPLICIT, syntax != BIG_ENDIAN, stop_when=stop)


def _advice(data: bytes) -> str:
    """Say what to do with a file of another kind that can hold slices; empty if it is not known."""
    kind = next((name for start, name in _ARCHIVES.items() if data.startswith(start)), None)
    if data[344:348] in (b"n+1\0", b"ni1\0"):
        kind = "NIfTI file: give its path"
    return f"; it is a {kind}" if kind else ""


def _looks_like_elements(data: bytes) -> bool:
    """Whether bytes without the DICM prefix start with an element of group 0002 or 0008."""
    if len(data) < 8:
        return False
    if data[:2] == b"\x00\x08":
        return data[4:6].isalpha() and data[4:6].isupper()
    if data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    explicit = data[4:6].isalpha() and data[4:6].isupper()
    return explicit or int.from_bytes(data[4:8], "little") <= len(data)


def _guess_syntax(head: bytes) -> str:
    """Guess the transfer syntax of a data set without file meta information from its first element."""
    if not (head[4:6].isalpha() and head[4:6].isupper()):
        return IMPLICIT
    return BIG_ENDIAN if head[:1] == b"\x00" else EXPLICIT


def _inflate(data: bytes, source: str, budget: FileBudget) -> bytes:
    """Inflate a raw deflate stream (PS3.5 A.5) in steps, and refuse it as soon as it exceeds the limit."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = io.BytesIO()
    try:
        while not machine.eof:
            part = machine.decompress(data, _INFLATE_STEP)
            data = machine.unconsumed_tail
            budget.inflate(len(part))
            if not part and not data:
                raise refusal(source, "malformed", "the deflated data set ends early")
            inflated.write(part)
    except zlib.error as error:
        raise refusal(source, "malformed", "the deflated data set is damaged") from error
    return inflated.getvalue()
