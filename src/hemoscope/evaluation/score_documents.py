"""Scores as plain values for JSON: ``{"value", "low", "high"}``, or null with a reason."""

from typing import Any

from hemoscope.evaluation.bootstrap import Interval, LabelScores

Document = dict[str, Any]


def score_document(found: Interval | None) -> dict[str, float] | None:
    """Return one score with its 95% interval; None if undefined."""
    return None if found is None else found.as_dict()


def label_document(found: LabelScores) -> Document:
    """Return every metric of one label and its counts; ``reason`` says why one is null."""
    not_scored = found.reason is not None
    document: Document = {name: None if not_scored else score_document(value) for name, value in found.metrics.items()}
    undefined = [name for name, value in document.items() if value is None]
    document |= {
        "n_images": found.n_images,
        "n_positive": found.n_positive,
        "n_positive_groups": found.n_positive_groups,
        "dropped_rounds": found.dropped_rounds,
    }
    if not_scored:
        document["reason"] = found.reason
    elif undefined:
        document["reason"] = f"{', '.join(undefined)}: nothing was predicted positive"
    return document
