"""One reader for every table of labels and predictions: what spreadsheets, Kaggle and hemoscope predict write."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from hemoscope.data.image_table import Form, check_names, read_image_table
from hemoscope.data.table_cells import Content
from hemoscope.errors import ConfigError, DataError
from hemoscope.labels import LABELS, SUBTYPES

HEADER = ",".join(["image_id", *LABELS])
FINDINGS = ",".join(["study_instance_uid", "sop_instance_uid", "frame", "source", *LABELS, "any_present"])
NAN = float("nan")


def write(folder: Path, *lines: str, name: str = "l.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_labels_of_a_spreadsheet_are_read_whatever_its_separator(tmp_path: Path, separator: str, mark: str) -> None:
    rows = [HEADER, "IM0.dcm,1.0,0.0,0,0,0,1", "IM1,0,0,0,0,0,0", ",,,,,,"]
    table = read_image_table(write(tmp_path, *(mark * (row == HEADER) + row.replace(",", separator) for row in rows)),
                             Content.LABELS)  # fmt: skip
    assert table.image_ids == ("IM0", "IM1")
    assert table.values.tolist() == [[1, 0, 0, 0, 0, 1], [0] * 6]
    assert (table.separator, table.form, table.lines.tolist()) == (separator, Form.ROWS, [2, 3])


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_excels_line_that_names_the_separator_is_read(tmp_path: Path, line: str, encoding: str) -> None:
    path = tmp_path / "l.csv"
    # Without the line, the header could be split by comma and semicolon.
    rows = [line, HEADER.replace(",", ";") + ";a,b", "IM0;1;0;0;0;0;1;", "IM0;0;0;0;0;0;0;"]
    path.write_bytes("\r\n".join(rows[:3]).encode(encoding))
    table = read_image_table(path, Content.LABELS)
    assert (table.values.tolist(), table.separator, table.lines.tolist()) == ([[1, 0, 0, 0, 0, 1]], ";", [3])
    path.write_bytes("\r\n".join(rows).encode(encoding))
    with pytest.raises(DataError, match="IM0 occurs in lines 3 and 4 with different values"):
        read_image_table(path, Content.LABELS)


def test_unicode_text_of_excel_is_read_and_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.txt.gz"
    text = f"{HEADER}\nKopf-Müller,0,0,0,0,0,0\n".replace(",", "\t")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        mark = b"" if encoding == "utf-16" else "\ufeff".encode(encoding)
        path.write_bytes(gzip.compress(mark + text.encode(encoding)))
        assert read_image_table(path, Content.LABELS).image_ids == ("Kopf-Müller",)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"readable CSV table \(UnicodeDecodeError\)\. Give CSV in UTF-8, in UTF-16"):
        read_image_table(path, Content.LABELS)


def test_a_declared_separator_that_is_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 names the separator '\|'\. Use comma, semicolon, tab"):
        read_image_table(write(tmp_path, "sep=|", HEADER.replace(",", "|")), Content.LABELS)
    with pytest.raises(DataError, match="line 2 is empty"):
        read_image_table(write(tmp_path, "sep=;"), Content.LABELS)


def test_a_decimal_comma_is_read_where_the_separator_allows_it(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER.replace(",", ";"), "a;0,5;1,0;0;,25;0;1e-3")
    assert read_image_table(path, Content.PREDICTIONS).values.tolist() == [[0.5, 1, 0, 0.25, 0, 0.001]]
    path = write(tmp_path, HEADER.replace(",", ";"), "a;1,0;1,0;0,0;0;0;0")
    assert read_image_table(path, Content.LABELS).values.tolist() == [[1, 1, 0, 0, 0, 0]]
    with pytest.raises(
        DataError, match=r"line 2 is longer than the header \(8 cells of 7\).*decimal comma need semicol"
    ):
        read_image_table(write(tmp_path, HEADER, "a,0,5,0,0,0,0,0"), Content.PREDICTIONS)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([HEADER, "", "a,0,0,0,0,0,0"], "line 2 is empty. Remove it"),
        ([HEADER, "a,0,0,0,0,0,1_0"], "line 2 (a) has subdural '1_0', expected 0, 1 or nothing"),
        ([HEADER, "a,0,0,0,0,0,0.5"], "has subdural '0.5', expected 0, 1"),
        ([HEADER, "a,0,0,0,0,0,nan"], "has subdural 'nan'"),
        ([f"{HEADER},ANY", "a,0,0,0,0,0,0,1"], "the column any stands twice"),
        (["image_id;any,epidural", "a;0,0"], "can be split by comma and semicolon"),
        ([""], "line 1 is empty"),
        (["study,pixels", "a,b"], "lacks the columns image_id, epidural"),
        ([FINDINGS, "s,1.2,0,IM0,0,0,0,0,0,0,0"], "holds predictions of hemoscope predict, not labels"),
    ],
)
def test_what_is_unclear_is_refused_with_its_line(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_image_table(write(tmp_path, *lines), Content.LABELS)
    assert str(caught.value).startswith("l.csv")
    assert words in str(caught.value)


def test_any_is_computed_where_it_is_missing_and_the_types_say_it(tmp_path: Path) -> None:
    path = write(tmp_path, ",".join(["image_id", *SUBTYPES]), "a,0,0,0,0,1", "b,0,0,0,0,0", "c,,0,0,0,0", "d,1,,,,")
    table = read_image_table(path, Content.LABELS)
    np.testing.assert_array_equal(table.values[:, 0], [1, 0, NAN, 1])
    assert table.computed == 3
    with pytest.raises(DataError, match="lacks the columns any"):
        read_image_table(path, Content.PREDICTIONS)


def test_any_0_beside_a_type_is_refused_with_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, "a,0,1,0,0,0,0", "b,1,1,0,0,0,0", "c,0,0,,0,1,1")
    words = (
        r"l\.csv: any is 0 beside a type that is 1 in 2 images: line 2 \(a: epidural\), line 4 \(c: subarachnoid, sub"
    )
    with pytest.raises(DataError, match=words):
        read_image_table(path, Content.LABELS)


def test_equal_repetitions_are_counted_whatever_the_writing_of_their_id(tmp_path: Path) -> None:
    table = read_image_table(write(tmp_path, HEADER, "a,0,0,0,0,,0", "A.dcm,0.0,0,0,0,,0"), Content.LABELS)
    assert (table.image_ids, table.repeated) == (("a",), 1)


def lines_of(image_id: str, *values: object) -> list[str]:
    return [f"{image_id}_{label},{value}" for label, value in zip(LABELS, values, strict=True)]


def test_a_submission_of_six_lines_an_image_is_read_as_predictions(tmp_path: Path) -> None:
    path = write(tmp_path, "ID,Label", *lines_of("ID_b", 0.9, 0, 0.1, 0.2, 0.3, 1e-3), *lines_of("1.2.7.1", *[0.5] * 6))
    table = read_image_table(path, Content.PREDICTIONS)
    assert (table.image_ids, table.form) == (("ID_b", "1.2.7.1"), Form.LINES)
    assert table.values.tolist() == [[0.9, 0, 0.1, 0.2, 0.3, 1e-3], [0.5] * 6]
    with pytest.raises(DataError, match=r"ID_b_any is 0\.9 in line 2 and 0\.8 in line 14"):
        read_image_table(write(tmp_path, *path.read_text().split(), "ID_b_any,0.8"), Content.PREDICTIONS)


def test_six_lines_without_any_compute_it_but_a_single_missing_line_is_refused(tmp_path: Path) -> None:
    lines = [*lines_of("a", *[0] * 6), *lines_of("b", *[1] * 6)]
    types = [line for line in lines if "_any" not in line]
    table = read_image_table(write(tmp_path, "ID,Label", *types), Content.LABELS)
    assert table.values[:, 0].tolist() == [0, 1]
    with pytest.raises(DataError, match=r"a has no line for any\. Every image needs six lines"):
        read_image_table(write(tmp_path, "ID,Label", *lines[1:]), Content.LABELS)


def test_findings_of_hemoscope_predict_are_predictions(tmp_path: Path) -> None:
    path = write(tmp_path, FINDINGS, "s,1.2.3,0,a/IM0.dcm,.9,0,0,0,0,.8,1", "s,1.2.4,0,'=x,.1,0,0,0,0,0,0")
    table = read_image_table(path, Content.PREDICTIONS, more=("study_instance_uid",))
    assert (table.image_ids, table.uids, table.form) == (("a/IM0", "=x"), ("1.2.3", "1.2.4"), Form.FINDINGS)
    assert table.values[0].tolist() == [0.9, 0, 0, 0, 0, 0.8]
    assert table.more == {"study_instance_uid": ("s", "s")}
    rows = ("s,1.2,0,IM0.dcm,0,0,0,0,0,0,0", "s,1.2,1,IM0.dcm,0,0,0,0,0,0,0")
    with pytest.raises(DataError, match="line 3: IM0 has several frames"):
        read_image_table(write(tmp_path, FINDINGS, *rows), Content.PREDICTIONS)


def test_columns_of_other_names_are_given_by_their_role(tmp_path: Path) -> None:
    header = HEADER.replace("image_id", "File Name").replace("any", "hemorrhage_present")
    path = write(tmp_path, header, "a,1,0,0,0,0,1")
    names = {"image_id": "file name", "any": "hemorrhage_present"}
    table = read_image_table(path, Content.LABELS, names=names)
    assert table.values.tolist() == [[1, 0, 0, 0, 0, 1]]
    assert (table.used["any"], table.used["image_id"]) == ("hemorrhage_present", "File Name")
    check_names(names, [table])
    with pytest.raises(
        ConfigError, match=r"--map subdural=sdh: there is no such column\. l\.csv has File Name, hemorr"
    ):
        check_names({"subdural": "sdh"}, [table])
