"""Files without a Patient ID in a study of one or two patients."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hemoscope.dicom.series import build_studies
from hemoscope.dicom.slices import SliceHeader

Make = Callable[..., SliceHeader]
ANNA = {"patient_id": "A", "patient_name": "ANNA MULLER", "patient_birth_date": "19480101"}
BERTA = {"patient_id": "B", "patient_name": "BERTA MAIER", "patient_birth_date": "19500101"}


def head(make: Make, name: str, **changes: object) -> list[SliceHeader]:
    return [
        make(float(z), sop_instance_uid=f"1.{name}.{index}", source=f"{name}{index}", **changes)
        for index, z in enumerate(np.arange(0, 150, 5.0))
    ]


def without_id(headers: list[SliceHeader], *more: str) -> list[SliceHeader]:
    """Every second slice without an ID, and without what else is named."""
    lost = dict.fromkeys(("patient_id", *more))
    return [replace(one, **lost) if index % 2 else one for index, one in enumerate(headers)]


def people(headers: list[SliceHeader]) -> list[tuple[set[str], int]]:
    return [
        ({one.source[0] for one in study.series[0].headers}, len(study.series[0])) for study in build_studies(headers)
    ]


@pytest.mark.parametrize(
    "more", [(), ("patient_birth_date",), ("patient_name",), ("patient_birth_date", "patient_name")]
)
@pytest.mark.parametrize("identity", [ANNA, {"patient_id": "A"}])
def test_half_of_the_files_without_an_id_are_of_the_same_patient(make_header: Make, more, identity) -> None:
    assert people(without_id(head(make_header, "a", **identity), *more)) == [({"a"}, 30)]


@pytest.mark.parametrize("more", [(), ("patient_birth_date",), ("patient_name",)])
def test_of_two_patients_each_has_its_own(make_header: Make, more) -> None:
    anna, berta = head(make_header, "a", **ANNA), without_id(head(make_header, "b", **BERTA), *more)
    assert people([*berta, *anna]) == [({"a"}, 30), ({"b"}, 30)]


def test_another_name_without_an_id_is_another_patient(make_header: Make) -> None:
    other = head(make_header, "b", patient_name="BERTA MAIER")
    assert people([*head(make_header, "a", **ANNA), *other]) == [({"a"}, 30), ({"b"}, 30)]


def test_a_second_head_without_any_identity_is_a_study_of_its_own(make_header: Make) -> None:
    known, unknown = head(make_header, "k", patient_id="A"), head(make_header, "u")
    studies = build_studies([*known, *unknown])
    assert people([*known, *unknown]) == [({"k"}, 30), ({"u"}, 30)]
    assert all("several_patients" in {note.code for note in study.series[0].quality} for study in studies)


def test_copies_and_other_series_without_an_id_are_no_second_head(make_header: Make) -> None:
    known = head(make_header, "k", patient_id="A")
    copies = [replace(one, patient_id=None, source=f"x{one.source}") for one in known]
    assert people([*known, *copies]) == [({"k"}, 30)]
    series = head(make_header, "u", series_instance_uid="1.2.9")
    (study,) = build_studies([*known, *series])
    assert [len(one) for one in study.series] == [30, 30]
