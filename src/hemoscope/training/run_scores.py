"""Reads the scores of a run and joins them with the truth: by slice, and by study or patient.

No slice is scored by a network that was trained on it. A run on folds scores every patient once, by the network of the
fold that held the patient out; a run on one split scores its validation and test sets with the final weights.
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
# Of a run: image_id, and outline_px or age in years, where its scores do not have them.
STRATA = "strata.csv"
_SERIES = ("outline_px", "series_id", "position_mm", "index")
_LOGITS = [f"logit_{label}" for label in LABELS]
_NAMES = [label.value for label in LABELS]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LevelScores:
    """Scores at one level, by networks that were not trained on these patients or slices.

    ``logits`` and ``truth`` (n, 6) in label order, truth NaN if unknown; ``patients`` (n,) is the patient of each row.
    """

    logits: Floats
    truth: Floats
    patients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlicePlaces:
    """Where each slice lies: its series, and its position along the head in mm, shape (n,).

    ``assumed`` (n,): the data state no positions of some slice of the series, and its slices are taken as nominally
    spaced. ``outline_px`` and ``age`` (n,) of the patient in years are NaN where unknown. ``images`` are their IDs.
    """

    series: tuple[str, ...]
    positions_mm: Floats
    assumed: NDArray[np.bool_]
    outline_px: Floats
    age: Floats
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceAndStudyScores:
    """The same scores by slice and by study; ``places`` of the slices if they are to be smoothed."""

    slices: LevelScores
    studies: LevelScores
    places: SlicePlaces | None = None


def check_finished(run: Path, experiment: Experiment) -> None:
    """Raise TrainingError if a run lacks files that a bundle needs."""
    settings = experiment.run
    if settings.split == "folds" and not settings.folds:
        msg = f"{run.name} has no folds, so no scores to fit calibration on. Train it with run.folds = 5"
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
    """Return the name of the split whose weights are exported."""
    return FINAL if experiment.run.split == "folds" else SPLIT


def study_scores_file(name: str) -> str:
    """Return the name of the study scores file beside a slice scores file."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.replace('scores', 'studies', 1)}"


def out_of_fold_scores(
    run: Path, experiment: Experiment, rule: StudyRule, *, others: Sequence[Path] = ()
) -> SliceAndStudyScores:
    """Return one score for every slice of a run on folds.

    Args:
        run: folder of the run.
        experiment: of the run.
        rule: that computes study scores from slices.
        others: runs of the same experiment from other seeds; scores are then means over all runs, fold by fold.

    Raises:
        TrainingError: a slice has no score, or the runs scored different slices in a fold.
    """
    names = _score_files(experiment)["folds"]
    slices = pd.read_csv(run / "slices.csv", dtype=_IDS)
    scored = pd.concat([_averaged([run, *others], name) for name in names], ignore_index=True)
    if (run / STRATA).is_file():
        slices = slices.merge(pd.read_csv(run / STRATA, dtype=_IDS), on="image_id", how="left")
    joined = slices.merge(scored.drop_duplicates("image_id"), on="image_id", how="left", suffixes=("", "_scored"))
    unscored = int(joined[_LOGITS].isna().any(axis=1).sum())
    if unscored or len(scored) != len(slices):
        found = f"{unscored} of {len(slices)} slices of this run have no out-of-fold score, and there are {len(scored)}"
        msg = f"{found} scores. Was the data changed since? Train it again"
        raise TrainingError(msg)
    return _at_both_levels(run, experiment, joined, names, rule)


def split_scores(run: Path, experiment: Experiment, part: str, rule: StudyRule) -> SliceAndStudyScores | None:
    """Return scores of the ``validation`` or ``test`` set of a run on one split; None if that set is empty.

    Raises:
        TrainingError: a scored image is not among the run's slices.
    """
    names = _score_files(experiment).get(part)
    if names is None:
        return None
    joined = _joined(_concatenated(run, names), pd.read_csv(run / "slices.csv", dtype=_IDS), names[0])
    return _at_both_levels(run, experiment, joined, names, rule)


def read_score_files(folder: Path, names: Sequence[str], slices: pd.DataFrame, rule: StudyRule) -> SliceAndStudyScores:
    """Read and concatenate files that ``score_slices`` wrote.

    Args:
        folder: that contains the files.
        names: of the files, relative to the folder.
        slices: rows with ``image_id``, ``patient_id`` and the labels, empty if unknown; may hold further slices.
        rule: that computes study scores from slices.

    Raises:
        TrainingError: a scored image is not among ``slices``.
    """
    known = slices[["image_id", "patient_id", *_NAMES]].astype(dict.fromkeys(_NAMES, np.float64))
    joined = _joined(_concatenated(folder, list(names)), known, names[0])
    scores = _scores(joined)
    return SliceAndStudyScores(slices=scores, studies=_ruled(scores, joined, rule))


def _places(joined: pd.DataFrame, rule: StudyRule) -> SlicePlaces | None:
    """Return the series and the position of each slice; of a run without series ids, a patient is a series.

    A series of which a position is missing is taken as nominally spaced. None without the order of the slices.
    """
    if "index" not in joined:
        return None
    named = "series_id" in joined and not joined["series_id"].isna().any()
    series, nominal = joined["series_id" if named else "patient_id"], joined["index"] * rule.nominal_spacing_mm
    if named:
        missing = joined["position_mm"].isna().groupby([joined["patient_id"], series]).transform("any")
    else:
        missing = pd.Series(data=True, index=joined.index)
    return SlicePlaces(
        series=tuple(series.astype(str)),
        positions_mm=(joined["position_mm"].mask(missing, nominal) if named else nominal).to_numpy(float),
        assumed=missing.to_numpy(bool),
        outline_px=_column(joined, "outline_px"),
        age=_column(joined, "age"),
        images=tuple(joined["image_id"]),
    )


def _column(joined: pd.DataFrame, name: str) -> Floats:
    return joined[name].to_numpy(dtype=np.float64) if name in joined else np.full(len(joined), np.nan)


def _joined(scored: pd.DataFrame, slices: pd.DataFrame, name: str) -> pd.DataFrame:
    """Join scores with patients and truth. Raises TrainingError if an image is not among ``slices``."""
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


def _averaged(runs: Sequence[Path], name: str) -> pd.DataFrame:
    """Read a score file of several runs: the first one's rows with mean logits."""
    tables = [pd.read_csv(run / name, dtype=_IDS) for run in runs]
    first = tables[0]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        if table["image_id"].tolist() != first["image_id"].tolist():
            msg = f"{run.name}/{name} scores other slices than that of {runs[0].name}. Train both on the same data"
            raise TrainingError(msg)
    return first.assign(**{logit: np.mean([table[logit] for table in tables], axis=0) for logit in _LOGITS})


def _at_both_levels(
    run: Path, experiment: Experiment, joined: pd.DataFrame, names: Sequence[str], rule: StudyRule
) -> SliceAndStudyScores:
    slices = _scores(joined)
    if experiment.sequence is None:
        places = _places(joined, rule)
        return SliceAndStudyScores(slices=slices, studies=_ruled(slices, joined, rule), places=places)
    return SliceAndStudyScores(
        slices=slices, studies=_scores(_concatenated(run, [study_scores_file(name) for name in names]))
    )


def _ruled(slices: LevelScores, joined: pd.DataFrame, rule: StudyRule) -> LevelScores:
    """Apply the study rule to each series, as in serving; to each patient if the run has no series ids."""
    if "series_id" not in joined or joined["series_id"].isna().any():  # written by an earlier version
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
    """Apply the study rule to each series; a series is positive if any slice is known to be.

    Args:
        slices: one row per slice.
        rule: the card's study rule.
        series: of each slice. Only slices of one patient share one.
        positions_mm: of each slice, (n,), NaN if unknown; None if all are unknown.
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
