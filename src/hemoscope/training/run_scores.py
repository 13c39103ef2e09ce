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

from hemoscope.errors import TrainingError
from hemoscope.inference.calibration import StudyRule
from hemoscope.inference.probabilities import study_logits
from hemoscope.labels import LABELS
from hemoscope.training.data_splits import FINAL, SPLIT
from hemoscope.training.experiment import Experiment

Floats = NDArray[np.float64]

_IDS = {"image_id": str, "patient_id": str, "series_id": str, "study_id": str}
_SERIES = ("series_id", "position_mm")
_LOGITS = [f"logit_{label}" for label in LABELS]
_NAMES = [label.value for label in LABELS]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LevelScores:
    """Scores of networks that never saw these patients or slices, at one level.

    ``logits`` and ``truth`` (n, 6) in label order, truth NaN where unknown; ``patients`` (n,) names the patient of
    each row.
    """

    logits: Floats
    truth: Floats
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceAndStudyScores:
    """One set of scores at both levels."""

    slices: LevelScores
    studies: LevelScores


def check_finished(run: Path, experiment: Experiment) -> None:
    """Raise TrainingError for a run that lacks what a bundle is made of."""
    settings = experiment.run
    if settings.split == "folds" and not settings.folds:
        msg = f"{run.name} has no folds, so no score that calibration could be fitted on. Train it with run.folds = 5"
        raise TrainingError(msg)
    needed = [name for names in _score_files(experiment).values() for name in names]
    if experiment.sequence is not None:
        needed += [study_scores_file(name) for name in needed] + [f"{final_split(experiment)}/sequence.safetensors"]
    needed += [f"{final_split(experiment)}/weights.safetensors", "slices.csv"]
    absent = [name for name in needed if not (run / name).is_file()]
    if absent:
        msg = f"{run.name} lacks {', '.join(absent)}. Finish it: hemoscope train ... --resume"
        raise TrainingError(msg)


def final_split(experiment: Experiment) -> str:
    """The part whose weights are shipped."""
    return FINAL if experiment.run.split == "folds" else SPLIT


def study_scores_file(name: str) -> str:
    """The file of study scores that stands beside a file of slice scores."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.replace('scores', 'studies', 1)}"


def out_of_fold_scores(run: Path, experiment: Experiment, rule: StudyRule) -> SliceAndStudyScores:
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


def split_scores(run: Path, experiment: Experiment, part: str, rule: StudyRule) -> SliceAndStudyScores | None:
    """Scores of the ``validation`` or ``test`` part of a split; None where the split has no such part.

    Raises:
        TrainingError: images are scored that the run does not know.
    """
    names = _score_files(experiment).get(part)
    if names is None:
        return None
    joined = _joined(_concatenated(run, names), pd.read_csv(run / "slices.csv", dtype=_IDS), names[0])
    return _at_both_levels(run, experiment, joined, names, rule)


def read_scores(path: Path, slices: pd.DataFrame, rule: StudyRule) -> SliceAndStudyScores:
    """Scores of one file that ``score_slices`` wrote; see ``read_score_files``."""
    return read_score_files(path.parent, [path.name], slices, rule)


def read_score_files(folder: Path, names: Sequence[str], slices: pd.DataFrame, rule: StudyRule) -> SliceAndStudyScores:
    """Scores of files that ``score_slices`` wrote, together.

    Args:
        folder: that they lie in, or below.
        names: of the files.
        slices: with ``image_id``, ``patient_id`` and the labels, empty where unknown; may hold others too.
        rule: how slices make a study.

    Raises:
        TrainingError: images are scored that ``slices`` lacks.
    """
    known = slices[["image_id", "patient_id", *_NAMES]].astype(dict.fromkeys(_NAMES, np.float64))
    joined = _joined(_concatenated(folder, list(names)), known, names[0])
    scores = _scores(joined)
    return SliceAndStudyScores(slices=scores, studies=_ruled(scores, joined, rule))


def _joined(scored: pd.DataFrame, slices: pd.DataFrame, name: str) -> pd.DataFrame:
    """Scores with patients and truth beside them. Raises TrainingError where an image is not among ``slices``."""
    wanted = [column for column in ("image_id", *_SERIES, *_LOGITS) if column in scored]
    joined = scored[wanted].merge(slices, on="image_id", how="inner")
    if len(joined) != len(scored) or not len(scored):
        msg = f"{name}: {len(joined)} of {len(scored)} scores are of slices of this run. Train it again"
        raise TrainingError(msg)
    return joined


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
) -> SliceAndStudyScores:
    slices = _scores(joined)
    if experiment.sequence is None:
        return SliceAndStudyScores(slices=slices, studies=_ruled(slices, joined, rule))
    return SliceAndStudyScores(
        slices=slices, studies=_scores(_concatenated(run, [study_scores_file(name) for name in names]))
    )


def _ruled(slices: LevelScores, joined: pd.DataFrame, rule: StudyRule) -> LevelScores:
    """The study rule over each series, as it is served; over each patient where a run does not name series."""
    if "series_id" not in joined or joined["series_id"].isna().any():  # scored by an earlier version
        return study_scores(slices, rule, series=slices.patients)
    positions = joined["position_mm"].to_numpy(dtype=np.float64)
    return study_scores(slices, rule, series=joined["series_id"].tolist(), positions_mm=positions)


def _scores(table: pd.DataFrame) -> LevelScores:
    return LevelScores(
        logits=table[_LOGITS].to_numpy(dtype=np.float64),
        truth=table[_NAMES].to_numpy(dtype=np.float64),
        patients=tuple(table["patient_id"]),
    )


def study_scores(
    slices: LevelScores, rule: StudyRule, *, series: Sequence[str], positions_mm: Floats | None = None
) -> LevelScores:
    """The study rule over each series' slices; a series is positive where any slice is known to be.

    Args:
        slices: one row a slice.
        rule: of the card.
        series: of each slice. Only slices of one patient share one.
        positions_mm: of each slice, (n,), NaN where unknown; None: unknown throughout.
    """
    names = sorted(set(zip(slices.patients, series, strict=True)))
    place = {name: number for number, name in enumerate(names)}
    of = np.array([place[name] for name in zip(slices.patients, series, strict=True)])
    rows = [np.flatnonzero(of == number) for number in range(len(names))]
    known = np.full(len(of), np.nan) if positions_mm is None else positions_mm
    logits = [study_logits(slices.logits[row], _positions(known[row]), rule) for row in rows]
    truth = np.stack([np.fmax.reduce(slices.truth[row], axis=0) for row in rows])
    return LevelScores(logits=np.stack(logits), truth=truth, patients=tuple(patient for patient, _ in names))


def _positions(known: Floats) -> list[float | None]:
    return [None if np.isnan(position) else float(position) for position in known]
