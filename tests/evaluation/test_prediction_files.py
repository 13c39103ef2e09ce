"""Two CSV files become one aligned table, or an error that names the image."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from hemoscope.errors import DataError
from hemoscope.evaluation.prediction_files import read_predictions, read_probabilities, write_predictions
from hemoscope.labels import LABELS

HEADER = "image_id," + ",".join(LABELS)
PREDICTIONS = f"{HEADER}\nID_a,0.9,0,0.1,0.2,0.3,0.8\nID_b,0.1,0,0,0,0,1e-3\n"
LABELLED = f"{HEADER}\nID_b,0,0,0,0,0,0\nID_a,1,0,0,0,,1\n"


def written(folder: Path, predictions: str = PREDICTIONS, labels: str = LABELLED) -> tuple[Path, Path]:
    one, two = folder / "predictions.csv", folder / "labels.csv"
    one.write_text(predictions, encoding="utf-8")
    two.write_text(labels, encoding="utf-8")
    return one, two


def test_rows_are_aligned_by_image_and_an_empty_label_is_unknown(tmp_path: Path) -> None:
    data = read_predictions(*written(tmp_path))
    assert data.image_ids == ("ID_a", "ID_b")
    assert data.probabilities[0].tolist() == [0.9, 0, 0.1, 0.2, 0.3, 0.8]
    assert data.labels[1].tolist() == [0] * 6
    assert np.isnan(data.labels[0, 4])
    assert data.groups is None


def test_an_id_that_is_a_formula_is_inert_in_the_file_and_the_same_when_it_is_read(tmp_path: Path) -> None:
    given = {"=1+1": [0.5] * 6, "@SUM(1)": [0.25] * 6, "1.2.3": [0.0] * 6}
    write_predictions(tmp_path / "p.csv", given)
    assert not [line for line in (tmp_path / "p.csv").read_text().splitlines() if line[0] in "=@"]
    assert {name: list(row) for name, row in read_probabilities(tmp_path / "p.csv").items()} == given


def test_predictions_alone_are_read_by_image(tmp_path: Path) -> None:
    found = read_probabilities(written(tmp_path)[0])
    assert list(found) == ["ID_a", "ID_b"]
    assert found["ID_b"].tolist() == [0.1, 0, 0, 0, 0, 1e-3]


FINDINGS = (
    f"sop_instance_uid,frame,source,{','.join(LABELS)}\n1.2,0,a/IM0.dcm,0.9,0,0,0,0,0.8\n1.3,0,b/IM0.dcm,0,0,0,0,0,0\n"
)


@pytest.mark.parametrize("ids", [("b/IM0", "scans/a/im0.DCM"), ("1.3", "1.2")])
def test_findings_are_matched_by_file_or_by_uid(tmp_path: Path, ids: tuple[str, str]) -> None:
    rows = f"{ids[0]},0,0,0,0,0,0\n{ids[1]},1,0,0,0,0,1\n"
    data = read_predictions(*written(tmp_path, FINDINGS, f"{HEADER}\n{rows}"))
    assert data.image_ids == (ids[1].removesuffix(".DCM"), ids[0])
    assert data.labels[0].tolist() == [1, 0, 0, 0, 0, 1]


def test_repeated_rows_and_a_computed_any_are_noted(tmp_path: Path) -> None:
    types = "\n".join(",".join([line.split(",")[0], *line.split(",")[2:]]) for line in LABELLED.splitlines())
    data = read_predictions(*written(tmp_path, PREDICTIONS + "id_a.dcm,0.9,0,0.1,0.2,0.3,0.8\n", types))
    assert data.labels[:, 0].tolist() == [1, 0]
    assert data.notes == (
        "predictions.csv: rows that repeat an earlier one with equal values: 1",
        "labels.csv: images whose any was computed from the types: 2",
    )


def test_an_image_that_fits_two_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv: IM0 fits a/IM0, b/IM0"):
        read_predictions(*written(tmp_path, FINDINGS, f"{HEADER}\nIM0,0,0,0,0,0,0\n"))


def test_columns_may_be_in_any_order_and_the_file_may_be_gzipped(tmp_path: Path) -> None:
    turned = "\n".join(",".join(reversed(line.split(","))) for line in PREDICTIONS.splitlines())
    path = tmp_path / "predictions.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + turned.encode()))
    _, labels = written(tmp_path)
    assert read_predictions(path, labels).probabilities[0].tolist() == [0.9, 0, 0.1, 0.2, 0.3, 0.8]


@pytest.mark.parametrize("with_labels", [True, False])
def test_the_group_column_is_looked_for_in_both_files(tmp_path: Path, with_labels: bool) -> None:
    text = LABELLED if with_labels else PREDICTIONS
    lines = text.splitlines()
    grouped = "\n".join([lines[0] + ",patient_id", *(f"{line},of {line[:4]}" for line in lines[1:])])
    paths = written(tmp_path, labels=grouped) if with_labels else written(tmp_path, predictions=grouped)
    assert read_predictions(*paths, group_column="patient_id").groups == ("of ID_a", "of ID_b")


@pytest.mark.parametrize(
    ("predictions", "labels", "words"),
    [
        (
            PREDICTIONS + "ID_c,0,0,0,0,0,0\n",
            LABELLED,
            r"1 images of predictions.csv are missing from labels.csv: ID_c",
        ),
        (PREDICTIONS, LABELLED + "ID_d,0,0,0,0,0,0\n", r"images of labels.csv are missing from predictions.csv: ID_d"),
        (PREDICTIONS + "ID_a,0,0,0,0,0,0\n", LABELLED, "ID_a occurs in lines 2 and 4 with different values"),
        (PREDICTIONS.replace("subdural", "sdh"), LABELLED, "predictions.csv lacks the columns subdural"),
        (PREDICTIONS.replace("1e-3", "low"), LABELLED, "line 3 .ID_b. has subdural 'low', expected a number"),
        (PREDICTIONS.replace("1e-3", ""), LABELLED, "ID_b has an empty prediction"),
        (PREDICTIONS.replace("1e-3", "-3.5"), LABELLED, r"outside \[0, 1\]"),
        (PREDICTIONS, LABELLED.replace("ID_b,0", "ID_b,2"), "ID_b. has any '2', expected 0, 1 or nothing"),
        (PREDICTIONS + "ID_c,0\n", LABELLED, "line 4 is shorter than the header"),
        (HEADER + "\n", LABELLED, "header and no rows"),
        ('image_id,"any\n', LABELLED, "not a readable CSV table"),
    ],
)
def test_files_that_do_not_fit_are_refused_and_named(tmp_path: Path, predictions: str, labels: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_predictions(*written(tmp_path, predictions, labels))


def test_a_missing_or_damaged_file_is_refused_without_its_folder(tmp_path: Path) -> None:
    predictions, labels = written(tmp_path)
    damaged = tmp_path / "predictions.csv.gz"
    damaged.write_bytes(gzip.compress(PREDICTIONS.encode())[:-12])
    found = {tmp_path / "absent.csv": r"^absent\.csv: no such file", damaged: "not a readable CSV table"}
    for path, words in found.items():
        with pytest.raises(DataError, match=words) as caught:
            read_predictions(path, labels)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(DataError, match=r"neither labels.csv nor predictions.csv has the column 'patient'"):
        read_predictions(predictions, labels, group_column="patient")


def test_an_empty_group_is_refused(tmp_path: Path) -> None:
    grouped = (
        LABELLED.replace("subdural", "subdural,patient_id").replace("0\nID_a", "0,p1\nID_a").replace(",,1\n", ",,1,\n")
    )
    with pytest.raises(DataError, match="ID_a has an empty patient_id"):
        read_predictions(*written(tmp_path, labels=grouped), group_column="patient_id")
