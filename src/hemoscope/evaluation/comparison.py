"""Comparison of the evaluated predictions with a second set for the same images: differences and tests."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hemoscope.evaluation.clinical_inputs import SecondPredictions
from hemoscope.evaluation.level_scores import highest
from hemoscope.evaluation.metrics import DEFAULT_THRESHOLD, Booleans, Floats, decide
from hemoscope.evaluation.paired_tests import NO_ROWS, PairedDifference, auroc_difference, holm, proportion_difference
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.labels import LABELS

MEASURES = ("auroc", "recall", "specificity")
Document = dict[str, Any]
Compare = Callable[[Floats, Floats, Booleans, list[str]], PairedDifference | None]


def comparison_document(
    data: LabelledPredictions, second: SecondPredictions | None, cases: tuple[str, tuple[str, ...]] | None = None
) -> Document | None:
    """Return every measure of both sets, and their difference with interval and p values; None without a second set.

    Args:
        data: one row an image, the first set.
        second: the other set, for the same images.
        cases: name of a further level (``series`` or ``group``) and the case of each image; both sets score a case by
            the highest probability of its images.

    Raises:
        DataError: the second set is of other images.
    """
    if second is None:
        return None
    other = replace(data, probabilities=second.of_rows(data.image_ids))
    levels = {"slice": _level(data, other, second.margin)}
    if cases is not None:
        name, members = cases
        levels[name] = _level(highest(data, members), highest(other, members), second.margin)
    return {
        "with": second.name,
        "margin": second.margin,
        "decided_by": f"probability above {DEFAULT_THRESHOLD:g}, in both sets",
        "multiplicity": "Holm's adjustment over the labels with a p value, separately for each measure and level",
        "levels": levels,
    }


def _level(first: LabelledPredictions, second: LabelledPredictions, margin: float | None) -> Document:
    measures: dict[str, Compare] = {"auroc": auroc_difference, "recall": _recall, "specificity": _specificity}
    found = {
        name: [_compare(first, second, k, compare) for k in range(len(LABELS))] for name, compare in measures.items()
    }
    adjusted = {name: holm([one.p_value if one else None for one in found[name]]) for name in MEASURES}
    return {
        "n": len(first.image_ids),
        "labels": {
            label.value: {name: _document(found[name][k], adjusted[name][k], margin) for name in MEASURES}
            for k, label in enumerate(LABELS)
        },
    }


def _compare(
    first: LabelledPredictions, second: LabelledPredictions, k: int, compare: Compare
) -> PairedDifference | None:
    known = np.flatnonzero(np.isfinite(first.labels[:, k]))
    if not known.size:
        return None
    groups = first.groups or first.image_ids
    truth = np.asarray(first.labels[known, k] == 1.0)
    owners = [groups[int(row)] for row in known]
    return compare(first.probabilities[known, k], second.probabilities[known, k], truth, owners)


def _recall(first: Floats, second: Floats, truth: Booleans, groups: list[str]) -> PairedDifference | None:
    return proportion_difference(decide(first)[truth], decide(second)[truth], np.asarray(groups)[truth])


def _specificity(first: Floats, second: Floats, truth: Booleans, groups: list[str]) -> PairedDifference | None:
    return proportion_difference(~decide(first)[~truth], ~decide(second)[~truth], np.asarray(groups)[~truth])


def _document(found: PairedDifference | None, adjusted: float | None, margin: float | None) -> Document:
    if found is None:
        return {"first": None, "second": None, "difference": None, "p": None, "p_holm": None, "reason": NO_ROWS}
    document: Document = {
        "first": found.first,
        "second": found.second,
        "difference": {"value": found.difference, "low": found.low, "high": found.high},
        "p": found.p_value,
        "p_holm": adjusted,
        "reason": found.reason,
    }
    if margin is not None:
        document["noninferior"] = found.shows_noninferiority(margin)
    return document
