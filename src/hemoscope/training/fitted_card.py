"""Fits the card of a trained model on the scores of its run.

A run on folds: every patient is scored once, by a network that was not trained on that patient. Calibration and
operating points are fitted on those scores; reported calibration errors are cross-fitted by patient, so that nothing is
scored on its own fitting data. The scores describe the training recipe, not the final network's exact weights.

A run on one split: calibration and operating points are fitted on the validation set, and the card reports the
scores of exactly these weights on the test set. The paper's split by slice has no validation set: then nothing is
fitted and no label is established.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.data.split import LEAK_WARNING
from hemoscope.evaluation.bootstrap import Interval, established
from hemoscope.evaluation.score_table import score_table
from hemoscope.evaluation.threshold_rules import ThresholdRule
from hemoscope.inference.calibration import StudyRule, sigmoid
from hemoscope.inference.card import (
    CalibrationTable,
    FederationRecord,
    LabelScore,
    ModelCard,
    OperatingPointTable,
    ScoreTable,
    SequenceRule,
    SplitRecord,
    TrainingData,
)
from hemoscope.inference.probabilities import calibrated
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.training.experiment import Experiment
from hemoscope.training.fitted_levels import (
    FittedCalibration,
    cross_fitted_probabilities,
    fit_calibration,
    fit_points,
    fit_urgent,
    never_urgent,
    unfitted,
)
from hemoscope.training.run_scores import LevelScores, SliceAndStudyScores
from hemoscope.version import DISCLAIMER, __version__

Floats = NDArray[np.float64]

# A missed bleed costs more than a false alarm, so the study's `any` is set by sensitivity. For slices, F1 marks those
# that most likely show the bleed.
STUDY_SENSITIVITY = 0.90
URGENT_PRECISION = 0.90
NO_VALIDATION = "the split has no validation set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was fitted for a card, and lines for its limits about what could not be fitted."""

    calibration: CalibrationTable
    points: OperatingPointTable
    established: PerLabel[bool]
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model came from; ``federation`` if several sites trained its initial weights."""

    experiment: Experiment
    dataset: TrainingData
    split: SplitRecord | None
    embedding_size: int
    federation: FederationRecord | None = None


def folds_card(
    origin: Origin, scored: SliceAndStudyScores, rule: StudyRule, *, version: str, more: Sequence[ScoreTable]
) -> ModelCard:
    """Return the card of a run on folds, fitted on its out-of-fold scores."""
    tables = validation_tables(
        scored,
        name=f"{origin.dataset.name}, out of fold",
        description=(
            "Patient-level folds: every patient is scored once, by a network trained with the same recipe on "
            "the other folds. It describes the recipe, not these exact weights. Calibration is cross-fitted."
        ),
    )
    return assembled(origin, fit(scored, tables), rule, version=version, scores=(*tables, *more))


def split_card(
    origin: Origin,
    validation: SliceAndStudyScores | None,
    test: SliceAndStudyScores,
    rule: StudyRule,
    *,
    version: str,
    more: Sequence[ScoreTable],
) -> ModelCard:
    """Return the card of a run on one split: fitted on its validation set, if any, and scored on its test set."""
    assert origin.split is not None
    if validation is None:
        found = nothing_fitted(NO_VALIDATION)
    else:
        found = fit(validation, validation_tables(validation, name="validation", description=""))
    tables = _test_tables(origin.dataset, origin.split, test, found)
    return assembled(origin, found, rule, version=version, scores=(*tables, *more))


def validation_tables(scored: SliceAndStudyScores, *, name: str, description: str) -> tuple[ScoreTable, ScoreTable]:
    """Return scores by slice and by patient with cross-fitted calibration, for settings fitted on the same rows."""
    by_slice, by_patient = (
        _table(scores, cross_fitted_probabilities(scores), level, name=name, description=description)
        for scores, level in ((scored.slices, _SLICE), (scored.studies, _PATIENT))
    )
    return by_slice, by_patient


def fit(scored: SliceAndStudyScores, tables: Sequence[ScoreTable]) -> Fit:
    """Calibrate both levels and choose operating points; ``tables`` of these scores decide what is established."""
    slices, studies = fit_calibration(scored.slices), fit_calibration(scored.studies)

    def supported(label: Hemorrhage) -> bool:
        fitted = slices.reasons[label] is None and studies.reasons[label] is None
        return fitted and all(_supported(table.labels[label]) for table in tables)

    fine = PerLabel.build(supported)
    urgent, why_never = fit_urgent(
        scored.studies, studies, fine, ThresholdRule(kind="precision", target=URGENT_PRECISION)
    )
    points = OperatingPointTable(
        slice=fit_points(scored.slices, slices, fine, lambda _: ThresholdRule(kind="f-beta", target=1.0)),
        study=fit_points(scored.studies, studies, fine, _study_rule),
        urgent=urgent,
    )
    return Fit(
        calibration=CalibrationTable(slice=slices.calibration, study=studies.calibration),
        points=points,
        established=fine,
        limits=(*_unfitted_lines(slices, studies), *_urgency_lines(why_never)),
    )


def nothing_fitted(reason: str) -> Fit:
    """Return the network's own probabilities, positive above 0.5, with no label established."""
    raw = unfitted(reason)
    nothing = LevelScores(logits=np.zeros((1, 6)), truth=np.full((1, 6), np.nan), patients=("",))
    none = PerLabel.build(lambda _: False)
    points = fit_points(nothing, raw, none, _study_rule)
    return Fit(
        calibration=CalibrationTable(slice=raw.calibration, study=raw.calibration),
        points=OperatingPointTable(slice=points, study=points, urgent=never_urgent(reason)),
        established=none,
        limits=(
            f"Neither calibration nor thresholds are fitted, and no label is established: {reason}. Probabilities are "
            "the network's own, and above 0.5 is positive. To fit them on other patients: hemoscope tune.",
            *_urgency_lines(reason),
        ),
    )


_Level = Literal["slice", "patient"]
_SLICE: _Level = "slice"
_PATIENT: _Level = "patient"


def _study_rule(label: Hemorrhage) -> ThresholdRule:
    if label is Hemorrhage.ANY:
        return ThresholdRule(kind="sensitivity", target=STUDY_SENSITIVITY)
    return ThresholdRule(kind="youden")


def _supported(score: LabelScore) -> bool:
    auroc = score.auroc
    if auroc is None or auroc.low is None or auroc.high is None:
        return False
    interval = Interval(value=auroc.value, low=auroc.low, high=auroc.high)
    return established(interval, positive_patients=score.n_positive_patients)


def _test_tables(
    dataset: TrainingData, split: SplitRecord, test: SliceAndStudyScores, found: Fit
) -> tuple[ScoreTable, ScoreTable]:
    how = f"The test set of one split by {split.by} (share {split.test:g}, seed {split.seed}), scored by these weights."
    if split.by == "slice":
        how = f"{how} {LEAK_WARNING}. Probabilities are the network's own."
    else:
        how = f"{how} Calibration is fitted on the validation set."
    by_slice, by_patient = (
        _table(scores, calibrated(scores.logits, table), level, name=f"{dataset.name}, test set", description=how)
        for scores, table, level in (
            (test.slices, found.calibration.slice, _SLICE),
            (test.studies, found.calibration.study, _PATIENT),
        )
    )
    return by_slice, by_patient


def _table(scores: LevelScores, probabilities: Floats, level: _Level, *, name: str, description: str) -> ScoreTable:
    # At study level a row is a series; a patient may have several.
    several = level == _PATIENT and len(set(scores.patients)) < len(scores.patients)
    return score_table(
        ranked=sigmoid(scores.logits),
        probabilities=probabilities,
        truth=scores.truth,
        patients=scores.patients,
        name=f"{name}, by {'study' if several else level}",
        description=description,
        level=level,
    )


def assembled(
    origin: Origin, found: Fit, rule: StudyRule, *, version: str, scores: tuple[ScoreTable, ...]
) -> ModelCard:
    """Assemble the card; its ``files`` are filled in when the bundle is written."""
    experiment = origin.experiment
    sequence = experiment.sequence
    return ModelCard(
        name=f"hemoscope-{experiment.name}",
        version=version,
        preprocessing=experiment.reading_preprocessing,
        calibration=found.calibration,
        study_rule=rule,
        operating_points=found.points,
        established=found.established,
        training_data=(origin.dataset,),
        scores=scores,
        limits_of_use=_limits(origin, found),
        description=f"{experiment.description}. Trained with Hemoscope {__version__}. {_looks(experiment)}",
        disclaimer=DISCLAIMER,
        files={},
        sequence=None
        if sequence is None
        else SequenceRule(embedding_size=origin.embedding_size, study_scores=sequence.study),
        split=origin.split,
        federation=origin.federation,
    )


def _looks(experiment: Experiment) -> str:
    if experiment.reading.mirror:
        return "Scores are means over a slice and its mirror image."
    return "Every slice is scored once, without its mirror image."


def _limits(origin: Origin, found: Fit) -> tuple[str, ...]:
    unsupported = [label.display.lower() for label, fine in found.established.items() if not fine]
    held_out = origin.experiment.run.held_out
    lines = (
        "Research software. Not a medical device: not for diagnosis or treatment decisions.",
        f"Non-contrast axial head CT as in its training data ({origin.dataset.name}): expect lower scores elsewhere, "
        "and calibrate locally.",
        "Probabilities reflect the prevalence of the training data, which is far above that of clinical practice.",
        f"Not established, for display only: {', '.join(unsupported)}." if unsupported else "",
        *found.limits,
        f"{LEAK_WARNING}." if origin.split is not None and origin.split.by == "slice" else "",
        f"The final weights were not trained on {', '.join(held_out)}." if held_out else "",
        _of_one_site(origin.federation),
    )
    return tuple(line for line in lines if line)


def _of_one_site(federation: FederationRecord | None) -> str:
    if federation is None or not federation.personalised:
        return ""
    return f"Trained by {federation.sites} sites, then fine-tuned and scored on the patients of one of them."


def _unfitted_lines(slices: FittedCalibration, studies: FittedCalibration) -> list[str]:
    """Return one line for each label that could not be fitted at a level."""
    return [
        f"{label.display}: neither calibrated nor given its own threshold ({reason}); its probability is the "
        "network's own, and above 0.5 is positive."
        for label, reason in ((label, slices.reasons[label] or studies.reasons[label]) for label in Hemorrhage)
        if reason
    ]


def _urgency_lines(reason: str | None) -> list[str]:
    return [f"No study is called urgent: {reason}."] if reason else []
