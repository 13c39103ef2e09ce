"""Scores as plain values for JSON: ``{"value", "low", "high"}``, or null with a reason.

``"unreliable": true`` stands beside an interval that is too narrow, since few patients were resampled for it.

The calibration error has no interval: its ``low`` and ``high`` are null.
"""

from typing import Any

from hemoscope.evaluation.bootstrap import LabelScores
from hemoscope.evaluation.calibration_scores import CalibrationScores
from hemoscope.evaluation.intervals import Interval

Document = dict[str, Any]


def score_document(found: Interval | None) -> dict[str, float] | None:
    """Return one score with its 95% interval; None if undefined."""
    return None if found is None else found.as_dict()


def error_document(value: float | None) -> dict[str, float | None] | None:
    """Return a calibration error, which has no interval; None if undefined."""
    return None if value is None else {"value": value, "low": None, "high": None}


def calibration_document(found: CalibrationScores) -> Document:
    """Return slope, intercept, observed to expected and the calibration error of calibrated probabilities.

    ``reason`` is there if the first three are null for few patients.
    """
    document: Document = {
        "slope": score_document(found.slope),
        "intercept": score_document(found.intercept),
        "observed_expected": score_document(found.observed_expected),
        "ece_if_calibrated": found.ece_if_calibrated,
    }
    return document if found.reason is None else {**document, "reason": found.reason}


def label_document(found: LabelScores, calibration: CalibrationScores) -> Document:
    """Return every metric of one label and its counts; ``reason`` says why one is null."""
    not_scored = found.reason is not None
    document: Document = {name: None if not_scored else score_document(value) for name, value in found.metrics.items()}
    document["ece"] = error_document(found.ece)
    undefined = [name for name, value in document.items() if value is None]
    document |= {
        "n_images": found.n_images,
        "n_positive": found.n_positive,
        "n_positive_groups": found.n_positive_groups,
        "dropped_rounds": found.dropped_rounds,
        "calibration": calibration_document(calibration),
    }
    if not_scored:
        document["reason"] = found.reason
    elif undefined:
        document["reason"] = f"{', '.join(undefined)}: nothing was predicted positive"
    return document
