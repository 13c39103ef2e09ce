"""Compares finished runs: AUROC, average precision and log loss with patient-level intervals.

    python experiments/compare.py RUN [RUN ...] [--part fold-0]
    python experiments/compare.py RUN [RUN ...] --part split --mean
    python experiments/compare.py RUN OTHER --paired

Every run must have scored that split (``scores.csv`` or ``scores-test.csv``). Scores are uncalibrated (raw scores
through a sigmoid), which the log loss includes. Intervals are of 95%, by patient. With ``--mean``, the
runs are repetitions: mean and standard deviation of their AUROC.

With ``--paired``, all folds of two runs: AUROC of RUN minus that of OTHER by slice and by patient, as ``hemoscope
evaluate --compare`` computes it; a dash instead of the interval if fewer than five patients have the label, or lack
it. The intervals omit how much a second training of the same recipe would differ.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from hemoscope.evaluation.bootstrap import BootstrapScores, bootstrap_scores
from hemoscope.evaluation.intervals import Interval
from hemoscope.evaluation.paired_tests import auroc_difference
from hemoscope.inference.calibration import StudyRule, sigmoid
from hemoscope.labels import LABELS
from hemoscope.training.run_scores import SliceAndStudyScores, read_score_files

_IDS = {"image_id": str, "patient_id": str}
_NAMES = [label.value for label in LABELS]


def scored(run: Path, part: str) -> tuple[BootstrapScores, int, int]:
    """Return scores of one split of a run, with its numbers of images and patients."""
    folder = run / part
    path = next(folder / name for name in ("scores.csv", "scores-test.csv") if (folder / name).is_file())
    truth = pd.read_csv(run / "slices.csv", dtype=_IDS)[["image_id", *_NAMES]]
    table = pd.read_csv(path, dtype=_IDS).merge(truth, on="image_id", validate="one_to_one")
    logits = table[[f"logit_{name}" for name in _NAMES]].to_numpy(dtype=np.float64)
    scores = bootstrap_scores(sigmoid(logits), table[_NAMES].to_numpy(dtype=np.float64), table["patient_id"].tolist())
    return scores, len(table), table["patient_id"].nunique()


def effort(run: Path, part: str) -> tuple[str, str]:
    """Return optimiser steps and the last training loss from the run's records."""
    lines = (run / part / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    return str(last["step"]), f"{last['train/loss']:.3f}"


def shown(value: Interval | None) -> str:
    """Return a score with its interval, or a dash if undefined."""
    if value is None:
        return "-"
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def side_by_side(runs: list[Path], part: str) -> Table:
    """Print one row per run."""
    table = Table(title=f"Split {part}")
    for column in ("run", "steps", "last loss", "any AUROC", "any AP", "mean AUROC", "weighted log loss"):
        table.add_column(column)
    for run in runs:
        scores, images, patients = scored(run, part)
        own = scores.labels["any"]
        whole = (scores.macro["auroc"], scores.weighted_log_loss)
        measured = map(shown, (own["auroc"], own["average_precision"], *whole))
        table.add_row(run.name, *effort(run, part), *measured)
        table.caption = f"{images} slices of {patients} patients"
    return table


def repetitions(runs: list[Path], part: str) -> Table:
    """Print mean and standard deviation over runs."""
    table = Table(title=f"{len(runs)} runs, split {part}: {runs[0].name} ... {runs[-1].name}")
    for column in ("label", "runs", "mean AUROC", "standard deviation"):
        table.add_column(column)
    results = [scored(run, part)[0] for run in runs]
    for label in LABELS:
        values = [one.labels[label]["auroc"].value for one in results if one.labels[label]["auroc"] is not None]
        spread = f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "-"
        table.add_row(label.display, str(len(values)), f"{np.mean(values):.3f}" if values else "-", spread)
    return table


def paired(run: Path, other: Path) -> Table:
    """Print the difference of two runs' AUROCs on out-of-fold scores of the same patients."""
    table = Table(title=f"{run.name} minus {other.name}, out of fold")
    for column in ("label", "by slice", "by patient"):
        table.add_column(column)
    both = {path.name: _out_of_fold(path) for path in (run, other)}
    for k, label in enumerate(LABELS):
        table.add_row(label.display, *(_difference(both, level, k) for level in ("slices", "studies")))
    return table


def _out_of_fold(run: Path) -> SliceAndStudyScores:
    folds = sorted(f"{path.parent.name}/{path.name}" for path in run.glob("fold-*/scores.csv"))
    extent_mm = json.loads((run / "experiment.json").read_text())["reading"]["extent_mm"]
    truth = pd.read_csv(run / "slices.csv", dtype=_IDS)
    return read_score_files(run, folds, truth, StudyRule(extent_mm=extent_mm))


def _difference(both: dict[str, SliceAndStudyScores], level: str, label: int) -> str:
    (name, one), (other_name, other) = ((name, getattr(scores, level)) for name, scores in both.items())
    if one.patients != other.patients or not np.array_equal(one.truth, other.truth, equal_nan=True):
        msg = f"{name} and {other_name} did not score the same images in the same order"
        raise SystemExit(msg)
    truth = one.truth[:, label]
    known = np.isfinite(truth)
    patients = np.asarray(one.patients)[known]
    found = auroc_difference(one.logits[known, label], other.logits[known, label], truth[known], patients)
    if found is None:
        return "-"
    interval = "-" if found.low is None else f"{found.low:+.3f} to {found.high:+.3f}"
    return f"{found.difference:+.3f} ({interval})"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--part", default="fold-0")
    parser.add_argument("--mean", action="store_true", help="treat the runs as repetitions of one experiment")
    parser.add_argument("--paired", action="store_true", help="the difference of two runs, over all folds")
    chosen = parser.parse_args()
    if chosen.paired:
        run, other = chosen.runs
        Console().print(paired(run, other))
        return
    table = (repetitions if chosen.mean else side_by_side)(chosen.runs, chosen.part)
    Console().print(table)


if __name__ == "__main__":
    main()
