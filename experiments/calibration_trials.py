"""Tries calibrations of `any` by slice on the out-of-fold scores of a run, and compares their calibration error.

    python experiments/calibration_trials.py experiments/results/default --output experiments/results/score-trials

Everything is nested: the smoothing width and the calibration that a fold of patients gets are chosen on the other folds
(five, ten assignments of patients to folds). `any` is then raised to epidural, the one established type, as served. The
error has 15 bins; *if calibrated* is its mean over labels drawn from the probabilities themselves, the lowest that a
calibration can be expected to reach on these slices. The difference from Platt scaling, which ships, has a 95%
interval by patient (paired bootstrap, 2,000 rounds, mean over the ten assignments). About a minute.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from hemoscope.evaluation.calibrate import (
    fit_isotonic,
    fit_platt,
    fit_temperature,
    group_folds,
    logit,
    smoothed_targets,
)
from hemoscope.evaluation.intervals import group_indices
from hemoscope.evaluation.metrics import CALIBRATION_BINS, binned_error
from hemoscope.inference.calibration import StudyRule, sigmoid
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.export import read_run
from hemoscope.training.fitted_smoothing import Smoothing, smoothing_of
from hemoscope.training.run_scores import out_of_fold_scores

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
SEEDS = range(10)
FOLDS = 5
ROUNDS = 2000
DRAWS = 50
BASELINE = "platt"
EPIDURAL = LABELS.index(Hemorrhage.EPIDURAL)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a calibration may use of some slices: smoothed and raw logits of `any` (n,), truth (n,), patients (n,)."""

    smooth: Floats
    raw: Floats
    truth: Booleans
    patients: NDArray[np.intp]


# Fits on the first rows, and returns the probabilities (n,) of the second.
Calibrate = Callable[[Rows, Rows], Floats]


def platt(known: Rows, new: Rows) -> Floats:
    """Platt scaling of smoothed logits: what ships."""
    return fit_platt(known.smooth, known.truth).apply(new.smooth)


def isotonic(known: Rows, new: Rows) -> Floats:
    """Isotonic regression of smoothed logits."""
    return fit_isotonic(known.smooth, known.truth).apply(new.smooth)


def temperature_and_prevalence(known: Rows, new: Rows) -> Floats:
    """A temperature, then a shift of all logits so that their mean probability is the share of positives."""
    scale = fit_temperature(known.smooth, known.truth).scale
    low, high = -20.0, 20.0
    for _ in range(60):
        shift = (low + high) / 2
        low, high = (low, shift) if sigmoid(scale * known.smooth + shift).mean() > known.truth.mean() else (shift, high)
    return sigmoid(scale * new.smooth + shift)


def beta(known: Rows, new: Rows) -> Floats:
    """Beta calibration (Kull et al. 2017): the logarithms of p and of 1 - p have weights of their own."""

    def columns(values: Floats) -> Floats:
        chance = np.clip(sigmoid(values), 1e-7, 1 - 1e-7)
        return np.stack([np.log(chance), -np.log1p(-chance), np.ones_like(chance)], axis=1)

    design, targets = columns(known.smooth), smoothed_targets(known.truth)

    def loss(point: Floats) -> tuple[float, Floats]:
        scores = design @ point
        return (np.logaddexp(0, scores) - targets * scores).mean(), design.T @ (sigmoid(scores) - targets) / len(scores)

    found = minimize(loss, [1.0, 1.0, 0.0], jac=True, bounds=[(0, None), (0, None), (None, None)], method="L-BFGS-B")
    return sigmoid(columns(new.smooth) @ found.x)


def _logistic(known: Floats, truth: Booleans, new: Floats, weights: Floats | None = None) -> Floats:
    model = LogisticRegression(C=100.0, max_iter=1000).fit(known, truth, sample_weight=weights)
    return np.asarray(model.predict_proba(new)[:, 1])


def raw_and_smoothed(known: Rows, new: Rows) -> Floats:
    """Logistic regression of the smoothed and the raw logit."""
    first, second = (np.stack([rows.smooth, rows.raw], axis=1) for rows in (known, new))
    return _logistic(first, known.truth, second)


def quadratic(known: Rows, new: Rows) -> Floats:
    """Logistic regression of the smoothed logit and its square."""
    center, spread = known.smooth.mean(), known.smooth.std()
    first, second = (((rows.smooth - center) / spread)[:, None] ** np.array([[1, 2]]) for rows in (known, new))
    return _logistic(first, known.truth, second)


def patients_alike(known: Rows, new: Rows) -> Floats:
    """Platt scaling in which every patient weighs the same, however many slices there are."""
    weights = 1.0 / np.bincount(known.patients)[known.patients]
    return _logistic(known.smooth[:, None], known.truth, new.smooth[:, None], weights * len(weights) / weights.sum())


def bagged(known: Rows, new: Rows) -> Floats:
    """The mean of 25 Platt scalings, each fitted on patients drawn with replacement."""
    rng, found = np.random.default_rng(0), []
    owners = np.unique(known.patients)
    members = {owner: np.flatnonzero(known.patients == owner) for owner in owners}
    while len(found) < 25:
        rows = np.concatenate([members[owner] for owner in rng.choice(owners, len(owners))])
        if known.truth[rows].any():
            found.append(fit_platt(known.smooth[rows], known.truth[rows]).apply(new.smooth))
    return np.asarray(np.mean(found, axis=0))


CALIBRATIONS: dict[str, Calibrate] = {
    BASELINE: platt,
    "isotonic": isotonic,
    "temperature and prevalence": temperature_and_prevalence,
    "beta": beta,
    "raw and smoothed logit": raw_and_smoothed,
    "smoothed logit and its square": quadratic,
    "every patient alike": patients_alike,
    "bagged Platt": bagged,
}


def cross_fitted(
    calibrate: Calibrate, smoothing: Smoothing, raw: Floats, patients: NDArray[np.intp], seed: int
) -> Floats:
    """Return probabilities (n,) of `any`, each by a calibration of the other folds, as served."""
    truth = smoothing.truth == 1.0
    part, found = group_folds(truth, patients, FOLDS, seed=seed), np.empty(len(truth))
    for fold in range(FOLDS):
        held_out = part == fold
        smooth = smoothing.smoothed_by(~held_out)
        known, new = (Rows(smooth[rows, 0], raw[rows], truth[rows], patients[rows]) for rows in (~held_out, held_out))
        found[held_out] = calibrate(known, new)
    return found


def served(shown: Floats, epidural: Floats) -> Floats:
    """Raise `any` to the established type."""
    return np.maximum(shown, epidural)


def error_by_weights(shown: Floats, truth: Booleans, patients: NDArray[np.intp], weights: Floats) -> Floats:
    """Return the calibration error under each weighting (rounds, patients) of patients."""
    bins = np.minimum((shown * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.zeros((weights.shape[1], CALIBRATION_BINS))
    np.add.at(gaps, (patients, bins), truth - shown)
    counts = np.bincount(patients, minlength=weights.shape[1])
    return np.abs(weights @ gaps).sum(axis=1) / (weights @ counts)


def if_calibrated(shown: Floats, rng: np.random.Generator) -> float:
    """Return the mean error of labels drawn from the probabilities."""
    return float(np.mean([binned_error(shown, rng.random(len(shown)) < shown) for _ in range(DRAWS)]))


def drawn_patients(count: int, rng: np.random.Generator) -> Floats:
    """Return how often each patient is in each bootstrap sample (rounds, patients)."""
    draws = rng.integers(count, size=(ROUNDS, count))
    return np.stack([np.bincount(draw, minlength=count) for draw in draws]).astype(np.float64)


def compared(run: Path) -> list[dict[str, Any]]:
    """Return one row for each calibration."""
    experiment = read_run(run)
    scored = out_of_fold_scores(run, experiment, StudyRule(extent_mm=experiment.reading.extent_mm))
    smoothing = smoothing_of(scored)
    assert smoothing is not None
    truth, raw = smoothing.truth == 1.0, scored.slices.logits[:, 0]
    patients, count = group_indices(scored.slices.patients, len(truth))
    of_epidural = Smoothing(
        logits={width: logits[:, [EPIDURAL]] for width, logits in smoothing.logits.items()},
        truth=scored.slices.truth[:, EPIDURAL],
    )
    epidural = [cross_fitted(platt, of_epidural, raw, patients, seed) for seed in SEEDS]
    weights = drawn_patients(count, np.random.default_rng(16))
    everyone = np.ones((1, count))
    errors: dict[str, Floats] = {}
    rows: list[dict[str, Any]] = []
    for name, calibrate in CALIBRATIONS.items():
        shown = [
            served(cross_fitted(calibrate, smoothing, raw, patients, seed), one)
            for seed, one in zip(SEEDS, epidural, strict=True)
        ]
        values = [float(error_by_weights(one, truth, patients, everyone)[0]) for one in shown]
        errors[name] = np.mean([error_by_weights(one, truth, patients, weights) for one in shown], axis=0)
        rng = np.random.default_rng(16)
        low, high = np.quantile(errors[name] - errors[BASELINE], (0.025, 0.975))
        squared = float(np.mean([((one - truth) ** 2).mean() for one in shown]))
        losses = [-np.where(truth, np.log(one), np.log1p(-one)).mean() for one in (sigmoid(logit(s)) for s in shown)]
        rows.append(
            {
                "calibration": name,
                "what": (calibrate.__doc__ or "").strip(),
                "ece": float(np.mean(values)),
                "ece_lowest": min(values),
                "ece_highest": max(values),
                "if_calibrated": float(np.mean([if_calibrated(one, rng) for one in shown])),
                "difference_low": float(low),
                "difference_high": float(high),
                "brier": squared,
                "log_loss": float(np.mean(losses)),
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    lines = [
        "Calibration error of `any` by slice, nested, mean of ten assignments of patients to folds (lowest to",
        "highest); the difference from Platt scaling with its 95% interval by patient.",
        "Written by `experiments/calibration_trials.py`.\n",
        "| calibration | error | if calibrated | difference from platt | Brier | log loss |",
        "|---|---|---|---|---|---|",
    ]
    base = next(row for row in rows if row["calibration"] == BASELINE)
    for row in rows:
        change = "-"
        if row is not base:
            change = f"{row['ece'] - base['ece']:+.4f} ({row['difference_low']:+.4f} to {row['difference_high']:+.4f})"
        lines.append(
            f"| {row['calibration']} | {row['ece']:.4f} ({row['ece_lowest']:.4f} to {row['ece_highest']:.4f}) "
            f"| {row['if_calibrated']:.4f} | {change} | {row['brier']:.4f} | {row['log_loss']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, help="folder for calibration.json and calibration.md")
    chosen = parser.parse_args()
    rows = compared(chosen.run)
    if chosen.output is not None:
        chosen.output.mkdir(parents=True, exist_ok=True)
        (chosen.output / "calibration.json").write_text(json.dumps(rows, indent=1) + "\n")
        (chosen.output / "calibration.md").write_text(markdown(rows))
    Console().print(markdown(rows), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
