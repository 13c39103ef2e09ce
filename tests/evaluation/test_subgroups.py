"""Subgroups: scores as of the rows alone, counts instead of scores for few patients, and clear errors for columns."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hemoscope.errors import ConfigError, DataError
from hemoscope.evaluation.clinical_inputs import SubgroupColumn
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.subgroup_tables import read_subgroups
from hemoscope.evaluation.subgroups import MIXED, subgroup_document
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import LABELS, PerLabel


def made(patients: int = 60, slices: int = 4) -> LabelledPredictions:
    random = np.random.default_rng(0)
    rows = patients * slices
    labels = (random.random((rows, 6)) < 0.3).astype(float)
    probabilities = np.clip(0.3 * labels + 0.7 * random.random(labels.shape), 0, 1)
    return LabelledPredictions(
        image_ids=tuple(f"i{row}" for row in range(rows)),
        probabilities=probabilities,
        labels=labels,
        groups=tuple(f"p{row // slices}" for row in range(rows)),
    )


def by_sex(data: LabelledPredictions) -> SubgroupColumn:
    """Thirty women, twenty-six men, three without a value, and one other."""
    values = ["F"] * 30 + ["M"] * 26 + [""] * 3 + ["O"]
    return SubgroupColumn(name="sex", key="patient", values={f"p{i}": value for i, value in enumerate(values)})


def found_for(document: dict[str, Any] | None, level: str, column: str, value: str | None) -> dict[str, Any]:
    assert document is not None
    return next(one for one in document["levels"][level]["columns"][column] if one["value"] == value)


def test_a_subgroup_scores_as_its_rows_alone() -> None:
    data = made()
    document = subgroup_document([by_sex(data)], data)
    women = np.array([int(group[1:]) < 30 for group in data.groups or ()])
    found = found_for(document, "slice", "sex", "F")
    assert (found["n"], found["n_groups"]) == (120, 30)
    for k, label in enumerate(LABELS):
        truth, values = data.labels[women, k], data.probabilities[women, k]
        scores = found["labels"][label]
        assert scores["auroc"]["value"] == pytest.approx(roc_auc_score(truth, values))
        assert scores["recall"]["value"] == pytest.approx((values[truth == 1] > 0.5).mean())
        assert scores["specificity"]["value"] == pytest.approx((values[truth == 0] <= 0.5).mean())
        assert scores["auroc"]["low"] < scores["auroc"]["value"] < scores["auroc"]["high"]
        assert scores["reason"] is None


def test_few_patients_get_counts_and_a_reason_and_never_a_score() -> None:
    document = subgroup_document([by_sex(made())], made())
    for value, patients in (("O", 1), (None, 3)):
        scores = found_for(document, "slice", "sex", value)["labels"]["any"]
        assert (scores["auroc"], scores["recall"], scores["specificity"]) == (None, None, None)
        assert scores["n_positive"] + scores["n_negative"] == patients * 4
        assert "at least 5" in scores["reason"]


def test_too_few_positive_patients_leave_the_specificity() -> None:
    data = made()
    labels = data.labels.copy()
    labels[:, 0] = 0.0
    labels[[0, 4, 8], 0] = 1.0
    scores = found_for(subgroup_document([by_sex(data)], replace(data, labels=labels)), "slice", "sex", "F")["labels"][
        "any"
    ]
    assert (scores["auroc"], scores["recall"]) == (None, None)
    assert scores["specificity"]["value"] > 0
    assert scores["reason"] == "patients with the label 3, without it 30; a score needs at least 5"


def test_unknown_values_are_a_row_of_their_own_and_come_last() -> None:
    document = subgroup_document([by_sex(made())], made())
    assert document is not None
    assert [one["value"] for one in document["levels"]["slice"]["columns"]["sex"]] == ["F", "M", "O", None]


def test_cut_points_make_classes_in_their_order() -> None:
    data = made()
    ages = {f"p{i}": str(age) for i, age in enumerate(np.linspace(18, 90, 60).round(1))}
    column = SubgroupColumn(name="age", key="patient", values=ages, cuts=(40.0, 65.0))
    document = subgroup_document([column], data)
    assert document is not None
    found = document["levels"]["slice"]["columns"]["age"]
    assert [one["value"] for one in found] == ["below 40", "40 to below 65", "65 and above"]
    assert sum(one["n"] for one in found) == len(data.image_ids)
    assert SubgroupColumn(name="age", key="image", values={"i0": "40"}, cuts=(40.0,)).of_rows(
        replace(data, image_ids=("i0",))
    ) == ("40 and above",)


def test_the_models_thresholds_decide_if_there_are_any() -> None:
    data = made()
    points = PerLabel.of([OperatingPoint(threshold=0.2, rule="youden")] * 6)
    document = subgroup_document([by_sex(data)], data, points)
    assert document is not None
    assert document["levels"]["slice"]["decided_by"] == "the model's operating points"
    women = np.array([int(group[1:]) < 30 for group in data.groups or ()])
    truth, values = data.labels[women, 0], data.probabilities[women, 0]
    found = found_for(document, "slice", "sex", "F")["labels"]["any"]["recall"]
    assert found["value"] == pytest.approx((values[truth == 1] >= 0.2).mean())


def test_a_case_whose_images_differ_stands_apart() -> None:
    data = made(patients=12)
    values = dict.fromkeys(data.image_ids, "thin") | {"i0": "thick"}
    column = SubgroupColumn(name="slice", key="image", values=values)
    cases = replace(
        data,
        image_ids=tuple(f"p{i}" for i in range(12)),
        probabilities=data.probabilities[::4],
        labels=data.labels[::4],
        groups=tuple(f"p{i}" for i in range(12)),
    )
    document = subgroup_document([column], data, cases=("group", cases, data.groups or (), None))
    assert document is not None
    assert [(one["value"], one["n"]) for one in document["levels"]["group"]["columns"]["slice"]] == [
        ("thin", 11),
        (MIXED, 1),
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            SubgroupColumn(name="sex", key="patient", values={"other": "F"}),
            "has values, but none for a scored patient",
        ),
        (SubgroupColumn(name="id", key="image", values={f"i{i}": f"{i}" for i in range(240)}), "240 different values"),
        (SubgroupColumn(name="age", key="patient", values={"p0": "old"}, cuts=(40.0,)), "'old', which is not a number"),
    ],
)
def test_a_column_that_divides_nothing_is_an_error(column: SubgroupColumn, message: str) -> None:
    with pytest.raises(DataError, match=message):
        subgroup_document([column], made())


def test_a_column_that_is_known_for_no_image_is_one_row_of_unknown() -> None:
    data = made()
    column = SubgroupColumn(name="spacing", key="image", values=dict.fromkeys(data.image_ids, ""), cuts=(2.0,))
    document = subgroup_document([column], data)
    assert document is not None
    assert [(one["value"], one["n"]) for one in document["levels"]["slice"]["columns"]["spacing"]] == [(None, 240)]


def test_a_column_by_patient_needs_patients() -> None:
    with pytest.raises(DataError, match="no patients are known"):
        subgroup_document([by_sex(made())], replace(made(), groups=None))


def test_columns_are_read_by_image_or_by_patient(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image_id,site\ni0,north\n")
    with gzip.open(tmp_path / "patients.csv.gz", "wt") as stream:
        stream.write("patient_id,sex,age\np0,F,71\n")
    tables = [tmp_path / "labels.csv", tmp_path / "patients.csv.gz"]
    site, age, spacing = read_subgroups(["site", "age:40,65", "spacing"], tables, {"spacing": {"i0": "5"}})
    assert (site.key, dict(site.values)) == ("image", {"i0": "north"})
    assert (age.key, dict(age.values), age.cuts) == ("patient", {"p0": "71"}, (40.0, 65.0))
    assert dict(spacing.values) == {"i0": "5"}


@pytest.mark.parametrize("text", ["age:65,40", "age:old", ":40", "age:40,40", "age:nan"])
def test_cut_points_that_do_not_rise_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="rising numbers"):
        read_subgroups([text], [])


def test_a_missing_column_or_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,sex\nx,F\n")
    with pytest.raises(DataError, match=r"age: not found in t\.csv"):
        read_subgroups(["age"], [tmp_path / "t.csv"])
    with pytest.raises(DataError, match=r"t\.csv has neither image_id nor patient_id"):
        read_subgroups(["sex"], [tmp_path / "t.csv"])
    with pytest.raises(DataError, match=r"absent\.csv: no such file"):
        read_subgroups(["sex"], [tmp_path / "absent.csv"])
