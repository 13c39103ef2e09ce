"""Scores of several arms over the same held-out slices, by slice and by study, in one order.

An arm is a folder with ``PART/scores.csv`` of some parts, as a training, a simulation and ``arms`` leave them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.simulation.simulated_sites import score_file
from hemoscope.inference.calibration import StudyRule
from hemoscope.labels import LABELS
from hemoscope.training.run_scores import LevelScores, study_scores

Floats = NDArray[np.float64]
LEVELS = ("slice", "study")

_IDS = {"image_id": str, "patient_id": str, "series_id": str}
_NAMES = [label.value for label in LABELS]
_LOGITS = [f"logit_{name}" for name in _NAMES]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmScores:
    """One level of all arms.

    Attributes:
        logits: of each arm, (n, 6) in label order.
        truth: (n, 6) of 0, 1 or NaN where unknown.
        patients: of each row.
    """

    logits: Mapping[str, Floats]
    truth: Floats
    patients: tuple[str, ...]

    def of(self, patients: frozenset[str]) -> "ArmScores":
        """Rows of some patients alone."""
        rows = np.array([patient in patients for patient in self.patients], dtype=bool)
        return ArmScores(
            logits={name: logits[rows] for name, logits in self.logits.items()},
            truth=self.truth[rows],
            patients=tuple(patient for patient in self.patients if patient in patients),
        )


def read_arms(
    folders: Mapping[str, Path], parts: Sequence[str], manifest: pd.DataFrame, rule: StudyRule
) -> dict[str, ArmScores]:
    """Each level of ``LEVELS``.

    Args:
        folders: of each arm.
        parts: whose scores to put together; no slice is in two.
        manifest: of the cache, for the truth.
        rule: how slices make a study.

    Raises:
        FederationError: an arm lacks a part, a slice stands twice, or two arms scored different slices.
    """
    truth = manifest[["image_id", *_NAMES]].astype(dict.fromkeys(_NAMES, np.float64))
    tables = {name: _table(name, folder, parts, truth) for name, folder in folders.items()}
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if table["image_id"].tolist() != first["image_id"].tolist():
            msg = f"{name} scored {len(table)} slices, not exactly the {len(first)} of {next(iter(tables))}"
            raise FederationError(f"{msg}. Compare runs over the same sites and folds")
    slices = {name: _scores(table) for name, table in tables.items()}
    series = first["series_id"].tolist()
    places = first["position_mm"].to_numpy(dtype=np.float64)
    studies = {name: study_scores(one, rule, series=series, positions_mm=places) for name, one in slices.items()}
    return {level: _together(scores) for level, scores in zip(LEVELS, (slices, studies), strict=True)}


def _table(arm: str, folder: Path, parts: Sequence[str], truth: pd.DataFrame) -> pd.DataFrame:
    """One arm's slices with their truth, sorted."""
    absent = [part for part in parts if not (folder / part / score_file(part)).is_file()]
    if absent:
        msg = f"{arm} has no scores of {', '.join(absent)}. Finish it with --resume"
        raise FederationError(msg)
    scored = pd.concat([pd.read_csv(folder / part / score_file(part), dtype=_IDS) for part in parts])
    joined = scored.merge(truth, on="image_id", how="inner").sort_values("image_id", ignore_index=True)
    if len(joined) != len(scored) or joined["image_id"].duplicated().any():
        msg = f"{arm} scored {len(scored)} slices, and {joined['image_id'].nunique()} of them once and in this data"
        raise FederationError(f"{msg}. Give the --data that it was trained on")
    return joined


def _scores(table: pd.DataFrame) -> LevelScores:
    return LevelScores(
        logits=table[_LOGITS].to_numpy(dtype=np.float64),
        truth=table[_NAMES].to_numpy(dtype=np.float64),
        patients=tuple(table["patient_id"]),
    )


def _together(scores: Mapping[str, LevelScores]) -> ArmScores:
    first = next(iter(scores.values()))
    return ArmScores(
        logits={name: one.logits for name, one in scores.items()}, truth=first.truth, patients=first.patients
    )
