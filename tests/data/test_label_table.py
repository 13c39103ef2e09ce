"""A label table of any dataset: empty is unknown, and only 0, 1 and empty are accepted."""

import gzip
import re
from pathlib import Path

import pytest

from hemoscope.data.label_table import read_table_labels
from hemoscope.errors import DataError
from hemoscope.labels import LABELS

HEADER = ",".join(["image_id", "patient_id", *LABELS])


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_an_empty_label_is_unknown_and_not_negative(tmp_path: Path) -> None:
    found = read_table_labels(write(tmp_path / "t.csv", "a,p1,1,,0,1,, ", "b,p2,,,,,,"))
    assert found["a"].labels == (1, None, 0, 1, None, None)
    assert found["b"].labels == (None,) * 6
    assert (found["a"].patient_id, found["b"].patient_id) == ("p1", "p2")


def test_the_patient_and_further_columns_are_free(tmp_path: Path) -> None:
    header = ",".join([*reversed(LABELS), "image_id", "remark"])
    found = read_table_labels(write(tmp_path / "t.csv", "1,0,0,0,0,1,a,NA", header=header))
    assert found["a"].labels == (1, 0, 0, 0, 0, 1)
    assert found["a"].patient_id is None


def test_a_cut_row_is_refused_and_not_read_as_unknown_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: line 2 is shorter than the header \(3 cells of 8\)"):
        read_table_labels(write(tmp_path / "t.csv", "a,p1,1"))


def test_a_gzipped_table_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\na,p,0,0,0,0,0,0\n".encode()))
    assert read_table_labels(path)["a"].labels == (0,) * 6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,p,0,0,0,0,0,0", "A.dcm,p,1,0,0,0,0,0"], "A occurs in lines 2 and 3 with different values. Give one row"),
        (["a,p,0,0,0,0,0,0", "a,q,0,0,0,0,0,0"], "a occurs in lines 2 and 3 with different values"),
        ([",p,0,0,0,0,0,0"], "line 2 has no id"),
        (["a,,0,0,0,0,0,0"], "line 2 has an empty patient_id"),
        (["a,p,0,2,0,0,0,0"], "line 2 (a) has epidural '2', expected 0, 1 or nothing"),
        (["a,p,0,0,0,yes,0,0"], "has intraventricular 'yes'"),
        ([], "has a header and no rows"),
    ],
)
def test_a_wrong_table_is_refused_by_line(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_table_labels(write(tmp_path / "t.csv", *rows))


def test_a_table_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv lacks the columns subdural\. It has .* It needs image_id, any.*--map"):
        read_table_labels(write(tmp_path / "t.csv", "a,p,0,0,0,0,0", header=HEADER.removesuffix(",subdural")))


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b'a,"b\n'])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.csv"):
        read_table_labels(path)


def test_a_table_that_is_not_there_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^absent\.csv: no such file\. Give the path") as caught:
        read_table_labels(tmp_path / "absent.csv")
    assert str(tmp_path) not in str(caught.value)
