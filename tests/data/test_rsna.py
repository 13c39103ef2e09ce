"""Kaggle's label file: six lines per image, some of them duplicated, all of them checked."""

from pathlib import Path

import pytest

from hemoscope.data.rsna import DATASET, read_rsna_labels
from hemoscope.errors import DataError
from hemoscope.labels import LABELS, SUBTYPES

KAGGLE_ORDER = (*SUBTYPES, LABELS[0])  # `any` comes last in Kaggle's file


def lines_of(image_id: str, *positive: str) -> list[str]:
    return [f"{image_id}_{label},{int(label in positive)}" for label in KAGGLE_ORDER]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["ID,Label", *lines]) + "\n")
    return path


def test_six_lines_become_six_labels_in_label_order(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [*lines_of("ID_b", "subdural", "any"), *lines_of("ID_a")])
    found = read_rsna_labels(path)
    assert {image_id: image.labels for image_id, image in found.items()} == {
        "ID_a": (0, 0, 0, 0, 0, 0),
        "ID_b": (1, 0, 0, 0, 0, 1),
    }
    assert list(found) == ["ID_b", "ID_a"]
    assert all(image.patient_id is None for image in found.values())


def test_repeated_lines_that_agree_are_dropped_wherever_they_stand(tmp_path: Path) -> None:
    once = [*lines_of("ID_a", "any", "epidural"), *lines_of("ID_b")]
    twice = [*once, *lines_of("ID_a", "any", "epidural")]
    assert read_rsna_labels(write(tmp_path / "2.csv", twice)) == read_rsna_labels(write(tmp_path / "1.csv", once))


def test_lines_that_contradict_each_other_are_an_error_that_names_both(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [*lines_of("ID_a"), *lines_of("ID_b"), "ID_a_epidural,1"])
    with pytest.raises(DataError, match=r"t\.csv: ID_a_epidural is 0 in line 2 and 1 in line 14\. Remove the wrong"):
        read_rsna_labels(path)


def test_the_lines_of_an_image_need_not_follow_each_other(tmp_path: Path) -> None:
    lines = [*lines_of("ID_b", "subdural", "any"), *lines_of("ID_a")]
    found = read_rsna_labels(write(tmp_path / "t.csv", lines[::2] + lines[1::2] + lines[:3]))
    assert found == read_rsna_labels(write(tmp_path / "whole.csv", lines))


def test_an_image_without_all_six_lines_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ID_b has no line for any, subdural"):
        read_rsna_labels(write(tmp_path / "t.csv", [*lines_of("ID_a"), *lines_of("ID_b")[:4]]))


@pytest.mark.parametrize("line", ["ID_b_fracture,0", "ID_b_any,", "any,0"])
def test_a_line_that_names_no_label_or_no_value_is_an_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv: line 8 is .*expected an ID that ends in a label, and 0 or 1"):
        read_rsna_labels(write(tmp_path / "t.csv", [*lines_of("ID_a"), line, *lines_of("ID_c")]))


def test_the_dataset_states_its_terms() -> None:
    assert "non-commercial research and education" in DATASET.license


@pytest.mark.parametrize(("line", "words"), [("ID_b_any,2", "has any '2', expected 0, 1"), ("", "line 8 is empty")])
def test_a_wrong_value_and_an_empty_line_are_errors_that_name_the_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_rsna_labels(write(tmp_path / "t.csv", [*lines_of("ID_a"), line, *lines_of("ID_c")]))
