"""Reads values of a parsed data set from their raw bytes, so that a nonstandard value never raises an exception.

``plain_elements`` or pydicom parses the structure; pydicom is imported when it is first needed. Its value conversion is
not used here, because it warns and raises on values of real files (RSNA's UIDs, decimals in integer strings) and quotes
them, which may reveal a patient's name.
"""

import io
import math
import re
import struct
import threading
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hemoscope.dicom import tags
from hemoscope.dicom.plain_elements import RawElement, plain_items
from hemoscope.dicom.read_budget import FileBudget

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement, RawDataElement

    Element = RawElement | RawDataElement | DataElement

# Item (FFFE,E000) in little and in big endian.
ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_START_BYTES = 8
_ITEM_COST = 4
# The longest text and the longest list of numbers that are read; LUT Data (0028,3006) has up to 65,536 entries.
_MOST_TEXT = 1 << 16
_MOST_NUMBERS = 1 << 18
# Errors that pydicom's parser raises on damaged files: struct, indexing, decoding and recursion errors on malicious
# lengths, and its own kinds of ValueError and Exception. Their messages are never shown.
PARSE_ERRORS: tuple[type[Exception], ...] = (
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    struct.error,
    MemoryError,
)

# Escape sequences that designate a character set (ISO 2022), which pydicom leaves in text of ISO 2022 IR 58.
_DESIGNATION = re.compile("\x1b[ -/]+[0-~]")
_TEXT_DELIMITERS = frozenset(b"\\\r\n\t\f")
_NAME_DELIMITERS = _TEXT_DELIMITERS | frozenset(b"^=")

# Sets of one code that leave ASCII as it is; ISO_IR 13 has a yen sign for the backslash.
_ASCII_WITHIN = frozenset(f"ISO_IR {number}" for number in (6, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166, 192))

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

# warnings.catch_warnings affects the whole process; the lock serialises our own threads.
_quiet_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress pydicom's warnings, which quote values of the file; quality notes replace them."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class CountedBytes(io.BytesIO):
    """A stream that counts elements and items, so that pydicom makes no more objects than the budget allows."""

    def __init__(self, data: bytes, budget: FileBudget) -> None:
        """Count from the budget of the file."""
        super().__init__(data)
        self.size = len(data)
        self._budget = budget

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes. Raises DicomReadError when the budget is exhausted.

        pydicom reads 8 bytes at the start of each element and item; a value of 8 bytes counts once more.
        """
        data = super().read(size)
        if size == _START_BYTES:
            self._budget.count(_ITEM_COST if data[:4] in ITEMS else 1)
        return data


class Elements:
    """Read access to one data set or sequence item. Missing and invalid values are None (or empty), never an error."""

    def __init__(self, found: "Mapping[int, Element]", *, little_endian: bool, budget: FileBudget) -> None:
        """Wrap parsed elements by their tag; the elements of their sequences are counted from ``budget``."""
        self._found = found
        self._little = little_endian
        self._budget = budget
        self._sequences: dict[int, tuple[Elements, ...]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, tag: int) -> bool:
        return tag in self._found

    def _element(self, tag: int) -> "Element | None":
        return self._found.get(tag)  # None if it is missing

    def raw(self, tag: int) -> bytes | None:
        """Return the bytes of a value, or None if missing, empty or a sequence."""
        element = self._found.get(tag)
        value = None if element is None else element.value
        return value if isinstance(value, bytes) and value else None

    def text(self, tag: int) -> str:
        """Return a string without padding and control characters, read as Latin-1; empty if missing.

        What follows its first 65,536 bytes is not read.
        """
        value = self.raw(tag)
        return _clean(value[:_MOST_TEXT].decode("latin-1")) if value is not None else ""

    def texts(self, tag: int) -> tuple[str, ...]:
        """Return the values of a multi-valued string."""
        text = self.text(tag)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def prose(self, tag: int, *, character_set: str = "") -> str:
        """Return a string in the file's character set (0008,0005); unknown sets are read as Latin-1."""
        return self._decoded(tag, character_set, _TEXT_DELIMITERS)

    def person_name(self, tag: int, *, character_set: str = "") -> str:
        """Return a person name (PN) with its component groups, without empty ones at its end (PS3.5 6.2.1.1)."""
        name = self._decoded(tag, character_set, _NAME_DELIMITERS)
        return "=".join(group.rstrip("^ ") for group in name.split("=")).rstrip("= ")

    def _decoded(self, tag: int, character_set: str, delimiters: frozenset[int]) -> str:
        """Decode a value; after each delimiter, the first character set holds again (PS3.5 6.1.2.5.3)."""
        value = self.raw(tag)
        if value is None or not character_set or (character_set in _ASCII_WITHIN and _is_plain_ascii(value)):
            return self.text(tag)
        from pydicom.charset import convert_encodings, decode_bytes

        try:
            with quiet():
                text = decode_bytes(value[:_MOST_TEXT], convert_encodings(character_set.split("\\")), set(delimiters))
        except PARSE_ERRORS:
            return self.text(tag)
        return _clean(_DESIGNATION.sub("", text))

    def decimals(self, tag: int) -> tuple[float, ...] | None:
        """Return the numbers of a DS, IS, FD or FL value, or None if missing or not all finite numbers."""
        value = self.raw(tag)
        if value is None or len(value) > _MOST_NUMBERS:
            return None
        element = self._element(tag)
        kind = {"FD": "d", "FL": "f"}.get(getattr(element, "VR", None) or "")
        try:
            if kind:
                size = struct.calcsize(kind)
                numbers = struct.unpack(f"{self._order}{len(value) // size}{kind}", value)
            else:
                numbers = tuple(_number(part) for part in value.decode("latin-1").split("\\"))
        except (ValueError, struct.error):
            return None
        return numbers if numbers and all(math.isfinite(number) for number in numbers) else None

    def decimal(self, tag: int) -> float | None:
        """The first number of a value, or None."""
        numbers = self.decimals(tag)
        return numbers[0] if numbers else None

    def integer(self, tag: int) -> int | None:
        """Return the first number of an integer string, or None if missing, fractional or over 31 bits (PS3.5 6.2)."""
        number = self.decimal(tag)
        return int(number) if number is not None and number.is_integer() and abs(number) < 2**31 else None

    def words(self, tag: int, *, signed: bool = False) -> tuple[int, ...] | None:
        """Return the 16-bit numbers of a US, SS or OW value (32-bit for UL or SL), or None."""
        value = self.raw(tag)
        if value is None or len(value) > _MOST_NUMBERS:
            return None
        wide = getattr(self._element(tag), "VR", None) in ("UL", "SL")
        code = ("i" if signed else "I") if wide else ("h" if signed else "H")
        size = struct.calcsize(code)
        return struct.unpack(f"{self._order}{len(value) // size}{code}", value) if len(value) % size == 0 else None

    def word(self, tag: int, *, signed: bool = False) -> int | None:
        """The first number of a binary value, or None."""
        numbers = self.words(tag, signed=signed)
        return numbers[0] if numbers else None

    def items(self, tag: int) -> tuple["Elements", ...]:
        """Return the items of a sequence, empty if missing. Raises one of PARSE_ERRORS if it cannot be parsed."""
        if tag not in self._sequences:  # parsed once, however many frames ask for it
            self._sequences[tag] = tuple(self._items(tag))
        return self._sequences[tag]

    def item(self, tag: int) -> "Elements | None":
        """The first item of a sequence, or None."""
        found = self.items(tag)
        return found[0] if found else None

    @property
    def _order(self) -> str:
        return "<" if self._little else ">"

    def _items(self, tag: int) -> Iterator["Elements"]:
        element = self._element(tag)
        plain = plain_items(element.value) if isinstance(element, RawElement) and element.VR == "SQ" else None
        if plain is not None:
            with self._budget:
                self._budget.count(sum(_ITEM_COST + len(item) for item in plain))
            for item in plain:
                yield Elements(item, little_endian=self._little, budget=self._budget)
            return
        value = sequence_of(element, self._budget) if element is not None else None
        if isinstance(value, bytes | str | None):
            return
        for dataset in value:
            yield Elements(
                {int(tag): one for tag, one in dataset.items()}, little_endian=self._little, budget=self._budget
            )


def sequence_of(element: "Element", budget: FileBudget) -> Any:
    """Parse a sequence whose bytes pydicom left as they are, and count what is in it; other values are returned.

    Raises:
        DicomReadError: ``too_large`` for more elements than the budget allows.
        One of PARSE_ERRORS: it cannot be parsed.
    """
    value = element.value
    if not (isinstance(element, tuple) and isinstance(value, bytes)):  # a DataElement is no tuple
        return value
    from pydicom.filereader import read_sequence

    # An unknown VR (UN) holds a sequence as implicit little endian (PS3.5 6.2.2 note 4).
    implicit = element.is_implicit_VR or element.VR == "UN"
    little = element.is_little_endian or element.VR == "UN"
    with budget:
        return read_sequence(CountedBytes(value, budget), implicit, little, len(value), ["iso8859"])


def character_set(elements: Elements) -> str:
    """Return the specific character set of a file; empty for the default."""
    return elements.text(tags.SPECIFIC_CHARACTER_SET)


def _number(text: str) -> float:
    """Return a decimal or integer string (PS3.5 6.2). Raises ValueError for anything else, control characters too."""
    text = text.lstrip(" ").rstrip(" \0")
    if not _NUMBER.fullmatch(text):
        msg = "not a number"
        raise ValueError(msg)
    return float(text)


def _is_plain_ascii(value: bytes) -> bool:
    return value.isascii() and b"\x1b" not in value


def _clean(text: str) -> str:
    """Remove control characters; spaces of every script (U+3000 in Japanese names) become plain ones."""
    text = text.rstrip("\0")  # the padding of identifiers
    if text.isascii() and text.isprintable():
        return text.strip()
    spaced = (" " if unicodedata.category(character) == "Zs" else character for character in text)
    return "".join(character for character in spaced if character.isprintable()).strip()
