"""Plain elements are scanned as pydicom reads them; what is not plain is left to pydicom."""

import random
import struct
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.filereader import read_sequence
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from hemoscope.dicom import part10
from hemoscope.dicom.part10 import DicomObject, parse
from hemoscope.dicom.plain_elements import LONG_VRS, SHORT_VRS, plain_elements, plain_items
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError
from tests.dicom.fuzz_seeds import write_fuzz_seeds

ALL = 0xFFFFFFFF


def element(group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return struct.pack("<HH2sH", group, number, vr, size) + value


NAME = element(0x0010, 0x0010, b"PN", b"DOE^JOHN")


def outcome(data: bytes) -> object:
    """What parsing gives, in a form that can be compared."""
    try:
        found = parse(data, source="a", limits=ReadLimits())
    except DicomReadError as error:
        return error.code, str(error)
    pixels = found.pixels and (found.pixels.tag, found.pixels.start, found.pixels.length)
    return found.syntax, pixels, values(found)


def values(found: DicomObject) -> list[tuple[object, ...]]:
    elements = (found.meta, found.elements)
    tags = sorted(set(range(0x00020000, 0x00020200)) | {0x00080005, 0x00080060, 0x00100010, 0x00280010})
    every = [(tag, one.raw(tag), one.words(tag), one.decimals(tag)) for one in elements for tag in tags if tag in one]
    return [*every, tuple(map(len, elements))]


def test_all_kinds_of_files_and_damaged_ones_are_read_as_by_pydicom(tmp_path: Path, monkeypatch) -> None:
    write_fuzz_seeds(tmp_path)
    draw = random.Random(0)
    for path in sorted(tmp_path.glob("*.dcm")):
        whole = path.read_bytes()
        damaged = [bytearray(whole) for _ in range(20)]
        for data in damaged:
            data[draw.randrange(132, 1500)] = draw.choice((0, 65, 255))
        for data in (whole, whole[:700], *map(bytes, damaged)):
            ours = outcome(data)
            with monkeypatch.context() as context:
                context.setattr(part10, "plain_elements", lambda *_, **__: None)
                assert outcome(data) == ours, path.name


def test_value_representations_are_pydicoms() -> None:
    assert SHORT_VRS == EXPLICIT_VR_LENGTH_16
    assert LONG_VRS == EXPLICIT_VR_LENGTH_32


def test_the_scan_ends_at_the_last_tag_or_at_a_stop() -> None:
    sex = element(0x0010, 0x0040, b"CS", b"F ")
    data = NAME + sex
    found = plain_elements(data, 0, until=0x00100010)
    assert found is not None
    assert list(found.elements) == [0x00100010]
    assert found.stopped_at == (0x00100040, len(NAME) + 8, 2)
    assert found.end == len(NAME)
    stopped = plain_elements(data, 0, until=ALL, stops=(0x00100040,))
    assert stopped == found
    whole = plain_elements(data, 0, until=ALL)
    assert whole is not None
    assert (len(whole.elements), whole.end, whole.stopped_at) == (2, len(data), None)


@pytest.mark.parametrize(
    "data",
    [
        NAME + element(0x0010, 0x0010, b"PN", b"A "),
        NAME + element(0x0008, 0x0060, b"CS", b"CT"),
        NAME + element(0x0010, 0x0040, b"CS", b"F ", length=4),
        NAME + element(0x0010, 0x0040, b"??", b"F "),
        NAME + struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, ALL),
        NAME + element(0xFFFE, 0xE00D, b"CS", b""),
        NAME + struct.pack("<HH2sH", 0x0040, 0x0275, b"SQ", 0),
        element(0x0008, 0x0005, b"CS", b"ISO 2022 IR 87"),
        element(0x0000, 0x0002, b"UI", b"1."),
        b"".join(element(0x0009, 16 + number, b"SH", b"") for number in range(4097)),
    ],
    ids=["repeated", "disordered", "beyond", "VR", "undefined", "delimiter", "cut", "charset", "network", "many"],
)
def test_what_is_not_plain_is_left_to_pydicom(data: bytes) -> None:
    assert plain_elements(data, 0, until=ALL) is None


def test_items_are_those_of_pydicom_or_left_to_it() -> None:
    def item(content: bytes, *, length: int | None = None) -> bytes:
        return struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if length is None else length) + content

    code = element(0x0008, 0x0100, b"SH", b"113041")
    value = item(code) + item(b"") + item(code + NAME)
    found = plain_items(value)
    assert found is not None
    pydicoms = read_sequence(BytesIO(value), False, True, len(value), ["iso8859"])
    assert [{tag: one.value for tag, one in item.items()} for item in found] == [
        {int(tag): one.value for tag, one in item.items()} for item in pydicoms
    ]
    assert plain_items(b"") == []
    left = [item(code, length=ALL), item(code, length=99), item(code)[:-1], value[:6], code, item(code[:-2])]
    left += [item(NAME + NAME), item(b"") * 4097]
    assert [plain_items(one) for one in left] == [None] * len(left)
