"""Which slices of a thin series are scored, and how the others are filled in.

Slices whose slabs overlap show much of the same head. Of these, the first, the last and one every ``step_mm`` are
scored. Gaps between them where a probability may be wrong by more than ``tolerance`` are then halved, until none is
left. Logits, heat maps and embeddings of the other slices are interpolated, linearly by position in mm. Slices that are
not averaged with others, and slices of unknown position, are always scored.

The error in a gap is estimated from the scored slices around it, two on either side: how far each lies from the line
between its own neighbors. That line is twice as long as the gap, so half of the largest distance is expected in it. The
calibration turns this error of a logit into one of a probability, which is small if the probability is near 0 or 1. It
is that of a slice's own score: a slice rule, which averages these errors and has a calibration of its own, comes later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hemoscope.inference.calibration import AnyCalibration, ThinSeriesRule
from hemoscope.inference.engine import RawScores
from hemoscope.inference.slabs import slab_bounds
from hemoscope.labels import LABELS, PerLabel
from hemoscope.volume import HounsfieldVolume

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]
Indices = NDArray[np.intp]

_ROUNDING_MM = 1e-3  # of positions


@dataclass(frozen=True, slots=True)
class Run:
    """Slices of one stack whose slabs overlap, from below to above: their places in the series and positions in mm."""

    places: Indices
    positions_mm: Floats


def overlapping_runs(parts: Sequence[tuple[HounsfieldVolume, Sequence[int]]], slab_mm: float | None) -> tuple[Run, ...]:
    """Return the runs of three slices and more; there is none in a series of thick slices.

    Args:
        parts: each stack of the series, with the places of its slices in the series.
        slab_mm: thickness of the preprocessing's slabs.
    """
    return tuple(run for volume, places in parts for run in _runs_of(volume, np.asarray(places), slab_mm))


def _runs_of(volume: HounsfieldVolume, places: Indices, slab_mm: float | None) -> list[Run]:
    if None in volume.positions_mm:
        return []
    positions = np.array(volume.positions_mm, dtype=np.float64)
    bounds = np.array([slab_bounds(volume, index, slab_mm) for index in range(len(volume))])
    numbers = np.arange(len(volume))
    apart = (bounds[:-1, 1] <= numbers[:-1]) | (bounds[1:, 0] >= numbers[1:]) | (np.diff(positions) <= 0)
    runs = np.split(numbers, np.flatnonzero(apart) + 1)
    return [Run(places[run], positions[run]) for run in runs if len(run) > 2]


class SlicesToScore:
    """Chooses the slices of one series to score, in rounds, and fills in the others."""

    def __init__(
        self, runs: Sequence[Run], count: int, *, rule: ThinSeriesRule | None, calibration: PerLabel[AnyCalibration]
    ) -> None:
        """Choose the first round.

        Args:
            runs: of the series.
            count: number of slices of the series.
            rule: of the card; None scores every slice.
            calibration: of slices' own logits.
        """
        self.calibration = calibration
        self.rule = rule
        self.runs = () if rule is None else tuple(runs)
        self._chosen = np.ones(count, dtype=bool)
        if rule is not None:
            for run in self.runs:
                self._chosen[run.places] = _every(run.positions_mm, rule.step_mm)
        self._places = np.zeros(0, dtype=np.intp)
        self._rounds: list[RawScores] = []

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which slices of the series were scored, shape (slices,)."""
        return np.isin(np.arange(len(self._chosen)), self._places)

    def following(self) -> Indices:
        """Return the places of the next round in order; none if enough slices are scored."""
        if self._rounds and self.rule is not None and self.runs:
            logits = self._laid([scores.logits for scores in self._rounds]).astype(np.float64)
            for run in self.runs:
                self._refine(run, logits[run.places], self.rule.tolerance)
        return np.flatnonzero(self._chosen & ~self.scored)

    def add(self, places: Indices, scores: RawScores) -> None:
        """Keep the scores of a round."""
        self._places = np.concatenate([self._places, places])
        self._rounds.append(scores)

    def filled(self) -> RawScores:
        """Return the scores of every slice of the series."""
        maps = [scores.maps for scores in self._rounds if scores.maps is not None]
        embeddings = [scores.embeddings for scores in self._rounds if scores.embeddings is not None]
        return RawScores(
            logits=self._laid([scores.logits for scores in self._rounds]),
            maps=self._laid(maps) if maps else None,
            embeddings=self._laid(embeddings) if embeddings else None,
        )

    def _refine(self, run: Run, logits: Floats, tolerance: float) -> None:
        """Choose the middle of each gap of a run whose expected error exceeds the tolerance."""
        ends = np.flatnonzero(self._chosen[run.places])
        errors = expected_errors(run.positions_mm[ends], logits[ends], self.calibration)
        gaps = np.flatnonzero((np.diff(ends) > 1) & (errors > tolerance))
        self._chosen[run.places[(ends[gaps] + ends[gaps + 1]) // 2]] = True

    def _laid(self, values: Sequence[Scores]) -> Scores:
        """Lay what was scored (rounds, each with one row a slice) in the order of the series, and fill the gaps."""
        rows = np.concatenate(values)
        laid = np.empty((len(self._chosen), *rows.shape[1:]), dtype=rows.dtype)
        laid[self._places] = rows
        scored = self.scored
        for run in self.runs:
            ends, others = np.flatnonzero(scored[run.places]), np.flatnonzero(~scored[run.places])
            above = np.searchsorted(ends, others)
            low, high = ends[above - 1], ends[above]
            start, stop = run.positions_mm[low], run.positions_mm[high]
            share = ((run.positions_mm[others] - start) / (stop - start)).astype(rows.dtype)
            share = share.reshape(-1, *(1,) * (rows.ndim - 1))
            laid[run.places[others]] = (1 - share) * laid[run.places[low]] + share * laid[run.places[high]]
        return laid


def _every(positions_mm: Floats, step_mm: float) -> NDArray[np.bool_]:
    """Choose the first slice, the last, and between them slices at most ``step_mm`` apart, or neighbors."""
    chosen = [0]
    for index in range(1, len(positions_mm) - 1):
        if positions_mm[index + 1] - positions_mm[chosen[-1]] > step_mm + _ROUNDING_MM:
            chosen.append(index)
    return np.isin(np.arange(len(positions_mm)), [*chosen, len(positions_mm) - 1])


def expected_errors(positions_mm: Floats, logits: Floats, calibration: PerLabel[AnyCalibration]) -> Floats:
    """Return the largest expected error of a probability inside each gap between scored slices, shape (slices - 1,).

    Args:
        positions_mm: of the scored slices, increasing.
        logits: their raw scores, shape (slices, 6).
        calibration: of slice logits.
    """
    steps = np.diff(positions_mm)[:, None]
    span = steps[:-1] + steps[1:]
    line = logits[:-2] + (logits[2:] - logits[:-2]) * steps[:-1] / span
    bend = np.abs(logits[1:-1] - line) / span  # of a logit per mm, at every scored slice but the first and the last
    around = np.pad(bend, ((2, 2), (0, 0))) if len(bend) else np.zeros((len(logits) + 2, logits.shape[1]))
    error = sliding_window_view(around, 4, axis=0).max(axis=-1) * steps
    below, above = logits[:-1], logits[1:]
    worst = [_moved(logit, error, calibration) for logit in (below, (below + above) / 2, above)]
    return np.asarray(np.max(worst, axis=(0, 2)), dtype=np.float64)


def _moved(logits: Floats, error: Floats, calibration: PerLabel[AnyCalibration]) -> Floats:
    """Return by how much the probabilities (n, 6) change if the logits are off by ``error`` in either direction."""
    changes = [
        np.max([np.abs(fit.apply(logits[:, i] + sign * error[:, i]) - fit.apply(logits[:, i])) for sign in (1, -1)], 0)
        for i, fit in enumerate(calibration[label] for label in LABELS)
    ]
    return np.stack(changes, axis=-1)
