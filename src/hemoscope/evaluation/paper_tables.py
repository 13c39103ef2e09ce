"""Tables III to V of the paper (Lewicki et al. 2020) for any predictions, as plain values for JSON.

Table II is part of the scores themselves. A score with an interval is ``{"value", "low", "high"}``; a point on a curve
is plain numbers; its ``threshold`` is the lowest score that counts as positive (at or above).
"""

from collections.abc import Hashable, Sequence

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import UNKNOWN
from hemoscope.evaluation.intervals import decision_intervals
from hemoscope.evaluation.metrics import Booleans, Floats, decide
from hemoscope.evaluation.score_documents import Document, score_document
from hemoscope.evaluation.thresholds import Cuts, row_at_precision
from hemoscope.labels import LABELS

TRADEOFF_PRECISIONS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
TABLE_FIVE_PRECISION = 0.7


def any_learned_and_explicit(
    probabilities: Floats, labels: Floats, groups: Sequence[Hashable] | None = None
) -> Document:
    """Table III: the network's ``any`` output compared with "at least one of the five types", both above 0.5.

    Args:
        probabilities: (images, 6) in label order.
        labels: (images, 6) of 0, 1 or NaN; images with unknown ``any`` are excluded.
        groups: the patient of each image.
    """
    known = np.flatnonzero(np.isfinite(labels[:, 0]))
    if known.size == 0:
        empty = {**dict.fromkeys(("accuracy", "precision", "recall")), "reason": UNKNOWN}
        return {"learned": empty, "explicit": empty}
    decisions = decide(probabilities[known])
    ways: dict[str, Booleans] = {"learned": decisions[:, 0], "explicit": np.asarray(decisions[:, 1:].any(axis=1))}
    kept = None if groups is None else [groups[int(row)] for row in known]
    truth: Booleans = labels[known, 0] == 1.0

    def scores(predicted: Booleans) -> Document:
        found = decision_intervals(truth, predicted, kept)
        return {name: score_document(found[name]) for name in ("accuracy", "precision", "recall")}

    return {way: scores(predicted) for way, predicted in ways.items()}


def point_at_precision(scores: Floats, labels: Floats, target: float) -> Document:
    """Return the point of highest recall whose precision reaches ``target``, without rounding its threshold.

    The published Table IV rounded the threshold before computing accuracy (.595 beside precision .50). If there is no
    such point, the numbers are null and ``reason`` says why.
    """
    known = np.isfinite(labels)
    empty = {"target": target, **dict.fromkeys(("precision", "threshold", "recall", "accuracy"))}
    if not known.any():
        return {**empty, "reason": UNKNOWN}
    try:
        cuts = Cuts.of(scores[known], labels[known])
        row = row_at_precision(cuts, target)
    except DataError as error:
        return {**empty, "reason": str(error)}
    return {
        "target": target,
        "precision": float(cuts.precision[row]),
        "threshold": float(cuts.scores[row]),
        "recall": float(cuts.sensitivity[row]),
        "accuracy": float(cuts.accuracy[row]),
    }


def any_tradeoff(probabilities: Floats, labels: Floats) -> list[Document]:
    """Table IV: thresholds of ``any`` for precisions .50 to .95; arguments (images, 6)."""
    return [point_at_precision(probabilities[:, 0], labels[:, 0], target) for target in TRADEOFF_PRECISIONS]


def recall_at_precision(probabilities: Floats, labels: Floats) -> Document:
    """Table V: recall of each label where its precision reaches 0.7; arguments (images, 6)."""
    return {
        label.value: point_at_precision(probabilities[:, k], labels[:, k], TABLE_FIVE_PRECISION)
        for k, label in enumerate(LABELS)
    }
