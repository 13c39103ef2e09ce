"""Notes on what the header says of the image, the body part and the patient."""

import pytest

from hemoscope.dicom.image_kind import ImageKind
from hemoscope.dicom.quality import is_other_anatomy, series_notes
from hemoscope.dicom.read import read_slice


def codes(*headers: object) -> set[str]:
    return {note.code for note in series_notes(headers)}


class TestBodyPart:
    @pytest.mark.parametrize(
        "part",
        [
            *("HEAD", "KOPF", "SCHÄDEL", "SCHAEDEL", "CRANE", "CRÂNE", "TESTA", "CABEZA", "CABEÇA", "CEREBRUM", "TÊTE"),
            *("CRANIO", "HOOFD", "NEUROCRANIO", "HUVUD", "UNKNOWN", "NONE", "", None),
        ],
    )
    def test_the_head_in_other_languages_and_no_statement_are_accepted(self, make_header, part) -> None:
        assert not is_other_anatomy(make_header(body_part=part))

    @pytest.mark.parametrize("part", ["CHEST", "ABDOMEN", "BACINO", "BECKEN", "CSPINE", "THORAX", "TESTIS"])
    def test_other_parts_are_noted(self, make_header, part: str) -> None:
        assert is_other_anatomy(make_header(body_part=part))
        assert "not_head" in codes(make_header(body_part=part))

    @pytest.mark.parametrize(
        ("description", "other"),
        [("HELICAL CHEST", True), ("CT ABDOMEN 5.0", True), ("HEAD CHEST ABDOMEN", False), ("AXIAL 5.0", False)],
    )
    def test_without_a_body_part_the_description_decides(self, make_header, description: str, other: bool) -> None:
        assert is_other_anatomy(make_header(body_part=None, series_description=description)) is other
        assert not is_other_anatomy(make_header(body_part="HEAD", series_description=description))

    @pytest.mark.parametrize("stored", ["SCHÄDEL ".encode("latin-1"), "SCHÄDEL".encode()])
    def test_an_umlaut_in_a_code_string_is_read(self, make_slice, as_bytes, stored: bytes) -> None:
        data = as_bytes(make_slice(BodyPartExamined="SCHADEL ")).replace(b"SCHADEL ", stored)
        assert not is_other_anatomy(read_slice(data).header)


class TestKind:
    @pytest.mark.parametrize(
        ("kind", "code"), [(ImageKind.PROJECTION, "projection"), (ImageKind.VIRTUAL, "virtual_image")]
    )
    def test_a_kind_other_than_a_plain_slice_carries_a_note(self, make_header, kind: ImageKind, code: str) -> None:
        assert code in codes(make_header(kind=kind))
        assert code not in codes(make_header())


class TestAge:
    @pytest.mark.parametrize(
        ("age", "young"),
        [
            *(("017Y", True), ("006M", True), ("010D", True), ("018Y", False), ("051Y", False)),
            *(("000Y", False), ("", False), ("230M", False)),
        ],
    )
    def test_a_patient_under_18_is_noted_and_an_age_of_0_years_is_unknown(
        self, make_slice, as_bytes, age: str, young: bool
    ) -> None:
        header = read_slice(as_bytes(make_slice(PatientAge=age))).header
        assert ("pediatric" in codes(header)) is young
