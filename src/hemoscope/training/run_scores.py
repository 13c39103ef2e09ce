"""The scores that a run left behind, joined with the truth: by slice, and by study or patient.

None of them is of a slice that the scoring network learned from. A run on folds scores every patient once, each by the
fold that never saw it; a run on one split scores its validation part and its test part by the final weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemoscope.calibration import StudyRule
from hemoscope.errors import TrainingError
from hemoscope.labels import LABELS
from hemoscope.probabilities import study_logits
from hemoscope.training.experiment import Experiment
from hemoscope.training.parts import FINAL, SPLIT

Floats = NDArray[np.float64]

_IDS = {"image_id": str, "patient_id": str, "series_id": str, "study_id": str}
_LOGITS = [f"logit_{label}" for label in LABELS]
_NAMES = [label.value for label in LABELS]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Scores of networks that never saw these patients or slices, at one level.

    ``logits`` and ``truth`` (n, 6) in label order, truth NaN where unknown; ``patients`` (n,) names the patient of
    each row.
    """

    logits: Floats
    truth: Floats
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One set of scores at both levels."""

    slices: Scores
    studies: Scores


def check_finished(run: Path, experiment: Experiment) -> None:
    """Raise TrainingError for a run that lacks what a bundle is made of."""
    settings = experiment.run
    if settings.split == "folds" and not settings.folds:
        msg = f"{run.name} has no folds, so no score that calibration could be fitted on. Train it with run.folds = 5"
        raise TrainingError(msg)
    needed = [name for names in _score_files(experiment).values() for name in names]
    if experiment.sequence is not None:
        needed += [studies_of(name) for name in needed] + [f"{last_part(experiment)}/sequence.safetensors"]
    needed += [f"{last_part(experiment)}/weights.safetensors", "slices.csv"]
    absent = [name for name in needed if not (run / name).is_file()]
    if absent:
        msg = f"{run.name} lacks {', '.join(absent)}. Finish it: hemoscope train ... --resume"
        raise TrainingError(msg)


def last_part(experiment: Experiment) -> str:
    """The part whose weights are shipped."""
    return FINAL if experiment.run.split == "folds" else SPLIT


def studies_of(name: str) -> str:
    """The file of study scores that stands beside a file of slice scores."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.replace('scores', 'studies', 1)}"


def out_of_fold(run: Path, experiment: Experiment, rule: StudyRule) -> Scored:
    """Every slice of a run on folds, scored once. Raises TrainingError where any score is missing."""
    names = _score_files(experiment)["folds"]
    slices = pd.read_csv(run / "slices.csv", dtype=_IDS)
    scored = _concatenated(run, names)
    joined = slices.merge(scored.drop_duplicates("image_id"), on="image_id", how="left", suffixes=("", "_scored"))
    unscored = int(joined[_LOGITS].isna().any(axis=1).sum())
    if unscored or len(scored) != len(slices):
        found = f"{unscored} of {len(slices)} slices of this run have no out-of-fold score, and there are {len(scored)}"
        msg = f"{found} scores. Was the data changed since? Train it again"
        raise TrainingError(msg)
    return _at_both_levels(run, experiment, joined, names, rule)


def of_part(run: Path, experiment: Experiment, part: str, rule: StudyRule) -> Scored | None:
    """Scores of the ``validation`` or ``test`` part of a split; None where the split has no such part.

    Raises:
        TrainingError: images are scored that the run does not know.
    """
    names = _score_files(experiment).get(part)
    if names is None:
        return None
    slices = pd.read_csv(run / "slices.csv", dtype=_IDS)
    scored = _concatenated(run, names)
    joined = scored[["image_id", *_LOGITS]].merge(slices, on="image_id", how="inner")
    if len(joined) != len(scored) or not len(scored):
        msg = f"{names[0]}: {len(joined)} of {len(scored)} scores are of slices of this run. Train it again"
        raise TrainingError(msg)
    return _at_both_levels(run, experiment, joined, names, rule)


def _score_files(experiment: Experiment) -> dict[str, list[str]]:
    """Score files of each set, relative to the run."""
    run = experiment.run
    if run.split == "folds":
        return {"folds": [f"fold-{fold}/scores.csv" for fold in range(run.folds)]}
    parts = [part for part, share in (("validation", run.validation_share), ("test", run.test)) if share]
    return {part: [f"{SPLIT}/scores-{part}.csv"] for part in parts}


def _concatenated(run: Path, names: Sequence[str]) -> pd.DataFrame:
    return pd.concat([pd.read_csv(run / name, dtype=_IDS) for name in names], ignore_index=True)


def _at_both_levels(
    run: Path, experiment: Experiment, joined: pd.DataFrame, names: Sequence[str], rule: StudyRule
) -> Scored:
    slices = _scores(joined)
    if experiment.sequence is None:
        return Scored(slices=slices, studies=patient_scores(slices, rule))
    return Scored(slices=slices, studies=_scores(_concatenated(run, [studies_of(name) for name in names])))


def _scores(table: pd.DataFrame) -> Scores:
    return Scores(
        logits=table[_LOGITS].to_numpy(dtype=np.float64),
        truth=table[_NAMES].to_numpy(dtype=np.float64),
        patients=tuple(table["patient_id"]),
    )


def patient_scores(slices: Scores, rule: StudyRule) -> Scores:
    """The study rule over each patient's slices; a patient is positive where any slice is known to be."""
    names = sorted(set(slices.patients))
    of = np.array(slices.patients)
    rows = [np.flatnonzero(of == name) for name in names]
    logits = [study_logits(slices.logits[row], [None] * len(row), rule) for row in rows]
    truth = np.stack([np.fmax.reduce(slices.truth[row], axis=0) for row in rows])
    return Scores(logits=np.stack(logits), truth=truth, patients=tuple(names))
