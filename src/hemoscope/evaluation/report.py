"""The evaluation report: every score of a set of predictions as one document, with plots and a page.

Shape of ``report.json`` (``hemoscope.evaluation/1``; keys are only ever added): a score is
``{"value", "low", "high"}`` with its 95% interval, or null where it is not defined; ``labels.{label}.reason`` says why.
Points on curves (``any_tradeoff``, ``recall_at_precision``) are plain numbers.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hemoscope import DISCLAIMER, __version__
from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import (
    DEFAULT_ROUNDS,
    Interval,
    LabelScores,
    Scores,
    bootstrap_scores,
    group_indices,
)
from hemoscope.evaluation.metrics import CALIBRATION_BINS
from hemoscope.evaluation.plots import draw_plots
from hemoscope.evaluation.prediction_files import LabelledPredictions, read_predictions
from hemoscope.evaluation.recalibration import DEFAULT_METHOD, Recalibrated, recalibrate
from hemoscope.evaluation.report_page import render_page
from hemoscope.evaluation.tables import Document, any_learned_and_explicit, any_tradeoff, recall_at_precision
from hemoscope.labels import LABELS, Hemorrhage

SCHEMA = "hemoscope.evaluation/1"
DEFINITIONS = {
    "positive": "probability above 0.5, strictly",
    "interval": "95%, percentile bootstrap; rounds in which a label has one class only are dropped and counted",
    "ece": f"expected calibration error in {CALIBRATION_BINS} equal-width bins of probability",
    "log_loss": "as scikit-learn for float64: probabilities kept 2.2e-16 from 0 and 1",
    "weighted_log_loss": "RSNA 2019: mean of six log losses, any counts double; probabilities kept 1e-7 from 0 and 1",
    "average_precision": "as scikit-learn: sum of precision times gain in recall, no interpolation",
    "macro": "mean over the labels where the score is defined",
    "threshold": "lowest score that counts as positive; chosen on the same images, so what it reaches is optimistic",
    "group_level": "highest probability and highest label over the images of a group",
}


def evaluate_predictions(
    predictions: Path,
    labels: Path,
    output: Path,
    *,
    group_column: str | None = None,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
    method: str = DEFAULT_METHOD,
) -> Document:
    """Score a file of predictions; write report.json, report.html and PNGs into ``output`` and return the report.

    Args:
        predictions: CSV (gz allowed) with image_id and six probabilities.
        labels: CSV (gz allowed) with image_id and six labels.
        output: a folder, made if absent; files of an earlier report in it are replaced.
        group_column: the column that names the patient; None draws single images and says so.
        rounds: bootstrap rounds.
        seed: of the bootstrap and of the folds of cross-fitting.
        method: of calibration: platt, isotonic or temperature.

    Raises:
        DataError: the files do not fit together, or the method is unknown.
        MissingExtraError: matplotlib is not installed.
    """
    data = read_predictions(predictions, labels, group_column=group_column)
    after = recalibrate(data.probabilities, data.labels, data.groups, method=method, seed=seed)
    report = evaluation_report(data, after, rounds=rounds, seed=seed)
    plots = draw_plots(data.probabilities, data.labels, after.probabilities)
    write_evaluation(report, plots, output)
    return report


def evaluation_report(
    data: LabelledPredictions, after: Recalibrated, *, rounds: int = DEFAULT_ROUNDS, seed: int = 0
) -> Document:
    """Everything that report.json holds; see the head of this module.

    Args:
        data: predictions beside labels.
        after: what :func:`recalibrate` made of them.
        rounds: bootstrap rounds.
        seed: of the bootstrap.
    """
    scores = bootstrap_scores(data.probabilities, data.labels, data.groups, rounds=rounds, seed=seed)
    return {
        "schema": SCHEMA,
        "hemoscope": __version__,
        "disclaimer": DISCLAIMER,
        "n_images": scores.n_images,
        "n_groups": scores.n_groups,
        "bootstrap": {"rounds": rounds, "seed": seed, "unit": "image" if scores.n_groups is None else "group"},
        "warnings": _warnings(scores),
        "definitions": DEFINITIONS,
        "labels": {label.value: _label(found) for label, found in scores.labels.items()},
        "macro": {name: _score(found) for name, found in scores.macro.items()},
        "exact_match": _score(scores.exact_match),
        "weighted_log_loss": _score(scores.weighted_log_loss),
        "any": any_learned_and_explicit(data.probabilities, data.labels, data.groups, rounds=rounds, seed=seed),
        "any_tradeoff": any_tradeoff(data.probabilities, data.labels),
        "recall_at_precision": recall_at_precision(data.probabilities, data.labels),
        "calibrated": _calibrated(data, after, rounds=rounds, seed=seed),
        "group_level": _group_level(data, rounds=rounds, seed=seed),
    }


def _score(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else found.as_dict()


def _label(found: LabelScores) -> Document:
    one_class = found.reason is not None
    document: Document = {name: None if one_class else _score(value) for name, value in found.metrics.items()}
    document |= {
        "n_images": found.n_images,
        "n_positive": found.n_positive,
        "n_positive_groups": found.n_positive_groups,
        "dropped_rounds": found.dropped_rounds,
    }
    undefined = [name for name, value in document.items() if value is None and name in found.metrics]
    if one_class:
        document["reason"] = found.reason
    elif undefined:
        document["reason"] = f"{', '.join(undefined)}: nothing was predicted positive"
    return document


def _warnings(scores: Scores) -> list[str]:
    warnings = []
    if scores.n_groups is None:
        warnings.append(
            "No patient was given for the images: intervals were drawn over images and calibration folds split by "
            "image. Slices of one head resemble each other, so the intervals are too narrow and calibration optimistic."
        )
    if any(found.n_images < scores.n_images for found in scores.labels.values):
        warnings.append("Some labels are unknown: those images are left out label by label.")
    return warnings


def _calibrated(data: LabelledPredictions, after: Recalibrated, *, rounds: int, seed: int) -> Document:
    """Scores of the cross-fitted probabilities; a label that could not be fitted is null with the reason."""
    # The bootstrap wants a number everywhere; what stands in for NaN belongs to no known label that is reported.
    values = np.where(np.isfinite(after.probabilities), after.probabilities, 0.5)
    scores = bootstrap_scores(values, data.labels, data.groups, rounds=rounds, seed=seed)

    def entry(label: Hemorrhage) -> Document:
        names, reason = ("ece", "brier", "log_loss"), after.reasons[label]
        if reason is not None:
            return {**dict.fromkeys(names), "reason": reason}
        return {name: _score(scores.labels[label][name]) for name in names}

    every_label = all(reason is None for reason in after.reasons.values)
    return {
        "method": after.method,
        "folds": after.folds,
        "folds_by": "image" if data.groups is None else "group",
        "weighted_log_loss": _score(scores.weighted_log_loss) if every_label else None,
        "labels": {label.value: entry(label) for label in LABELS},
    }


def _group_level(data: LabelledPredictions, *, rounds: int, seed: int) -> Document | None:
    """Scores of whole groups (patients, studies); null where none are given."""
    if data.groups is None:
        return None
    group, n_groups = group_indices(data.groups, len(data.groups))
    highest = np.zeros((n_groups, len(LABELS)))
    np.maximum.at(highest, group, data.probabilities)
    truth = np.full((n_groups, len(LABELS)), np.nan)
    np.fmax.at(truth, group, data.labels)
    scores = bootstrap_scores(highest, truth, list(range(n_groups)), rounds=rounds, seed=seed)
    return {"labels": {label.value: _label(found) for label, found in scores.labels.items()}}


def write_evaluation(report: Document, plots: Mapping[str, bytes], output: Path) -> None:
    """Write report.json, report.html and one PNG a plot into ``output``, made if absent.

    Raises:
        DataError: the folder cannot be written.
    """
    files = {f"{name}.png": png for name, png in plots.items()}
    files["report.html"] = render_page(report, plots).encode()
    # Last, so that a report.json stands only beside a complete set.
    files["report.json"] = (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _replace(output / name, content)
    except OSError as error:
        msg = f"{output.name}: cannot be written ({error.strerror}). Give --output a folder that can"
        raise DataError(msg) from error


def _replace(path: Path, content: bytes) -> None:
    """Write beside ``path`` and rename, so that a reader sees the old file or the new one."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        draft.write_bytes(content)
        draft.replace(path)
