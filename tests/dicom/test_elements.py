"""Values are read from raw bytes: missing or invalid values are None, never an exception or a guess."""

import struct
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_charset_files
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from hemoscope.dicom.elements import CountedBytes, Elements, character_set
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read_budget import ReadBudget
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError

TAG = 0x00281053


def element(value: bytes | None, vr: str | None = "DS", *, little: bool = True) -> Elements:
    raw = RawDataElement(BaseTag(TAG), vr, len(value or b""), value, 0, vr is None, little)
    return Elements({TAG: raw}, little_endian=little, budget=ReadBudget(ReadLimits()).open("a"))


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


# PS3.5 Annexes H, I, J and K, and code extensions of single-byte sets; the same strings are in pydicom's own tests.
NAMES = [
    (b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
     "\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
     "ISO 2022 IR 13\\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    (b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
     "\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    (b"Wang^XiaoDong=\xe7\x8e\x8b^\xe5\xb0\x8f\xe6\x9d\xb1=", "ISO_IR 192", "Wang^XiaoDong=王^小東"),
    (b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "GB18030", "Wang^XiaoDong=王^小东"),
    (b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东"),
    (b"Dionysios=\x1b-F\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2=\x1b-L\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3",
     "ISO 2022 IR 100\\ISO 2022 IR 144\\ISO 2022 IR 126", "Dionysios=Διονυσιος=Люкceмбypг"),  # noqa: RUF001
    # After ^ and = the first set holds again: here Latin-1.
    (b"\x1b-F\xc4\xe9\xef^J\xe9r\xf4me", "ISO 2022 IR 100\\ISO 2022 IR 126", "Διο^Jérôme"),
    (b"Doe^Jane^^^", "", "Doe^Jane"),
    (b"\x1b$B;3ED!!B@O:\x1b(B", "\\ISO 2022 IR 87", "山田 太郎"),  # an ideographic space
]  # fmt: skip


@pytest.mark.parametrize(("value", "character_set", "expected"), NAMES)
def test_a_person_name_is_read_group_by_group_in_its_character_sets(
    value: bytes, character_set: str, expected: str
) -> None:
    assert element(value, "PN").person_name(TAG, character_set=character_set) == expected


def test_the_files_of_pydicom_have_the_names_that_pydicom_reads() -> None:
    checked = 0
    for path in get_charset_files("chr*.dcm"):
        dataset = pydicom.dcmread(path, force=True)
        if "PatientName" not in dataset:
            continue
        elements = parse(Path(path).read_bytes(), source="a", limits=ReadLimits()).elements
        found = elements.person_name(0x00100010, character_set=character_set(elements))
        assert found == str(dataset.PatientName).rstrip("=")
        checked += 1
    assert checked > 12


def test_a_backslash_between_values_resets_the_character_set() -> None:
    value = b"\x1b-F\xc4\xe9\xef\\J\xe9r\xf4me"
    assert element(value, "LO").prose(TAG, character_set="ISO 2022 IR 100\\ISO 2022 IR 126") == "Διο\\Jérôme"


def test_what_is_no_sequence_has_no_items() -> None:
    assert element(None, "SQ").items(TAG) == ()
    assert len(element(None)) == 1


def test_reading_stops_when_the_budget_is_spent() -> None:
    stream = CountedBytes(bytes(100), ReadBudget(ReadLimits(elements=3)).open("a"))
    assert [stream.read(8) for _ in range(3)] == [bytes(8)] * 3
    with pytest.raises(DicomReadError, match="a: more data elements than the limit elements = 3"):
        stream.read(8)
