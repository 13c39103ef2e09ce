"""Simulates how often 95% intervals hold the true value, for the closed forms and for the bootstrap over patients.

    python experiments/interval_coverage.py [--repetitions 1000] [--output FOLDER]

Each repetition draws patients from a known population: 5, 10 or 36 positive and 46 negative ones, with 1 or 30 slices
each. A positive patient's bleed is a run of neighboring slices. Slices of one patient share a difficulty, with as much
variance as the slices have among themselves. The true AUROC, sensitivity, specificity and calibration are those of a
very large sample. Writes ``table.md`` and ``coverage.json`` (default: ``experiments/results/interval-coverage``).
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hemoscope.evaluation.bootstrap import interval, resamples, sum_by_group
from hemoscope.evaluation.calibration_scores import calibration_scores
from hemoscope.evaluation.intervals import Interval, auroc_interval, proportion_interval
from hemoscope.evaluation.metrics import Ranking
from hemoscope.inference.calibration import sigmoid

Floats = NDArray[np.float64]

NEGATIVE_PATIENTS = 46
SETTINGS = [(positive, slices) for slices in (1, 30) for positive in (5, 10, 36)]
ROUNDS = 1000
LARGE = 40_000  # patients of the sample that gives the true values
SEPARATION, THRESHOLD = 2.2, 1.2
IGNORED = "AUROC, patients ignored"
OUTPUT = Path(__file__).parent / "results" / "interval-coverage"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Scores, labels and patient numbers of slices; (slices,) each."""

    scores: Floats
    truth: NDArray[np.bool_]
    patients: NDArray[np.intp]


def drawn(random: np.random.Generator, positive: int, negative: int, slices: int) -> Sample:
    """Draw patients; the first ``positive`` ones have a run of 3 to 12 positive slices (or their only slice)."""
    patients = positive + negative
    truth = np.zeros((patients, slices), dtype=bool)
    for row in range(positive):
        length = min(int(random.integers(3, 13)), slices)
        start = int(random.integers(0, slices - length + 1))
        truth[row, start : start + length] = True
    difficulty = random.normal(size=(patients, 1))
    scores = (difficulty + random.normal(size=truth.shape)) / np.sqrt(2) + SEPARATION * truth
    return Sample(
        scores=scores.ravel(), truth=truth.ravel(), patients=np.repeat(np.arange(patients), slices).astype(np.intp)
    )


def calibrated(sample: Sample, prevalence: float) -> Floats:
    """Return the probability of a positive slice given its score: both classes are normal with variance 1."""
    odds = np.log(prevalence / (1 - prevalence))
    return sigmoid(SEPARATION * (sample.scores - SEPARATION / 2) + odds)


def closed_forms(sample: Sample, prevalence: float) -> dict[str, Interval | None]:
    """Return the intervals of this package."""
    taken = sample.scores >= THRESHOLD
    calibration = calibration_scores(calibrated(sample, prevalence), sample.truth, sample.patients)
    return {
        "AUROC": auroc_interval(sample.scores, sample.truth, sample.patients),
        IGNORED: auroc_interval(sample.scores, sample.truth),
        "sensitivity": proportion_interval(taken[sample.truth], sample.patients[sample.truth]),
        "specificity": proportion_interval(~taken[~sample.truth], sample.patients[~sample.truth]),
        "calibration slope": calibration.slope,
        "observed / expected": calibration.observed_expected,
    }


def bootstraps(sample: Sample, seed: int) -> dict[str, Interval | None]:
    """Return percentile bootstrap intervals over patients."""
    patients = int(sample.patients.max()) + 1
    taken, truth = sample.scores >= THRESHOLD, sample.truth
    columns = np.stack([truth & taken, truth, ~truth & ~taken, ~truth], axis=1).astype(np.float64)
    sums = sum_by_group(columns, sample.patients, patients)
    ranking = Ranking.of(sample.scores, truth)
    ranked = sample.patients[ranking.order]
    rounds = np.concatenate(
        [
            np.stack([ranking.evaluate(weights[:, ranked])[0], *_ratios(weights @ sums)], axis=1)
            for weights in resamples(patients, ROUNDS, seed=seed, chunk=250)
        ]
    )
    names = ("AUROC", "sensitivity", "specificity")
    return {name: interval(0.5, rounds[:, place]) for place, name in enumerate(names)}


def _ratios(sums: Floats) -> tuple[Floats, Floats]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]


@cache
def truths(slices: int) -> dict[str, float]:
    """Return the true values, from a large sample."""
    sample = drawn(np.random.default_rng(1), LARGE // 2, LARGE // 2, slices)
    taken = sample.scores >= THRESHOLD
    area = auroc_interval(sample.scores, sample.truth)
    assert area is not None
    return {
        "AUROC": area.value,
        IGNORED: area.value,
        "sensitivity": float(taken[sample.truth].mean()),
        "specificity": float((~taken[~sample.truth]).mean()),
        "calibration slope": 1.0,
        "observed / expected": 1.0,
    }


def coverage(repetitions: int) -> Iterator[dict[str, object]]:
    """Yield, for each setting, method and score: coverage, misses below and above, and the median width."""
    for positive, slices in SETTINGS:
        true, large = truths(slices), drawn(np.random.default_rng(2), positive * 400, NEGATIVE_PATIENTS * 400, slices)
        found: dict[tuple[str, str], list[Interval | None]] = {}
        for repetition in track(range(repetitions), description=f"{positive} positive patients, {slices} slices each"):
            sample = drawn(np.random.default_rng([7, repetition]), positive, NEGATIVE_PATIENTS, slices)
            for method, intervals in (
                ("closed form", closed_forms(sample, float(large.truth.mean()))),
                ("bootstrap", bootstraps(sample, repetition)),
            ):
                for name, one in intervals.items():
                    found.setdefault((name, method), []).append(one)
        for (name, method), ones in found.items():
            yield {"positive_patients": positive, "slices": slices, "score": name, "method": method} | _summary(
                [one for one in ones if one is not None], true[name], repetitions
            )


def _summary(intervals: list[Interval], true: float, repetitions: int) -> dict[str, float]:
    lows, highs = np.array([one.low for one in intervals]), np.array([one.high for one in intervals])
    return {
        "coverage": round(float(((lows <= true) & (true <= highs)).mean()), 3),
        "too_high": round(float((lows > true).mean()), 3),
        "too_low": round(float((highs < true).mean()), 3),
        "median_width": round(float(np.median(highs - lows)), 3),
        "undefined": repetitions - len(intervals),
    }


def table(rows: list[dict[str, object]], repetitions: int) -> str:
    """Return the coverage as Markdown: the bootstrap before, the closed form after."""
    cells = {(row["score"], row["slices"], row["positive_patients"], row["method"]): row for row in rows}
    lines = [
        f"Coverage of 95% intervals in {repetitions} simulated studies; {NEGATIVE_PATIENTS} negative patients. In "
        "parentheses: share of intervals that lie wholly above the true value.",
        "",
        "| score | slices a patient | positive patients | bootstrap over patients | closed form |",
        "|---|---|---|---|---|",
    ]
    for score in dict.fromkeys(row["score"] for row in rows):
        for positive, slices in SETTINGS:
            if score == IGNORED and slices == 1:
                continue  # the same as AUROC
            shown = [
                "-" if row is None else f"{row['coverage']:.1%} ({row['too_high']:.1%})"
                for row in (cells.get((score, slices, positive, method)) for method in ("bootstrap", "closed form"))
            ]
            lines.append(f"| {score} | {slices} | {positive} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the simulation and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = list(coverage(options.repetitions))
    options.output.mkdir(parents=True, exist_ok=True)
    text = table(rows, options.repetitions)
    (options.output / "table.md").write_text(text)
    (options.output / "coverage.json").write_text(json.dumps(rows, indent=2) + "\n")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
