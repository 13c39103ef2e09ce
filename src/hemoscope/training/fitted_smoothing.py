"""Chooses the width of the slice rule on scores of held-out data, and smooths these scores as serving does.

The width is the one of the highest AUROC of ``any`` by slice. What a card states is nested: slices of one fold of
patients are smoothed by the width chosen on the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.intervals import placements
from hemoscope.inference.calibration import SliceRule
from hemoscope.inference.probabilities import smoothed
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.run_scores import SliceAndStudyScores

Floats = NDArray[np.float64]

# None smooths nothing. Slices of 5 mm are mixed from 5 mm on.
WIDTHS_MM = (None, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smoothing:
    """The slice logits (n, 6) of each width, and the truth of ``any`` (n,), NaN if unknown."""

    logits: Mapping[float | None, Floats]
    truth: Floats

    def width_mm(self, rows: NDArray[np.bool_] | None = None) -> float | None:
        """Return the width of the highest AUROC on some rows; of equal ones, the narrowest. None without both classes.

        Args:
            rows: (n,) the rows to choose on; None means all.
        """
        known = np.isfinite(self.truth) if rows is None else rows & np.isfinite(self.truth)
        positive = self.truth[known] == 1.0
        if positive.all() or not positive.any():
            return None
        first = LABELS.index(Hemorrhage.ANY)
        areas = {
            width: placements(logits[known, first], positive)[positive].mean() for width, logits in self.logits.items()
        }
        return max(areas, key=lambda width: (areas[width], -(width or 0.0)))

    def smoothed_by(self, rows: NDArray[np.bool_] | None = None) -> Floats:
        """Return all logits (n, 6) smoothed by the width that is chosen on some rows."""
        return self.logits[self.width_mm(rows)]


def smoothing_of(scored: SliceAndStudyScores) -> Smoothing | None:
    """Smooth the slices of each series by every width; None if their places are unknown, as in a federation."""
    if scored.places is None:
        return None
    places, slices = scored.places, scored.slices
    owners = np.array([f"{patient}\0{series}" for patient, series in zip(slices.patients, places.series, strict=True)])
    members = [np.flatnonzero(owners == owner) for owner in np.unique(owners)]
    found: dict[float | None, Floats] = {}
    for width in WIDTHS_MM:
        rule = SliceRule(width_mm=width)
        found[width] = np.empty_like(slices.logits)
        for rows in members:
            found[width][rows] = smoothed(slices.logits[rows], places.positions_mm[rows].tolist(), rule)
    return Smoothing(logits=found, truth=slices.truth[:, LABELS.index(Hemorrhage.ANY)])
