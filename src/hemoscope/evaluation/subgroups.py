"""Scores of subgroups of the images, such as a sex, an age group or a slice spacing, with intervals by patient.

A score needs FEWEST_PATIENTS patients of its class in the subgroup: sensitivity with the label, specificity without it,
AUROC both. Otherwise the counts stand alone, with the reason.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.clinical_inputs import UNKNOWN_VALUE, SubgroupColumn
from hemoscope.evaluation.cross_tabulation import decision_words
from hemoscope.evaluation.intervals import FEWEST_PATIENTS, auroc_interval, proportion_interval
from hemoscope.evaluation.metrics import Booleans, decide
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import LABELS, PerLabel

MIXED = "differs between its images"
_MOST_SUBGROUPS = 20
Document = dict[str, Any]


def subgroup_document(
    columns: Sequence[SubgroupColumn],
    data: LabelledPredictions,
    points: PerLabel[OperatingPoint] | None = None,
    *,
    cases: tuple[str, LabelledPredictions, Sequence[str], PerLabel[OperatingPoint] | None] | None = None,
) -> Document | None:
    """Return the scores of every subgroup of every column; None without columns.

    Args:
        columns: what divides the images.
        data: one row an image.
        points: thresholds for images; None means above 0.5.
        cases: name of the level (``series`` or ``group``), one row a case, the case of each image, and the thresholds.
            A case belongs to the subgroup that all its images share.

    Raises:
        DataError: a column has values for other images or patients only, or too many different ones.
    """
    if not columns:
        return None
    levels: Document = {"slice": _level(columns, data, [column.of_rows(data) for column in columns], points)}
    if cases is not None:
        name, rows, members, thresholds = cases
        values = [_of_cases(column.of_rows(data), members, rows.image_ids) for column in columns]
        levels[name] = _level(columns, rows, values, thresholds)
    return {"fewest_patients": FEWEST_PATIENTS, "levels": levels}


def _of_cases(values: Sequence[str], members: Sequence[str], cases: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, set[str]] = {}
    for value, member in zip(values, members, strict=True):
        found.setdefault(member, set()).add(value)
    of_case = {case: next(iter(those)) if len(those) == 1 else MIXED for case, those in found.items()}
    return tuple(of_case.get(case, UNKNOWN_VALUE) for case in cases)


def _level(
    columns: Sequence[SubgroupColumn],
    data: LabelledPredictions,
    values: Sequence[Sequence[str]],
    points: PerLabel[OperatingPoint] | None,
) -> Document:
    """Return the rows of one level: each column, and each of its values."""
    thresholds = None if points is None else [point.threshold for point in points.values]
    decisions = decide(data.probabilities, thresholds)
    named = {
        column.name: _column(column, data, found, decisions) for column, found in zip(columns, values, strict=True)
    }
    return {"decided_by": decision_words(points), "columns": named}


def _column(column: SubgroupColumn, data: LabelledPredictions, values: Sequence[str], decisions: Booleans) -> list[Any]:
    names = column.ordered(set(values) - {MIXED}) + ([MIXED] if MIXED in values else [])
    if names == [UNKNOWN_VALUE] and any(value.strip() for value in column.values.values()):
        msg = f"column {column.name} has values, but none for a scored {column.key}. Check the ids of its table"
        raise DataError(msg)
    if len(names) > _MOST_SUBGROUPS:
        msg = (
            f"column {column.name} has {len(names)} different values, more than {_MOST_SUBGROUPS}. Give cut points "
            f"for numbers, such as --subgroup {column.name}:40,65"
        )
        raise DataError(msg)
    every = np.asarray(values, dtype=object)
    return [_subgroup(name, data, np.flatnonzero(every == name), decisions) for name in names]


def _subgroup(name: str, data: LabelledPredictions, rows: Any, decisions: Booleans) -> Document:
    groups = data.groups or data.image_ids
    members = np.array([groups[int(row)] for row in rows], dtype=object)
    return {
        "value": name or None,
        "n": len(rows),
        "n_groups": None if data.groups is None else len(set(members)),
        "labels": {
            label.value: _scores(
                data.probabilities[rows, k], data.labels[rows, k], decisions[rows, k], members, data.groups
            )
            for k, label in enumerate(LABELS)
        },
    }


def _scores(
    probabilities: Any, labels: Any, decisions: Any, members: Any, groups: Sequence[Hashable] | None
) -> Document:
    """Return AUROC, sensitivity and specificity of one label in one subgroup, or the reason why not."""
    known = np.isfinite(labels)
    truth, values, decided, owners = labels[known] == 1.0, probabilities[known], decisions[known], members[known]
    having, lacking = len(set(owners[truth])), len(set(owners[~truth]))
    enough, unit = (
        {True: having >= FEWEST_PATIENTS, False: lacking >= FEWEST_PATIENTS},
        "images" if groups is None else "patients",
    )
    found = {
        "auroc": auroc_interval(values, truth, owners) if all(enough.values()) else None,
        "recall": proportion_interval(decided[truth], owners[truth]) if enough[True] else None,
        "specificity": proportion_interval(~decided[~truth], owners[~truth]) if enough[False] else None,
    }
    return {
        **{name: None if score is None else score.as_dict() for name, score in found.items()},
        "n_positive": int(truth.sum()),
        "n_negative": int((~truth).sum()),
        "n_positive_groups": None if groups is None else having,
        "n_negative_groups": None if groups is None else lacking,
        "reason": None
        if all(enough.values())
        else f"{unit} with the label {having}, without it {lacking}; a score needs at least {FEWEST_PATIENTS}",
    }
