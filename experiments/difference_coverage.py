"""Simulates how often intervals of paired differences hold the true value, and how often tests reject equal models.

    python experiments/difference_coverage.py [--repetitions 1000] [--output FOLDER]

Each repetition draws 5, 10 or 36 positive and 46 negative patients with 1 or 30 slices each, and two models that score
the same slices. The slices of a patient share a difficulty for both models, and another for each. For the coverage, one
model separates the classes better; the true differences are those of a very large sample. For the error rate of the
tests, both are drawn alike. Writes ``table.md`` and ``coverage.json`` (default:
``experiments/results/difference-coverage``).
"""

import argparse
import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hemoscope.evaluation.paired_tests import PairedDifference, auroc_difference, proportion_difference

Floats = NDArray[np.float64]

NEGATIVE_PATIENTS = 46
SETTINGS = [(positive, slices) for slices in (1, 30) for positive in (5, 10, 36)]
SEPARATIONS = {"better": (2.2, 1.6), "equal": (2.0, 2.0)}
THRESHOLD = 1.0
LARGE = 20_000  # patients of each class in the sample that gives the true values
ALPHA = 0.05
MEASURES = ("AUROC", "sensitivity", "specificity")
OUTPUT = Path(__file__).parent / "results" / "difference-coverage"


def differences(
    random: np.random.Generator, positive: int, negative: int, slices: int, separations: tuple[float, float]
) -> dict[str, PairedDifference | None]:
    """Draw patients and two models, and compare the models; a third of a positive patient's slices are positive."""
    patients = positive + negative
    truth = np.zeros((patients, slices), dtype=bool)
    truth[:positive, : max(1, slices // 3)] = True
    shared = random.normal(size=(patients, 1))
    first, second = (
        (shared + 0.5 * random.normal(size=(patients, 1)) + random.normal(size=truth.shape)) / 1.5 + separation * truth
        for separation in separations
    )
    labels, owners = truth.ravel(), np.repeat(np.arange(patients), slices)
    scores = first.ravel(), second.ravel()
    hits = [one >= THRESHOLD for one in scores]
    return {
        "AUROC": auroc_difference(scores[0], scores[1], labels, owners),
        "sensitivity": proportion_difference(hits[0][labels], hits[1][labels], owners[labels]),
        "specificity": proportion_difference(~hits[0][~labels], ~hits[1][~labels], owners[~labels]),
    }


@cache
def true_differences(slices: int) -> dict[str, float]:
    """Return the true differences of the better model, from a large sample."""
    found = differences(np.random.default_rng(1), LARGE, LARGE, slices, SEPARATIONS["better"])
    return {name: one.difference for name, one in found.items() if one is not None}


def simulated(repetitions: int) -> list[dict[str, object]]:
    """Return coverage, misses above and error rate of each measure and setting."""
    rows: list[dict[str, object]] = []
    for positive, slices in SETTINGS:
        found: dict[tuple[str, str], list[PairedDifference]] = {}
        for repetition in track(range(repetitions), description=f"{positive} positive patients, {slices} slices each"):
            for case, separations in SEPARATIONS.items():
                random = np.random.default_rng([11, repetition, positive, slices])
                for name, one in differences(random, positive, NEGATIVE_PATIENTS, slices, separations).items():
                    if one is not None:
                        found.setdefault((case, name), []).append(one)
        rows += [
            {"measure": name, "slices": slices, "positive_patients": positive}
            | _summary(found["better", name], found["equal", name], true_differences(slices)[name])
            for name in MEASURES
        ]
    return rows


def _summary(better: list[PairedDifference], equal: list[PairedDifference], true: float) -> dict[str, float]:
    bounds = np.array([(one.low, one.high) for one in better if one.low is not None], dtype=np.float64)
    p_values = np.array([one.p_value for one in equal if one.p_value is not None], dtype=np.float64)
    return {
        "coverage": float(((bounds[:, 0] <= true) & (true <= bounds[:, 1])).mean()),
        "too_high": float((bounds[:, 0] > true).mean()),
        "rejected": float((p_values < ALPHA).mean()),
    }


def table(rows: list[dict[str, object]], repetitions: int) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{repetitions} simulated studies; {NEGATIVE_PATIENTS} negative patients. In parentheses: share of intervals "
        f"that lie wholly above the true difference.",
        "",
        "| difference of | slices a patient | positive patients | coverage | equal models rejected at .05 |",
        "|---|---|---|---|---|",
    ]
    for name in MEASURES:
        lines += [
            f"| {name} | {row['slices']} | {row['positive_patients']} | {row['coverage']:.1%} ({row['too_high']:.1%}) "
            f"| {row['rejected']:.1%} |"
            for row in rows
            if row["measure"] == name
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the simulation and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = simulated(options.repetitions)
    options.output.mkdir(parents=True, exist_ok=True)
    text = table(rows, options.repetitions)
    (options.output / "table.md").write_text(text)
    (options.output / "coverage.json").write_text(json.dumps(rows, indent=2) + "\n")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
