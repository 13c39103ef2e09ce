"""Image ids find their files: in any case, with or without folder and ending, and never by a guess."""

import pytest

from hemoscope.data.image_ids import bare_id, match_ids
from hemoscope.errors import DataError


def test_the_last_part_of_a_uid_is_no_ending() -> None:
    matched = match_ids(["1.2.7", "1.2.7.1", "1.2.9"], ["1.2.7", "1.2.7.1.dcm", "1.2.9.5"])
    assert matched.id_of == {"1.2.7": "1.2.7", "1.2.7.1.dcm": "1.2.7.1"}
    assert (matched.ids_alone, matched.names_alone, matched.ambiguous) == (("1.2.9",), ("1.2.9.5",), ())


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("IM0", "IM0.dcm"),
        ("IM0.DCM", "im0"),
        ("im0.dcm", "a/b/IM0.DCM"),
        ("b/IM0", "a/b/IM0.dcm"),
        ("b\\IM0.dcm", "a/b/IM0.dcm"),
        ("./a/b/IM0", "a/b/IM0.dcm"),
        ("/data/set/scans/a/IM0.dcm", "a/IM0.dcm"),
        ("scans/IM0", "IM0"),
        ("Scha\u0308del", "SCH\u00c4DEL.dcm"),
        (" IM0 ", "IM0.ima"),
    ],
)
def test_an_id_fits_its_file(written: str, name: str) -> None:
    assert match_ids([written], [name], root="scans").id_of == {name: written}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("IM0", "IM01.dcm"),
        ("M0", "IM0"),
        ("a/IM0", "b/IM0"),
        ("other/IM0", "IM0"),
        ("IM0", "IM0.txt"),
        ("1.2", "1.2.3"),
    ],
)
def test_an_id_does_not_fit_another_file(written: str, name: str) -> None:
    matched = match_ids([written], [name], root="scans")
    assert (matched.ids_alone, matched.names_alone) == ((written,), (name,))


def test_an_id_that_fits_two_folders_is_refused_with_both_names() -> None:
    matched = match_ids(["IM0", "IM1"], ["a/IM0.dcm", "b/IM0.dcm", "a/IM1.dcm"])
    assert matched.ambiguous == (("IM0", ("a/IM0.dcm", "b/IM0.dcm")),)
    with pytest.raises(DataError, match=r"l\.csv: IM0 fits a/IM0\.dcm, b/IM0\.dcm\. Write the folder into image_id"):
        matched.check("l.csv")


def test_a_file_in_the_root_does_not_hide_one_of_the_same_name_in_a_folder() -> None:
    assert match_ids(["IM0"], ["IM0.dcm", "a/IM0.dcm"]).ambiguous == (("IM0", ("IM0.dcm", "a/IM0.dcm")),)
    assert match_ids(["IM0"], ["IM0", "IM0.dcm"]).ambiguous == (("IM0", ("IM0", "IM0.dcm")),)


def test_ids_with_folders_separate_files_of_one_name() -> None:
    matched = match_ids(["IM0", "a/IM0", "b/IM0"], ["IM0.dcm", "b/IM0.dcm", "a/IM0.dcm"])
    assert matched.id_of == {"IM0.dcm": "IM0", "b/IM0.dcm": "b/IM0", "a/IM0.dcm": "a/IM0"}
    matched.check("l.csv")


def test_two_ids_for_one_file_are_refused() -> None:
    with pytest.raises(DataError, match=r"x/a/IM0 fits IM0, a/IM0"):
        match_ids(["IM0", "a/IM0"], ["x/a/IM0"]).check("l.csv")


def test_a_name_that_is_only_an_ending_stays() -> None:
    assert (bare_id(".dcm"), bare_id("a/.dcm"), bare_id("x.dcm.dcm")) == (".dcm", "a/.dcm", "x.dcm")
