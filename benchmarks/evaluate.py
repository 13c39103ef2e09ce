"""Measures a full evaluation: 75,000 images, six labels, 1,000 bootstrap rounds, two cores.

The predictions are synthetic, with the paper's prevalence and discrimination. The timing covers everything that
``hemoscope evaluate`` does after reading its files: scores, tables, calibration, levels, plots and page. The baseline
is a loop over rounds that calls scikit-learn on resampled images; it takes too long to finish, so a few rounds are
timed and extrapolated, which the output states.

    taskset -c 0,1 .venv/bin/python benchmarks/evaluate.py
    taskset -c 0,1 .venv/bin/python benchmarks/evaluate.py --no-groups
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rows import Row, interleaved, quick
from sklearn import metrics

from hemoscope.evaluation.bootstrap import bootstrap_scores, group_indices
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.report import evaluate

PREVALENCE = np.array([0.145, 0.005, 0.049, 0.035, 0.048, 0.064])  # of the RSNA 2019 slices, in label order
SLICES_A_PATIENT = 35
Floats = NDArray[np.float64]


def predictions(images: int, *, grouped: bool) -> LabelledPredictions:
    """Return predictions that rank about as well as the paper's."""
    random = np.random.default_rng(0)
    labels = (random.random((images, 6)) < PREVALENCE).astype(np.float64)
    logits = 2 * random.normal(size=labels.shape) + 6 * labels - 4
    return LabelledPredictions(
        image_ids=tuple(f"ID_{image}" for image in range(images)),
        probabilities=1 / (1 + np.exp(-logits)),
        labels=labels,
        groups=tuple(f"p{image // SLICES_A_PATIENT}" for image in range(images)) if grouped else None,
    )


@contextmanager
def stopwatch(what: str, *, times: float = 1.0) -> Iterator[None]:
    """Print wall time and processor time, which is more reliable on a busy machine."""
    wall, busy = time.perf_counter(), time.process_time()
    yield
    wall, busy = (times * (now - then) for now, then in ((time.perf_counter(), wall), (time.process_time(), busy)))
    print(f"{what:<62}{wall:8.1f} s wall {busy:8.1f} s processor", flush=True)


def plain_round(random: np.random.Generator, data: LabelledPredictions, members: list[NDArray[np.intp]]) -> None:
    """Run one round of the baseline: resample patients, select their images, call scikit-learn."""
    drawn = np.concatenate([members[place] for place in random.integers(len(members), size=len(members))])
    probabilities, labels = data.probabilities[drawn], data.labels[drawn]
    decisions = probabilities > 0.5
    for k in range(6):
        p, y, hard = probabilities[:, k], labels[:, k], decisions[:, k]
        metrics.roc_auc_score(y, p)
        metrics.average_precision_score(y, p)
        metrics.accuracy_score(y, hard)
        metrics.precision_recall_fscore_support(y, hard, average="binary")
        metrics.brier_score_loss(y, p)
        metrics.log_loss(y, p)


def rows(plain_rounds: int = 2) -> Iterator[Row]:
    """Measure the scores of six labels with intervals beside rounds of the plain loop, for ``make bench``."""
    images, rounds = quick(75_281, 3_000), quick(1_000, 20)
    data = predictions(images, grouped=True)
    random, members = np.random.default_rng(0), members_of(data)
    seconds, plain = interleaved(
        lambda: bootstrap_scores(data.probabilities, data.labels, data.groups, rounds=rounds),
        lambda: [plain_round(random, data, members) for _ in range(plain_rounds)],
    )
    additions = 6 * rounds * images / 1e6
    yield Row(
        what=f"evaluation of {images:,} images x 6 labels, {rounds:,} bootstrap rounds over {len(members):,} patients",
        limit=f"{additions:.0f} million weights to sum in rank order: {additions / 2e3:.2f} s at 2 a nanosecond",
        measured=seconds,
        beside=f"scikit-learn in a loop, {plain_rounds} rounds extrapolated",
        compared=plain * rounds / plain_rounds,
        unit="CPU s",
        bar=0.01,
        better="at most",
    )


def members_of(data: LabelledPredictions) -> list[NDArray[np.intp]]:
    """Return the images of each patient."""
    index, count = group_indices(data.groups, len(data.image_ids))
    return np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index, minlength=count))[:-1])


def main() -> int:
    """Time both and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=75_000)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--plain-rounds", type=int, default=5, help="rounds of the baseline to run")
    parser.add_argument("--no-groups", action="store_true", help="resample single images: each is its own group")
    arguments = parser.parse_args()
    data = predictions(arguments.images, grouped=not arguments.no_groups)
    what = "single images" if data.groups is None else f"{len(set(data.groups)):,} patients"
    print(f"{arguments.images:,} images, 6 labels, {arguments.rounds:,} rounds over {what}")
    print(f"{len(os.sched_getaffinity(0))} cores; load of the machine before: {os.getloadavg()[0]:.1f}")

    with stopwatch("scores of the six labels with intervals"):
        bootstrap_scores(data.probabilities, data.labels, data.groups, rounds=arguments.rounds)
    with tempfile.TemporaryDirectory() as folder, stopwatch("the whole report, page and plots"):
        evaluate(data, Path(folder) / "report", rounds=arguments.rounds)

    random, members = np.random.default_rng(0), members_of(data)
    times = arguments.rounds / arguments.plain_rounds
    with stopwatch(f"a plain scikit-learn loop, extrapolated from {arguments.plain_rounds} rounds", times=times):
        for _ in range(arguments.plain_rounds):
            plain_round(random, data, members)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
