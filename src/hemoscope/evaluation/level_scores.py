"""Scores by series and by patient, and at a model's own operating points."""

from collections.abc import Hashable, Sequence

import numpy as np

from hemoscope.evaluation.bootstrap import bootstrap_scores
from hemoscope.evaluation.calibration_scores import calibration_of_labels
from hemoscope.evaluation.intervals import group_indices
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.score_documents import Document, label_document, score_document
from hemoscope.inference.calibration import OperatingPoint
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

POINT_METRICS = ("recall", "specificity", "precision", "f1", "accuracy")


def highest(data: LabelledPredictions, members: Sequence[Hashable]) -> LabelledPredictions:
    """Aggregate images by series or patient: the highest probability, and the highest known label.

    Args:
        data: one row an image.
        members: the series or patient of each image. Its group is that of its first image.

    Returns:
        One row per member, sorted by name; a label is NaN if it is unknown for all of the member's images.
    """
    index, count = group_indices(members, len(data.image_ids))
    probabilities = np.zeros((count, len(LABELS)))
    np.maximum.at(probabilities, index, data.probabilities)
    labels = np.full((count, len(LABELS)), np.nan)
    np.fmax.at(labels, index, data.labels)
    firsts = np.unique(index, return_index=True)[1]
    return LabelledPredictions(
        image_ids=tuple(str(members[int(row)]) for row in firsts),
        probabilities=probabilities,
        labels=labels,
        groups=None if data.groups is None else tuple(data.groups[int(row)] for row in firsts),
    )


def level_document(data: LabelledPredictions, scored_by: str, *, rounds: int, seed: int) -> Document:
    """Return scores of series or patients, one row of ``data`` each; ``scored_by`` describes their probabilities."""
    scores = bootstrap_scores(data.probabilities, data.labels, data.groups, rounds=rounds, seed=seed)
    calibration = calibration_of_labels(data.probabilities, data.labels, data.groups, seed=seed)
    return {
        "scored_by": scored_by,
        "n": len(data.image_ids),
        "labels": {label.value: label_document(scores.labels[label], calibration[label]) for label in LABELS},
    }


def points_document(data: LabelledPredictions, points: PerLabel[OperatingPoint], *, rounds: int, seed: int) -> Document:
    """Return the performance of a model's operating points, chosen on other data, on these predictions."""
    thresholds = [point.threshold for point in points.values]
    scores = bootstrap_scores(
        data.probabilities, data.labels, data.groups, thresholds=thresholds, rounds=rounds, seed=seed, ranked=False
    )

    def entry(label: Hemorrhage) -> Document:
        found, point = scores.labels[label], points[label]
        reached = {name: None if found.reason else score_document(found[name]) for name in POINT_METRICS}
        return {"threshold": point.threshold, "rule": point.rule, **reached}

    return {label.value: entry(label) for label in LABELS}
