"""From a finished run to a model bundle: the final network's graph, and a card fitted on out-of-fold scores.

Every patient is scored once, by the fold that never saw it. Calibration and operating points are fitted on those
scores; reported calibration errors are cross-fitted by patient, so that nothing is scored on what it was fitted on.
The scores describe the recipe, each fold the whole of it, and not the exact weights of the final network.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemoscope import DISCLAIMER, __version__
from hemoscope.bundle import ModelBundle, write_bundle
from hemoscope.calibration import Calibration, OperatingPoint, StudyRule, sigmoid
from hemoscope.card import (
    CalibrationTable,
    LabelScore,
    ModelCard,
    OperatingPointTable,
    ScoreTable,
    TrainingData,
    parse_dataclass,
)
from hemoscope.errors import TrainingError
from hemoscope.evaluation.bootstrap import Interval, established
from hemoscope.evaluation.calibrate import cross_fitted, fit_platt
from hemoscope.evaluation.score_table import score_table
from hemoscope.evaluation.thresholds import at_precision, at_sensitivity, best_f_beta, youden
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.models.checkpoint import load_weights
from hemoscope.models.export import onnx_graph
from hemoscope.models.network import HemorrhageNetwork
from hemoscope.probabilities import calibrated, consistent, study_logits
from hemoscope.training.experiment import Experiment, parse_experiment
from hemoscope.training.train import FINAL

Floats = NDArray[np.float64]
Fitted = Callable[[Floats, Floats], OperatingPoint]

# A missed bleed costs more than a false alarm: the study's `any` is set by sensitivity. Slices are marked where the
# bleed is most likely seen, which is what F1 rewards.
STUDY_SENSITIVITY = 0.90
URGENT_PRECISION = 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """Scores of patients by networks that never saw them, at one level.

    ``logits`` and ``truth`` (n, 6) in label order; ``patients`` (n,) names the patient of each row.
    """

    logits: Floats
    truth: Floats
    patients: tuple[str, ...]


def export_run(run: Path, output: Path, *, version: str, scores: Sequence[ScoreTable] = ()) -> ModelBundle:
    """Write the bundle of a finished run.

    Args:
        run: the folder that training left.
        output: where the bundle goes; must not exist.
        version: of the model, as it will stand in reports.
        scores: further evaluations for the card, such as of an external set.

    Raises:
        TrainingError: the run is not finished, or its scores do not cover its slices once each.
        BundleError: the output exists.
    """
    experiment = read_run(run)
    _check_finished(run, experiment)
    slices = slice_scores(run, experiment)
    rule = StudyRule(extent_mm=experiment.reading.extent_mm)
    card = _card(experiment, slices, rule, read_dataset(run), version=version, scores=scores)
    learned = experiment.preprocessing
    network = HemorrhageNetwork(experiment.network, channels=learned.channels, size=learned.size)
    load_weights(network, run / FINAL / "weights.safetensors")
    reading = experiment.reading_preprocessing
    graph = onnx_graph(network, channels=reading.channels, size=reading.size)
    return write_bundle(output, card, graph)


def read_run(run: Path) -> Experiment:
    """The record of a run. Raises TrainingError where the folder holds none."""
    path = run / "experiment.json"
    if not path.is_file():
        msg = f"{run.name} is not the folder of a run: it holds no experiment.json. Train first: hemoscope train"
        raise TrainingError(msg)
    return parse_experiment(json.loads(path.read_text()), where=path.name)


def _check_finished(run: Path, experiment: Experiment) -> None:
    if not experiment.run.folds:
        msg = f"{run.name} has no folds, so no score that calibration could be fitted on. Train it with run.folds = 5"
        raise TrainingError(msg)
    needed = [f"fold-{fold}/scores.csv" for fold in range(experiment.run.folds)]
    needed += [f"{FINAL}/weights.safetensors", "slices.csv"]
    absent = [name for name in needed if not (run / name).is_file()]
    if absent:
        msg = f"{run.name} lacks {', '.join(absent)}. Finish it: hemoscope train ... --resume"
        raise TrainingError(msg)


def read_dataset(run: Path) -> TrainingData:
    """What a run learned from. Raises TrainingError where the run does not say it."""
    path = run / "dataset.json"
    try:
        return parse_dataclass(TrainingData, json.loads(path.read_text()), where=path.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{run.name}/{path.name} does not say what the run learned from ({reason}). Train again"
        raise TrainingError(msg) from error


def slice_scores(run: Path, experiment: Experiment) -> OutOfFold:
    """Out-of-fold scores of every slice, in the order of ``slices.csv``. Raises TrainingError where any is missing."""
    ids = {"image_id": str, "patient_id": str}
    paths = [run / f"fold-{fold}" / "scores.csv" for fold in range(experiment.run.folds)]
    scored = pd.concat([pd.read_csv(path, dtype=ids) for path in paths], ignore_index=True)
    slices = pd.read_csv(run / "slices.csv", dtype=ids)
    columns = [f"logit_{label}" for label in LABELS]
    joined = slices.merge(scored.drop_duplicates("image_id"), on="image_id", how="left", suffixes=("", "_scored"))
    unscored = int(joined[columns].isna().any(axis=1).sum())
    if unscored or len(scored) != len(slices):
        found = f"{unscored} of {len(slices)} slices of this run have no out-of-fold score, and there are {len(scored)}"
        msg = f"{found} scores. Was the data changed since? Train it again"
        raise TrainingError(msg)
    return OutOfFold(
        logits=joined[columns].to_numpy(dtype=np.float64),
        truth=joined[[label.value for label in LABELS]].to_numpy(dtype=np.float64),
        patients=tuple(joined["patient_id"]),
    )


def patient_scores(slices: OutOfFold, rule: StudyRule) -> OutOfFold:
    """The study rule over each patient's slices; a patient is positive where any slice is."""
    names = sorted(set(slices.patients))
    of = np.array(slices.patients)
    rows = [np.flatnonzero(of == name) for name in names]
    logits = [study_logits(slices.logits[row], [None] * len(row), rule) for row in rows]
    truth = np.stack([slices.truth[row].max(axis=0) for row in rows])
    return OutOfFold(logits=np.stack(logits), truth=truth, patients=tuple(names))


def _card(
    experiment: Experiment,
    slices: OutOfFold,
    rule: StudyRule,
    dataset: TrainingData,
    *,
    version: str,
    scores: Sequence[ScoreTable],
) -> ModelCard:
    patients = patient_scores(slices, rule)
    tables = [_out_of_fold_table(level, dataset, patient_level=level is patients) for level in (slices, patients)]
    supported = PerLabel.build(lambda label: all(_supported(table.labels[label]) for table in tables))
    calibration = CalibrationTable(slice=_fit_calibration(slices), study=_fit_calibration(patients))
    return ModelCard(
        name=f"hemoscope-{experiment.name}",
        version=version,
        preprocessing=experiment.reading_preprocessing,
        calibration=calibration,
        study_rule=rule,
        operating_points=_operating_points(slices, patients, calibration, supported),
        established=supported,
        training_data=(dataset,),
        scores=(*tables, *scores),
        limits_of_use=_limits(supported, experiment),
        description=f"{experiment.description}. Trained with Hemoscope {__version__}.",
        disclaimer=DISCLAIMER,
        files={},
    )


def _out_of_fold_table(scores: OutOfFold, dataset: TrainingData, *, patient_level: bool) -> ScoreTable:
    level: Literal["slice", "patient"] = "patient" if patient_level else "slice"
    return score_table(
        ranked=sigmoid(scores.logits),
        probabilities=_cross_fitted(scores),
        truth=scores.truth,
        patients=scores.patients,
        name=f"{dataset.name}, out of fold, by {level}",
        description=(
            "Patient-level folds: every patient is scored once, by a network that was trained by the whole recipe on "
            "the other folds. It describes the recipe, not these exact weights. Calibration is cross-fitted."
        ),
        level=level,
    )


def _supported(score: LabelScore) -> bool:
    auroc = score.auroc
    if auroc is None or auroc.low is None or auroc.high is None:
        return False
    return established(Interval(value=auroc.value, low=auroc.low, high=auroc.high))


def _fit_calibration(scores: OutOfFold) -> PerLabel[Calibration]:
    return PerLabel.of([fit_platt(scores.logits[:, k], scores.truth[:, k]) for k in range(len(LABELS))])


def _cross_fitted(scores: OutOfFold) -> Floats:
    columns = [cross_fitted(scores.logits[:, k], scores.truth[:, k], scores.patients) for k in range(len(LABELS))]
    return np.stack(columns, axis=1)


def _operating_points(
    slices: OutOfFold, patients: OutOfFold, calibration: CalibrationTable, supported: PerLabel[bool]
) -> OperatingPointTable:
    by_slice = consistent(calibrated(slices.logits, calibration.slice), supported)
    by_study = consistent(calibrated(patients.logits, calibration.study), supported)

    def study_point(label: Hemorrhage) -> OperatingPoint:
        k = LABELS.index(label)
        if label is Hemorrhage.ANY:
            return at_sensitivity(by_study[:, k], patients.truth[:, k], STUDY_SENSITIVITY)
        return youden(by_study[:, k], patients.truth[:, k])

    return OperatingPointTable(
        slice=PerLabel.of([best_f_beta(by_slice[:, k], slices.truth[:, k]) for k in range(len(LABELS))]),
        study=PerLabel.build(study_point),
        urgent=at_precision(by_study[:, 0], patients.truth[:, 0], URGENT_PRECISION),
    )


def _limits(supported: PerLabel[bool], experiment: Experiment) -> tuple[str, ...]:
    unsupported = [label.display.lower() for label, fine in supported.items() if not fine]
    named = f"Not established, shown only: {', '.join(unsupported)}." if unsupported else ""
    lines = (
        "Research software. Not a medical device: not for diagnosis or treatment decisions.",
        "Non-contrast axial head CT as in its training data, which came from one hospital: expect lower scores "
        "elsewhere, and calibrate locally.",
        "Probabilities are calibrated to the training data's share of hemorrhage, which is far above a ward's.",
        named,
        f"The final weights never saw {', '.join(experiment.run.held_out)}." if experiment.run.held_out else "",
    )
    return tuple(line for line in lines if line)
