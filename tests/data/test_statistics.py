"""Statistics of a cache: unknown is never negative, and the page is self-contained."""

import html
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemoscope.data.cache import COLUMNS, Cache, open_cache, write_manifest
from hemoscope.data.statistics import dataset_statistics
from hemoscope.errors import MissingExtraError
from hemoscope.evaluation.statistics_page import statistics_tables, write_statistics
from hemoscope.inference.card import TrainingData

DATASET = TrainingData(
    name="<phantoms> & co", version="1", doi="10.0/none", license="CC0", attribution="nobody", changes="made"
)
U = None
ROWS = [
    # patient, series, any, epidural, intraparenchymal, intraventricular, subarachnoid, subdural
    ("p1", "s1", 0, 0, 0, 0, 0, 0),
    ("p1", "s1", 1, 0, 0, 0, 0, 1),
    ("p1", "s2", 1, 1, 0, 0, 0, 1),
    ("p2", "s3", 1, 0, 1, 0, 0, 0),
    ("p2", "s3", 1, U, 1, 1, U, 0),
    ("p3", "s4", 0, U, 0, 0, 0, 0),
    ("p3", "s4", 1, 0, 0, 0, 0, 0),
    ("p3", "s4", U, 0, 0, 0, 0, 1),
    ("p3", "s4", U, U, U, U, U, U),
]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    folder = tmp_path / "cache"
    folder.mkdir()
    rows = [
        dict(zip(COLUMNS, (f"i{place}", patient, patient, series, 0, False, *six), strict=True))
        for place, (patient, series, *six) in enumerate(ROWS)
    ]
    write_manifest(folder, rows, DATASET)
    return open_cache(folder)


def test_images_patients_and_series_are_counted(cache: Cache) -> None:
    found = dataset_statistics(cache)
    assert (found.images, found.patients, found.studies, found.series) == (9, 3, 3, 4)
    assert found.slices.tolist() == [3, 2, 4]
    spread = found.slices_a_patient
    assert (spread.least, spread.median, spread.most) == (2, 3.0, 4)


def test_an_unknown_label_is_neither_positive_nor_negative(cache: Cache) -> None:
    labels = dataset_statistics(cache).labels
    epidural = labels["epidural"]
    assert (epidural.positive, epidural.negative, epidural.unknown, epidural.positive_patients) == (1, 5, 3, 1)
    assert (labels["any"].positive, labels["any"].unknown, labels["any"].positive_patients) == (5, 2, 3)


def test_images_are_counted_by_no_one_and_more_diagnoses_and_unknown(cache: Cache) -> None:
    # Two types known to be positive are more than one, whatever else is unknown; any without a type is not one type.
    assert dataset_statistics(cache).kinds == {"none": 1, "one type": 3, "more than one": 2, "unknown": 3}


def test_labels_that_come_together_are_counted_in_both_directions(cache: Cache) -> None:
    matrix = dataset_statistics(cache).co_occurrence
    assert np.array_equal(matrix, matrix.T)
    assert np.diag(matrix).tolist() == [5, 1, 2, 1, 0, 3]
    assert (matrix[1, 5], matrix[2, 3], matrix[0, 5], matrix[4].sum()) == (1, 1, 2, 0)


def test_combinations_hold_every_image_once_and_contradictions_are_reported(cache: Cache) -> None:
    found = dataset_statistics(cache)
    assert sum(count for _, count in found.combinations) == 9
    assert ((1, 0, 0, 0, 0, 0), 1) in found.combinations
    assert ((None,) * 6, 1) in found.combinations
    assert found.contradictions == 1


def test_rows_show_an_image_of_each_of_the_most_frequent_combinations_with_its_id(cache: Cache) -> None:
    found = dataset_statistics(cache)
    labels = {f"i{place}": tuple(row[2:]) for place, row in enumerate(ROWS)}
    assert len(found.rows) == 5
    assert all(labels[image_id] == six for image_id, six in found.rows)
    assert [six for _, six in found.rows] == [six for six, _ in found.combinations[:5]]
    assert found.to_json()["rows"][0] == {"image_id": found.rows[0][0], "labels": list(found.rows[0][1])}


def test_classes_diagnoses_and_rows_are_tables_of_their_own_with_what_they_are_in_the_paper(cache: Cache) -> None:
    tables = {title: (header, rows) for title, header, rows in statistics_tables(dataset_statistics(cache))}
    header, classes = tables["Images of each class (the paper's figure 2)"]
    assert header[0] == "Class"
    assert [classes[place][0].split()[0] for place in (0, 1, 5)] == ["Any", "Epidural", "Subdural"]
    (diagnoses,) = (rows for title, (_, rows) in tables.items() if "diagnoses" in title)
    assert diagnoses == [
        ("none", "1", "11.1%"),
        ("one type", "3", "33.3%"),
        ("more than one", "2", "22.2%"),
        ("unknown", "3", "33.3%"),
    ]
    header, rows = tables["Rows of labels by image id, as in the paper's Table I"]
    assert header[0] == "Image id"
    assert ("i4", "1", "?", "1", "1", "?", "0") in rows
    assert [title for title in tables if "Table I" in title or "figure 2" in title] == [
        list(tables)[1],
        list(tables)[5],
    ]


def test_the_page_is_self_contained_and_escapes_names(cache: Cache, tmp_path: Path) -> None:
    found = dataset_statistics(cache)
    files = write_statistics(found, tmp_path / "out")
    assert {file.name for file in files} == {
        "stats.html",
        "stats.json",
        *(f"{name}.png" for name in ("kinds", "balance", "co_occurrence", "slices")),
    }
    page = (tmp_path / "out" / "stats.html").read_text()
    assert "&lt;phantoms&gt; &amp; co" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for title, _, rows in statistics_tables(found):
        assert title in html.unescape(page)
        assert all(len(row) == len(rows[0]) for row in rows)
    for file in files:
        if file.suffix == ".png":
            Image.open(io.BytesIO(file.read_bytes())).verify()
    numbers = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert numbers["labels"]["subdural"]["positive"] == 3
    assert numbers["slices_a_patient"] == {"least": 2, "median": 3.0, "most": 4}


def test_the_same_cache_gives_the_same_bytes(cache: Cache, tmp_path: Path) -> None:
    one = write_statistics(dataset_statistics(cache), tmp_path / "1")
    other = write_statistics(dataset_statistics(cache), tmp_path / "2")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_a_cache_without_any_positive_is_drawn_too(tmp_path: Path) -> None:
    write_manifest(tmp_path, [dict(zip(COLUMNS, ("i", "p", "s", "s", 0, False, *[0] * 6), strict=True))], DATASET)
    assert len(write_statistics(dataset_statistics(open_cache(tmp_path)), tmp_path / "out")) == 6


def test_without_matplotlib_the_missing_extra_is_named(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[study\]'"):
        write_statistics(dataset_statistics(cache), tmp_path / "out")
