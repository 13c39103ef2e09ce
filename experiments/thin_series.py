"""Compares rules for scoring thin series with scoring every slice, and prints a Markdown table.

    python experiments/thin_series.py DATA SCORES > experiments/results/thin-series/rules.md

DATA is the folder of real head CT with ``cq500-series``, ``field-cases``, ``public-dicom`` and ``ct-ich``. The default
bundle scores every slice of every thin series in it (``thin_heads.py``); the raw scores are kept in the folder SCORES
(five minutes of one processor; seconds if they are there). The rules then choose among these scores. Each series is
read four times, without its first 0 to 3 slices, so that the slices that are scored begin at four phases.

The networks were trained on CT-ICH, so its scores are closer to 0 and 1 than those of other heads; the *faint* series
(half of the contrast of blood) are there for scores in between.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from thin_heads import THICK_MM, real_heads, resampled_heads

from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.calibration import SliceRule, ThinSeriesRule
from hemoscope.inference.card import ModelCard
from hemoscope.inference.engine import RawScores
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.probabilities import StudyProbabilities, smoothed
from hemoscope.inference.thin_series import Run, SlicesToScore, overlapping_runs
from hemoscope.volume import HounsfieldVolume

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
PHASES = range(4)
NEVER = 1.0  # as tolerance: no gap is halved
SMOOTHED_MM = 7.5
REAL = "cq500"


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw scores of every slice of a series (slices, 6), positions, and the runs of slices whose slabs overlap."""

    logits: Floats
    positions_mm: Floats
    runs: tuple[Run, ...]


Rule = Callable[[Scores, ModelCard], tuple[Floats, Booleans]]


def adaptive(step_mm: float, tolerance: float) -> Rule:
    """Return the rule as the product applies it."""

    def apply(series: Scores, card: ModelCard) -> tuple[Floats, Booleans]:
        rule = ThinSeriesRule(step_mm=step_mm, tolerance=tolerance)
        chosen = SlicesToScore(series.runs, len(series.logits), rule=rule, calibration=card.calibration.slice)
        while len(places := chosen.following()):
            chosen.add(places, RawScores(logits=series.logits[places].astype(np.float32), maps=None))
        return chosen.filled().logits.astype(np.float64), chosen.scored

    return apply


def cubic(step_mm: float) -> Rule:
    """Return the rule of fixed steps with a cubic spline through the slices that are scored."""

    def apply(series: Scores, card: ModelCard) -> tuple[Floats, Booleans]:
        logits, scored = adaptive(step_mm, NEVER)(series, card)
        for run in series.runs:
            at = scored[run.places]
            spline = CubicSpline(run.positions_mm[at], logits[run.places[at]])
            logits[run.places[~at]] = spline(run.positions_mm[~at])
        return logits, scored

    return apply


RULES: dict[str, Rule] = {
    "every 5 mm, linear": adaptive(5.0, NEVER),
    "every 5 mm, cubic": cubic(5.0),
    "every 3.2 mm, linear": adaptive(3.2, NEVER),
    "every 2.5 mm, linear": adaptive(2.5, NEVER),
    "every 2.5 mm, cubic": cubic(2.5),
    "every 1.25 mm, linear": adaptive(1.25, NEVER),
    "5 mm, halved beyond .05": adaptive(5.0, 0.05),
    "3.2 mm, halved beyond .1": adaptive(3.2, 0.1),
    "2.5 mm, halved beyond .2": adaptive(2.5, 0.2),
    "2.5 mm, halved beyond .1": adaptive(2.5, 0.1),
    "2.5 mm, halved beyond .05": adaptive(2.5, 0.05),
    "2.5 mm, halved beyond .03": adaptive(2.5, 0.03),
    "**2.5 mm, halved beyond .01**": adaptive(2.5, 0.01),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """How a rule differs from scoring every slice in one series at one phase; largest differences of a probability."""

    share_scored: float
    study: float
    slice: float
    slice_95: float
    smoothed: float


def difference(series: Scores, rule: Rule, card: ModelCard) -> Difference:
    """Apply a rule; ``smoothed`` is the difference by slice if both are smoothed by a slice rule of 7.5 mm."""
    logits, scored = rule(series, card)
    places = series.positions_mm.tolist()
    thin = np.isin(np.arange(len(scored)), np.concatenate([run.places for run in series.runs]))

    def read(raw: Floats) -> StudyProbabilities:
        return StudyProbabilities.from_logits(raw, positions_mm=places, card=card)

    ours, every = read(logits), read(series.logits)
    off = np.abs(ours.slice_probabilities - every.slice_probabilities).max(axis=1)
    both = [read(smoothed(raw, places, SliceRule(width_mm=SMOOTHED_MM))) for raw in (logits, series.logits)]
    return Difference(
        share_scored=float(scored[thin].mean()),
        study=float(np.abs(ours.study_probabilities - every.study_probabilities).max()),
        slice=float(off.max()),
        slice_95=float(np.quantile(off, 0.95)),
        smoothed=float(np.abs(both[0].slice_probabilities - both[1].slice_probabilities).max()),
    )


def scored_series(data: Path, folder: Path) -> Iterator[tuple[str, list[Scores]]]:
    """Yield each series at every phase; read from the folder if all of them were scored before."""
    done = folder / "complete"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        bundle = load_bundle(None)
        card = dataclasses.replace(bundle.card, thin_series=None)
        predictor = Predictor(dataclasses.replace(bundle, card=card), threads=1)
        for name, volume in chain(real_heads(data), resampled_heads(data)):
            score_every_slice(predictor, volume, folder / f"{name}.npz")
            sys.stderr.write(f"{name}\n")
        done.touch()
    for path in sorted(folder.glob("*.npz")):
        yield path.stem, [at_phase(path, phase) for phase in PHASES]


def score_every_slice(predictor: Predictor, volume: HounsfieldVolume, path: Path) -> None:
    """Write the raw scores of every slice, and where the slices lie."""
    logits = predictor.probabilities(volume)[0].slice_logits
    thickness = volume.thickness_mm or (np.nan,) * len(volume)
    np.savez(
        path,
        logits=logits,
        positions=np.array(volume.positions_mm, dtype=np.float64),
        thickness=np.array(thickness, dtype=np.float64),
        spacing=volume.slice_spacing_mm,
    )


def at_phase(path: Path, phase: int) -> Scores:
    """Read one series without its first slices."""
    stored = np.load(path)
    logits, positions, thickness = (stored[name][phase:] for name in ("logits", "positions", "thickness"))
    geometry = HounsfieldVolume(
        hounsfield=np.zeros((len(positions), 1, 1), dtype=np.int16),
        spacing_mm=(float(stored["spacing"]), None, None),
        positions_mm=tuple(positions.tolist()),
        orientation=None,
        thickness_mm=tuple(None if np.isnan(mm) else float(mm) for mm in thickness),
    )
    runs = overlapping_runs([(geometry, range(len(geometry)))], THICK_MM)
    return Scores(logits.astype(np.float64), positions, runs)


def table(found: dict[str, dict[str, list[Difference]]]) -> Iterator[str]:
    """Yield Markdown: one line for each rule; CQ500 apart from the other series."""
    names = [name for name in next(iter(found.values())) if not name.startswith(REAL)]
    yield f"The largest difference of a probability from scoring every slice. CQ500, and {len(names)} other series."
    yield ""
    yield (
        "| rule | CQ500: scored | study | slice (95 %) | slice, smoothed | others: scored, median (most) | study | "
        "slice (95 %) | slice, smoothed | series within .01 and .03 |"
    )
    yield "|" + "---|" * 10
    for rule, series in found.items():
        real = [one for name, phases in series.items() if name.startswith(REAL) for one in phases]
        others = [one for name in names for one in series[name]]
        within = sum(all(one.study <= 0.01 and one.slice <= 0.03 for one in series[name]) for name in names)
        shares = [one.share_scored for one in others]
        yield (
            f"| {rule} | {np.mean([one.share_scored for one in real]):.0%} | {worst(real)} | {np.median(shares):.0%} "
            f"({max(shares):.0%}) | {worst(others)} | {within} of {len(names)} |"
        )


def worst(found: list[Difference]) -> str:
    """Return the cells of the largest differences."""
    cells = [max(getattr(one, name) for one in found) for name in ("study", "slice", "slice_95", "smoothed")]
    study, of_slice, most, smooth = (f"{cell:.3f}".removeprefix("0") for cell in cells)
    return f"{study} | {of_slice} ({most}) | {smooth}"


def main() -> None:
    """Print the table, and the series that it is made of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scores", type=Path)
    arguments = parser.parse_args()
    card = load_bundle(None).card
    series = dict(scored_series(arguments.data, arguments.scores))
    found = {
        name: {one: [difference(scores, rule, card) for scores in phases] for one, phases in series.items()}
        for name, rule in RULES.items()
    }
    named = ", ".join(f"{name} ({len(phases[0].logits)})" for name, phases in series.items())
    sys.stdout.write("\n".join([*table(found), "", f"Series, with the slices of each: {named}."]) + "\n")


if __name__ == "__main__":
    main()
