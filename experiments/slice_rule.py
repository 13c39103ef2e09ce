"""Measures smoothing of slice scores over neighbors on the out-of-fold scores of a run.

    python experiments/slice_rule.py experiments/results/default

For each fold, the width with the highest AUROC of `any` by slice on the *other* folds is applied to it (nested). The
table compares these scores with those as they are: AUROC and the paired difference with its 95% interval by patient. By
patient, the study rule reads either the raw or the smoothed slice scores. Last, how many key slices of `any` bleed if
they are chosen by either. CT-ICH states no positions: its slices are
taken as 5 mm apart.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from hemoscope.evaluation.paired_tests import auroc_difference
from hemoscope.inference.calibration import SliceRule, StudyRule
from hemoscope.inference.findings import key_slices
from hemoscope.inference.probabilities import smoothed, study_logits
from hemoscope.labels import LABELS

WIDTHS_MM = (None, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0)
SPACING_MM = 5.0
Floats = NDArray[np.float64]


def read_scores(run: Path) -> pd.DataFrame:
    """Return one row a slice: patient, fold, six raw scores, six labels; slices of a patient from feet to head."""
    folds = [pd.read_csv(path).assign(fold=path.parent.name) for path in sorted(run.glob("fold-*/scores.csv"))]
    truth = pd.read_csv(run / "slices.csv").drop(columns="patient_id")
    return pd.concat(folds).merge(truth, on="image_id").sort_values(["patient_id", "image_id"], ignore_index=True)


def smoothed_by_patient(table: pd.DataFrame, width_mm: float | None) -> Floats:
    """Smooth the raw scores (slices, 6) of each patient."""
    logits = table[[f"logit_{label}" for label in LABELS]].to_numpy(dtype=np.float64)
    found = np.empty_like(logits)
    for rows in table.groupby("patient_id").indices.values():
        positions = (SPACING_MM * np.arange(len(rows))).tolist()
        found[rows] = smoothed(logits[rows], positions, SliceRule(width_mm=width_mm))
    return found


def nested(table: pd.DataFrame) -> tuple[Floats, dict[str, float | None]]:
    """Return scores smoothed by the width that is best on the other folds, and that width for each fold."""
    candidates = {width: smoothed_by_patient(table, width) for width in WIDTHS_MM}
    truth, found, chosen = table["any"].to_numpy(), np.empty_like(candidates[None]), {}
    for fold in sorted(set(table["fold"])):
        held_out = (table["fold"] == fold).to_numpy()
        scores = {width: roc_auc_score(truth[~held_out], one[~held_out, 0]) for width, one in candidates.items()}
        chosen[fold] = max(scores, key=scores.__getitem__)
        found[held_out] = candidates[chosen[fold]][held_out]
    return found, chosen


def by_patient(table: pd.DataFrame, logits: Floats, extent_mm: float) -> Floats:
    """Apply the study rule to each patient's slice scores: (patients, 6)."""
    rule, groups = StudyRule(extent_mm=extent_mm), table.groupby("patient_id").indices
    return np.stack([study_logits(logits[rows], [None] * len(rows), rule) for rows in groups.values()])


def key_slices_that_bleed(table: pd.DataFrame, logits: Floats) -> str:
    """Count key slices of patients who bleed: the first ones, and all of them."""
    truth, first, every, patients = table["any"].to_numpy(), 0, [], 0
    for rows in table.groupby("patient_id").indices.values():
        if truth[rows].any():
            positions = (SPACING_MM * np.arange(len(rows))).tolist()
            chosen = key_slices(logits[rows, 0], positions, apart_mm=SPACING_MM)
            hits = truth[rows][list(chosen)]
            first, patients = first + int(hits[0]), patients + 1
            every.extend(hits)
    return f"the first in {first} of {patients} patients, {int(np.sum(every))} of {len(every)} in all"


def compared(first: Floats, second: Floats, truth: Floats, patients: list[str]) -> list[str]:
    """Return both AUROCs and the difference, of one label."""
    found = auroc_difference(first, second, truth, patients)
    if found is None:
        return ["-", "-", "-"]
    interval = "no interval" if found.low is None else f"{found.low:+.3f} to {found.high:+.3f}"
    return [f"{found.second:.3f}", f"{found.first:.3f}", f"{found.difference:+.3f} ({interval})"]


def main() -> None:
    """Print the widths and a table by slice and by patient."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    table = read_scores(run)
    raw, (smooth, widths) = smoothed_by_patient(table, None), nested(table)
    extent_mm = json.loads((run / "experiment.json").read_text())["reading"]["extent_mm"]
    studies = [by_patient(table, logits, extent_mm) for logits in (raw, smooth)]
    patients = table["patient_id"].tolist()
    truth = table[[label.value for label in LABELS]].to_numpy(dtype=np.float64)
    of_patients = table.groupby("patient_id")[[label.value for label in LABELS]].max()
    shown = Table(title=f"widths chosen on the other folds: {widths}")
    for column in ("", "raw", "smoothed", "difference"):
        shown.add_column(column)
    for k, label in enumerate(LABELS):
        shown.add_row(f"{label} by slice", *compared(smooth[:, k], raw[:, k], truth[:, k], patients))
    for k, label in enumerate(LABELS):
        known = of_patients[label.value].to_numpy(dtype=np.float64)
        shown.add_row(
            f"{label} by patient", *compared(studies[1][:, k], studies[0][:, k], known, list(of_patients.index))
        )
    Console().print(shown)
    for name, logits in (("raw", raw), ("smoothed", smooth)):
        Console().print(f"key slices that bleed, chosen by {name} scores: {key_slices_that_bleed(table, logits)}")


if __name__ == "__main__":
    main()
