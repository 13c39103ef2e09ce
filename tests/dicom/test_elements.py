"""Values are read from raw bytes: missing or invalid values are None, never an exception or a guess."""

import struct

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from hemoscope.dicom.elements import CountedBytes, ElementBudgetError, Elements

TAG = 0x00281053


def element(value: bytes | None, vr: str | None = "DS", *, little: bool = True) -> Elements:
    raw = RawDataElement(BaseTag(TAG), vr, len(value or b""), value, 0, vr is None, little)
    return Elements(Dataset({BaseTag(TAG): raw}), little_endian=little, budget=100)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"1.5", (1.5,)), (b" 1\\-2e1 ", (1.0, -20.0)), (b"abc", None), (b"nan", None), (b"1\\inf", None), (b"", None),
     (b"1\\", None), (b"\x00\xff", None), (b"\x07\x00024.0", None), (b"1\n2", None), (b"1_000", None), (b"24,0", None),
     (b"+.5 \x00", (0.5,)), (b" 2.\\-3E+1 ", (2.0, -30.0))],
)  # fmt: skip
def test_decimal_strings(value: bytes, expected: tuple[float, ...] | None) -> None:
    assert element(value).decimals(TAG) == expected


def test_binary_decimals_in_both_byte_orders() -> None:
    assert element(struct.pack("<d", 2.5), "FD").decimals(TAG) == (2.5,)
    assert element(struct.pack(">f", 2.5), "FL", little=False).decimals(TAG) == (2.5,)
    assert element(b"abc", "FD").decimals(TAG) is None


def test_integers() -> None:
    assert element(b"12").integer(TAG) == 12
    assert element(b"12.5").integer(TAG) is None
    assert element(b"1e300").integer(TAG) is None


def test_words_in_every_width_and_sign() -> None:
    assert element(b"\xff\xff", "US").word(TAG) == 65535
    assert element(b"\xff\xff", "US").word(TAG, signed=True) == -1
    assert element(b"\x00\x01", "US", little=False).word(TAG) == 1
    assert element(b"\x01\0\0\x80", "UL").word(TAG) == 0x80000001
    assert element(b"abc", "US").words(TAG) is None
    assert element(None, "US").word(TAG) is None


def test_text_has_no_padding_and_no_control_characters() -> None:
    assert element(b"\x1b[31mHEAD \0").text(TAG) == "[31mHEAD"
    assert element(b"A\\ B").texts(TAG) == ("A", "B")


def test_prose_in_an_unknown_character_set_is_still_text() -> None:
    assert element(b"Sch\xe4del").prose(TAG, character_set="NONSENSE") == "Schädel"
    assert element("Schädel".encode()).prose(TAG, character_set="ISO_IR 192") == "Schädel"


def test_what_is_no_sequence_has_no_items() -> None:
    assert element(None, "SQ").items(TAG) == ()
    assert len(element(None)) == 1


def test_reading_stops_when_the_budget_is_spent() -> None:
    stream = CountedBytes(bytes(100), budget=1)
    assert [stream.read(1) for _ in range(3)] == [b"\0"] * 3
    with pytest.raises(ElementBudgetError, match="too many data elements"):
        stream.read(1)
