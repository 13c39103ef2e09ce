"""Tunes a bundle on its predictions of labelled validation images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS
from hemoscope.evaluation.calibrate import DEFAULT_FOLDS, DEFAULT_METHOD, logit
from hemoscope.evaluation.conformal import measured_rule
from hemoscope.evaluation.intervals import group_indices
from hemoscope.evaluation.metrics import Booleans, Floats
from hemoscope.evaluation.performance import measured, with_performance
from hemoscope.evaluation.prediction_files import LabelledPredictions, read_predictions
from hemoscope.evaluation.score_table import score_table
from hemoscope.evaluation.threshold_rules import ThresholdRule
from hemoscope.evaluation.tuning import (
    CrossFitted,
    LevelSettings,
    TunedLevel,
    ValidationScores,
    cross_fit,
    level_scores,
    tune_level,
)
from hemoscope.inference.bundle import GRAPH, GRAPH_INT8, SEQUENCE, ModelBundle, write_bundle
from hemoscope.inference.calibration import AnyCalibration, Calibration, IsotonicCalibration, SliceRule
from hemoscope.inference.card import ModelCard, ScoreTable, images_sha256, to_plain
from hemoscope.inference.probabilities import study_logits
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.version import __version__

SCHEMA = "hemoscope.tuning/1"
RECORD = "tuning.json"
TUNED = "+tuned"
NO_GROUPS = (
    "No patients are given: folds and intervals are by image. Slices of one head resemble each other, so scores are "
    "optimistic and the intervals too narrow. Give --groups."
)
NOT_INVERTIBLE = (
    "the bundle has an isotonic curve, which is not invertible: the network's scores cannot be recovered. "
    "Tune the bundle that it was tuned from"
)
TOO_FEW_STUDIES = "too few studies to choose them, so they were only converted to the new calibration"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningChoices:
    """Options of tuning.

    Attributes:
        group_column: names the patient; None uses ``study_column``, or else single images, with a warning.
        study_column: names the study, to tune the study level too. The files have no positions, so slices count as
            nominally spaced: use it only for slices of about that spacing.
        series_files: predictions and labels of series, as written by ``hemoscope evaluate --data``, to tune the study
            level on the model's own study scores. Takes precedence over ``study_column``.
        method: of calibration: platt, isotonic or temperature.
        rule: for every label; None keeps each point's own rule. The urgent point always keeps its own.
        names: columns of any of the tables that have other names, by role (``image_table.ROLES``).
        name: of the data, for the card.
        rounds: bootstrap rounds of the intervals.
        seed: of folds and bootstrap.

    """

    group_column: str | None = None
    study_column: str | None = None
    series_files: tuple[Path, Path] | None = None
    method: str = DEFAULT_METHOD
    rule: ThresholdRule | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    name: str = "unnamed validation data"
    rounds: int = DEFAULT_ROUNDS
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedBundle:
    """The new bundle, the record of its tuning (also in the bundle as ``tuning.json``), and how tables were read."""

    bundle: ModelBundle
    record: Document
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Level:
    name: Literal["slice", "study"]
    scores: ValidationScores
    before: LevelSettings
    tuned: TunedLevel
    held_out: CrossFitted


def tune_bundle(
    bundle: ModelBundle, predictions: Path, labels: Path, output: Path, choices: TuningChoices | None = None
) -> TunedBundle:
    """Fit a bundle's calibration and operating points on its own predictions, and write a new bundle.

    Args:
        bundle: the model that produced the predictions.
        predictions: CSV of image_id and six calibrated probabilities, as ``hemoscope evaluate`` writes it.
        labels: CSV of image_id and six labels of the same images, which were not used in training.
        output: folder of the new bundle; must not exist.
        choices: columns, rule and name; None uses the defaults.

    Raises:
        DataError: the files do not match or have too few patients to cross-fit, the method is unknown, or the bundle
            cannot be tuned again.
        BundleError: the output exists.
    """
    choices, card = choices or TuningChoices(), bundle.card
    group_column = choices.group_column or choices.study_column
    beside = choices.series_files or ()
    data = read_predictions(predictions, labels, group_column=group_column, names=choices.names, beside=beside)
    groups, _ = group_indices(data.groups, len(data.image_ids))
    raw = raw_logits(data.probabilities, card.calibration.slice)
    slices = ValidationScores(logits=raw, truth=data.labels, groups=groups)
    levels = [_tune("slice", slices, card, choices)]
    studies = _study_level(slices, (predictions, labels), card, choices)
    if studies is not None:
        levels.append(_tune("study", studies, card, choices))
    record = _record(levels, data, choices)
    # The record of an earlier tuning is outdated.
    kept = {file: bundle.read_file(file) for file in card.files if file not in {GRAPH, GRAPH_INT8, SEQUENCE, RECORD}}
    content = json.dumps(record, indent=2, allow_nan=False) + "\n"
    tuned = _tuned_card(card, levels, record)
    files = {**kept, RECORD: content.encode()}
    int8 = bundle.read_file(GRAPH_INT8) if bundle.has_int8 else None
    written = write_bundle(output, tuned, bundle.read_graph(), files, sequence=bundle.read_sequence(), int8=int8)
    return TunedBundle(bundle=written, record=record, notes=data.notes)


def tuned_on(bundle: ModelBundle) -> str | None:
    """Return the hash of a bundle's tuning images (``card.images_sha256``); None if unknown."""
    if RECORD not in bundle.card.files:
        return None
    record = json.loads(bundle.read_file(RECORD))
    found = record.get("images_sha256") if isinstance(record, dict) else None
    return found if isinstance(found, str) else None


def raw_logits(probabilities: Floats, calibration: PerLabel[AnyCalibration]) -> Floats:
    """Recover the network's scores from probabilities (n, 6): log-odds, with the card's calibration inverted.

    If the card raised ``any`` to a type or lowered a type to ``any``, the changed value is returned.

    Raises:
        DataError: the card has an isotonic curve, which is not invertible.
    """
    lines = [one for one in calibration.values if isinstance(one, Calibration)]
    if len(lines) < len(LABELS):
        raise DataError(NOT_INVERTIBLE)
    scale, bias = np.array([(one.scale, one.bias) for one in lines]).T
    return np.asarray((logit(probabilities) - bias) / scale)


def _study_level(
    slices: ValidationScores, files: tuple[Path, Path], card: ModelCard, choices: TuningChoices
) -> ValidationScores | None:
    """Return the study scores: the model's own, or by the study rule from its slices; None if not requested."""
    if choices.series_files is not None:
        group_column, names = choices.group_column, choices.names
        series = read_predictions(*choices.series_files, group_column=group_column, names=names, beside=files)
        groups, _ = group_indices(series.groups, len(series.image_ids))
        raw = raw_logits(series.probabilities, card.calibration.study)
        return ValidationScores(logits=raw, truth=series.labels, groups=groups)
    if choices.study_column is None:
        return None
    if card.sequence is not None and card.sequence.study_scores == "sequence":
        msg = (
            "this model scores a study with its own network, not by a rule over its slices. Give "
            "--series-predictions and --series-labels, as hemoscope evaluate --data wrote them, in place of --studies"
        )
        raise DataError(msg)
    if card.slice_rule is not None and card.slice_rule.width_mm is not None:
        msg = (
            "this model smooths its slice scores, and its study rule reads them before. Give --series-predictions and "
            "--series-labels, as hemoscope evaluate --data wrote them, in place of --studies"
        )
        raise DataError(msg)
    studies = read_predictions(*files, group_column=choices.study_column, names=choices.names).groups or ()
    return study_scores(slices, studies, card)


def study_scores(slices: ValidationScores, studies: Sequence[str], card: ModelCard) -> ValidationScores:
    """Apply the card's study rule to each study; a study is positive if any slice is, unknown if none is known.

    Raises:
        DataError: a study belongs to two groups.
    """
    study, n_studies = group_indices(studies, len(slices.logits))
    rows = [np.flatnonzero(study == one) for one in range(n_studies)]
    divided = [studies[members[0]] for members in rows if len(np.unique(slices.groups[members])) > 1]
    if divided:
        msg = f"the study {divided[0]} belongs to several groups, but has one patient. Check --groups and --studies"
        raise DataError(msg)
    return ValidationScores(
        logits=np.stack([study_logits(slices.logits[r], [None] * len(r), card.study_rule) for r in rows]),
        truth=np.stack([np.fmax.reduce(slices.truth[r], axis=0) for r in rows]),
        groups=np.array([slices.groups[r[0]] for r in rows]),
    )


def _tune(
    level: Literal["slice", "study"], scores: ValidationScores, card: ModelCard, choices: TuningChoices
) -> _Level:
    before = LevelSettings(
        calibration=getattr(card.calibration, level),
        points=getattr(card.operating_points, level),
        established=card.established,
        urgent=card.operating_points.urgent if level == "study" else None,
        unsure=card.unsure if level == "study" else None,
    )
    held_out = cross_fit(scores, before, choices.rule, method=choices.method, seed=choices.seed)
    tuned = tune_level(scores, before, choices.rule, method=choices.method)
    return _Level(name=level, scores=scores, before=before, tuned=tuned, held_out=held_out)


def _record(levels: Sequence[_Level], data: LabelledPredictions, choices: TuningChoices) -> Document:
    rule = choices.rule
    return {
        "schema": SCHEMA,
        "hemoscope": __version__,
        "name": choices.name,
        "n_images": len(data.image_ids),
        "images_sha256": images_sha256(data.image_ids),
        "n_groups": None if data.groups is None else len(set(data.groups)),
        "method": choices.method,
        "rule": None if rule is None else {"kind": rule.kind, "target": rule.target},
        "folds": DEFAULT_FOLDS,
        "folds_by": "image" if data.groups is None else "group",
        "bootstrap": {"rounds": choices.rounds, "seed": choices.seed},
        "warnings": [NO_GROUPS] if data.groups is None else [],
        "levels": {level.name: _level_record(level, choices) for level in levels},
    }


def _level_record(level: _Level, choices: TuningChoices) -> Document:
    def scores(probabilities: Floats, decisions: Booleans) -> dict[str, dict[str, Any]]:
        return level_scores(probabilities, decisions, level.scores, rounds=choices.rounds, seed=choices.seed)

    served = level.before.probabilities(level.scores.logits)
    before = scores(served, level.before.decisions(served))
    after = scores(level.held_out.probabilities, level.held_out.decisions)
    settings = level.tuned.settings

    def entry(label: Hemorrhage) -> Document:
        positive = level.scores.truth[:, LABELS.index(label)] == 1.0
        return {
            "n_positive": int(positive.sum()),
            "n_positive_groups": len(np.unique(level.scores.groups[positive])),
            "threshold": settings.points[label].threshold,
            "rule": settings.points[label].rule,
            "calibration": to_plain(settings.calibration[label]),
            "kept": level.tuned.kept[label],
            "before": before[label.value],
            "cross_fitted": after[label.value],
        }

    record: Document = {"n": len(level.scores.truth), "labels": {label.value: entry(label) for label in LABELS}}
    if settings.unsure is not None:
        record["unsure"] = [
            {"alpha": one.alpha, "low": one.low, "high": one.high, "kept": _kept(level, one.alpha)}
            for one in settings.unsure.sets
        ]
    return record


def _kept(level: _Level, alpha: float) -> str | None:
    return TOO_FEW_STUDIES if alpha in level.tuned.converted else None


def _tuned_card(card: ModelCard, levels: Sequence[_Level], record: Document) -> ModelCard:
    # A card has only patient-level intervals, which need groups.
    grouped = record["n_groups"] is not None
    by_name = {level.name: _measured(level) if grouped else level.tuned.settings for level in levels}
    slices, study = by_name["slice"], by_name.get("study")
    old, points = card.calibration, card.operating_points
    points = replace(points, slice=slices.points)
    if study is not None:
        assert study.urgent is not None
        points = replace(points, study=study.points, urgent=study.urgent)
    tables = [_score_table(level, record["name"]) for level in levels] if grouped else []
    return replace(
        card,
        version=card.version.removesuffix(TUNED) + TUNED,
        calibration=replace(old, slice=slices.calibration, study=old.study if study is None else study.calibration),
        slice_rule=_tuned_rule(card.slice_rule, old.slice, slices.calibration),
        operating_points=points,
        unsure=card.unsure if study is None else study.unsure,
        scores=(*card.scores, *tables),
        description=f"{card.description.rstrip()} {_note(levels, record)}",
        precision=None,  # tested at the thresholds before
        errors=None,  # decided at the thresholds before
    )


def _tuned_rule(
    rule: SliceRule | None, before: PerLabel[AnyCalibration], after: PerLabel[AnyCalibration]
) -> SliceRule | None:
    """Return the slice rule, its calibration changed as that of slices was.

    Predictions do not say whether they were smoothed, so what was fitted is a change of served probabilities, which
    holds for both. The width stays: predictions have no positions to choose it by.

    Raises:
        DataError: the rule has an isotonic curve.
    """
    if rule is None or rule.calibration is None:
        return rule
    smooth = rule.calibration

    def of(label: Hemorrhage) -> AnyCalibration:
        old, new, own = before[label], after[label], smooth[label]
        if not (isinstance(old, Calibration) and isinstance(own, Calibration)):
            raise DataError(NOT_INVERTIBLE)
        if isinstance(new, IsotonicCalibration):
            odds = old.scale * np.array(new.logits) + old.bias
            return replace(new, logits=tuple(((odds - own.bias) / own.scale).tolist()))
        scale = new.scale / old.scale
        return Calibration(scale=scale * own.scale, bias=scale * (own.bias - old.bias) + new.bias)

    return replace(rule, calibration=PerLabel.build(of))


def _measured(level: _Level) -> LevelSettings:
    """Return the new settings, their points with the performance on held-out groups."""
    settings, held_out, scores = level.tuned.settings, level.held_out, level.scores
    points = with_performance(settings.points, held_out.decisions, scores.truth, scores.groups, "cross_fitted")
    urgent = settings.urgent
    if urgent is not None:
        urgent = measured(urgent, held_out.urgent, scores.truth[:, 0], scores.groups, "cross_fitted")
    unsure = settings.unsure
    if unsure is not None:
        unsure = measured_rule(unsure, held_out.sets, scores.truth[:, 0], scores.groups, "cross_fitted")
    return replace(settings, points=points, urgent=urgent, unsure=unsure)


def _note(levels: Sequence[_Level], record: Document) -> str:
    what = " and ".join(level.name for level in levels)
    groups = "" if record["n_groups"] is None else f" of {record['n_groups']} patients"
    alphas = [f"{alpha:g}" for level in levels for alpha in level.tuned.converted]
    kept = f" Quantiles of unsure studies (alpha {' and '.join(alphas)}): {TOO_FEW_STUDIES}." if alphas else ""
    return (
        f"Calibration and operating points ({what} level) tuned by Hemoscope {__version__} on {record['name']}: "
        f"{record['n_images']} images{groups}; {RECORD} has the cross-fitted scores. Calibration errors and "
        f"operating points measured earlier refer to the earlier calibration.{kept}"
    )


def _score_table(level: _Level, name: str) -> ScoreTable:
    """Return the cross-fitted scores as a score table of the card."""
    return score_table(
        ranked=level.before.probabilities(level.scores.logits),
        probabilities=level.held_out.probabilities,
        truth=level.scores.truth,
        patients=[str(group) for group in level.scores.groups],
        name=f"{name}, tuned, by {level.name}",
        description="AUROC and average precision before tuning; calibration scores cross-fitted by patient.",
        level="slice" if level.name == "slice" else "patient",
    )
