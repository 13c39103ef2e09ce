"""Converts raw scores to probabilities, for every slice and for the study.

Label order and axis are those of ``labels.LABELS``: the last axis of every array here. Logits are the model's raw
scores; probabilities are calibrated and consistent (``any`` is never below a type).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hemoscope.inference.calibration import AnyCalibration, SliceRule, StudyRule
from hemoscope.inference.card import ModelCard
from hemoscope.inference.slabs import local_spacings
from hemoscope.labels import LABELS, PerLabel

__all__ = [
    "StudyProbabilities",
    "StudyRule",
    "averaged",
    "calibrated",
    "consistent",
    "mixed_slices",
    "sequence_places",
    "slice_probabilities",
    "smoothed",
    "study_logits",
]

Floats = NDArray[np.float64]

_FARTHEST_WIDTHS = 3.0  # a Gaussian's weight beyond is below .012 of that at its centre


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProbabilities:
    """Scores and probabilities of one series.

    Attributes:
        slice_logits: raw scores, float64, shape (slices, 6), slices in the order they were given.
        slice_probabilities: calibrated and consistent, shape (slices, 6).
        study_logits: from the study rule or from the bundle's sequence graph, shape (6,).
        study_probabilities: calibrated with the study's own calibration and consistent, shape (6,).
        scored: which slices the network scored, shape (slices,); the logits of the others are interpolated.
    """

    slice_logits: Floats
    slice_probabilities: Floats
    study_logits: Floats
    study_probabilities: Floats
    scored: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Check the shapes and that no type exceeds ``any``; make the arrays read-only."""
        shape = self.slice_logits.shape
        if len(shape) != 2 or shape[0] < 1 or shape[1] != len(LABELS) or self.slice_probabilities.shape != shape:
            msg = f"expected (slices, 6) logits and probabilities, got {shape} and {self.slice_probabilities.shape}"
            raise ValueError(msg)
        if self.scored.shape != shape[:1]:
            msg = f"expected for each of {shape[0]} slices whether it was scored, got {self.scored.shape}"
            raise ValueError(msg)
        if self.study_logits.shape != shape[1:] or self.study_probabilities.shape != shape[1:]:
            msg = f"expected 6 study scores, got {self.study_logits.shape} and {self.study_probabilities.shape}"
            raise ValueError(msg)
        for probabilities in (self.slice_probabilities, self.study_probabilities):
            if not (probabilities.max(axis=-1) <= probabilities[..., 0]).all():
                msg = "a type of hemorrhage has a higher probability than any hemorrhage"
                raise ValueError(msg)
        arrays = (self.slice_logits, self.slice_probabilities, self.study_logits, self.study_probabilities, self.scored)
        for array in arrays:
            array.flags.writeable = False

    @classmethod
    def from_logits(
        cls,
        slice_logits: ArrayLike,
        *,
        positions_mm: Sequence[float | None],
        card: ModelCard,
        study: ArrayLike | None = None,
        scored: ArrayLike | None = None,
    ) -> "StudyProbabilities":
        """Score a series: raw slice scores (slices, 6) and the slices' positions in mm, by the rules of the card.

        The slice rule smooths what becomes slice probabilities; the study rule has its own averages, of the raw scores.
        ``study`` (6,) are raw study scores of the model; None applies the card's study rule. ``scored`` (slices,) says
        which slices the network scored; None means all of them.
        """
        logits = np.array(slice_logits, dtype=np.float64)
        ruled = study_logits(logits, positions_mm, card.study_rule)
        study = ruled if study is None else np.array(study, dtype=np.float64)
        return cls(
            slice_logits=logits,
            slice_probabilities=slice_probabilities(logits, positions_mm, card),
            study_logits=study,
            study_probabilities=consistent(calibrated(study, card.calibration.study), card.established),
            scored=np.ones(len(logits), dtype=bool) if scored is None else np.array(scored, dtype=bool),
        )


def slice_probabilities(slice_logits: Floats, positions_mm: Sequence[float | None], card: ModelCard) -> Floats:
    """Return calibrated, consistent probabilities (slices, 6) of raw slice logits, by the slice rule of the card.

    Slices that the rule mixes with others have the rule's calibration; the others keep the card's.
    """
    rule, own = card.slice_rule, card.calibration.slice
    smooth = smoothed(slice_logits, positions_mm, rule)
    found = calibrated(smooth, own)
    if rule is not None and rule.calibration is not None:
        mixed = mixed_slices(positions_mm, rule)
        found = np.where(mixed[:, None], calibrated(smooth, rule.calibration), found)
    return consistent(found, card.established)


def smoothed(slice_logits: Floats, positions_mm: Sequence[float | None], rule: SliceRule | None) -> Floats:
    """Apply the slice rule: each slice's logits become a mean of those nearby, weighted by a Gaussian of the distance.

    Each slice also counts by the length of head that it stands for, so that thin slices beside thick ones do not count
    more. Slices with a gap wider than the rule's width between them are not mixed, nor are slices more than three
    widths apart. The order of the slices does not matter.

    Args:
        slice_logits: raw scores, shape (slices, 6).
        positions_mm: position of each slice along the normal; if one is unknown, nothing is smoothed.
        rule: from the model's card; None smooths nothing.
    """
    if rule is None or rule.width_mm is None or None in positions_mm:
        return slice_logits
    found = _Neighborhood.of(positions_mm, rule.width_mm)
    sums = np.zeros((len(found.counts), slice_logits.shape[1]))
    np.add.at(sums, found.index, slice_logits)
    means = found.weights @ (sums / found.counts[:, None]) / found.weights.sum(axis=1, keepdims=True)
    return np.asarray(means[found.index], dtype=np.float64)


def mixed_slices(positions_mm: Sequence[float | None], rule: SliceRule | None) -> NDArray[np.bool_]:
    """Return which slices ``smoothed`` mixes with others, shape (slices,)."""
    if rule is None or rule.width_mm is None or None in positions_mm:
        return np.zeros(len(positions_mm), dtype=bool)
    found = _Neighborhood.of(positions_mm, rule.width_mm)
    others = ((found.weights > 0).sum(axis=1) > 1) | (found.counts > 1)
    return np.asarray(others[found.index])


@dataclass(frozen=True, slots=True)
class _Neighborhood:
    """The places of a series: each slice's place, the slices at each, and what each place counts at every other."""

    index: NDArray[np.intp]
    counts: NDArray[np.intp]
    weights: Floats

    @classmethod
    def of(cls, positions_mm: Sequence[float | None], width_mm: float) -> "_Neighborhood":
        known = np.array(positions_mm, dtype=np.float64)
        places, index, counts = np.unique(known, return_inverse=True, return_counts=True)
        distances = np.abs(places[:, None] - places) / width_mm
        stretch = np.cumsum((np.diff(places, prepend=places[0]) > width_mm).astype(np.intp))
        mixed = (stretch[:, None] == stretch) & (distances <= _FARTHEST_WIDTHS)
        weights = np.where(mixed, np.exp(-0.5 * distances**2), 0.0) * _lengths(places, stretch)
        return cls(index, counts, weights)


def _lengths(places: Floats, stretch: NDArray[np.intp]) -> Floats:
    """Return the length of head that each place stands for: half of the way to the next place on either side.

    At an end of a stretch, that side counts as the other; a place alone has the length 1.
    """
    steps = np.where(np.diff(stretch) == 0, np.diff(places), np.nan)
    below, above = np.insert(steps, 0, np.nan), np.append(steps, np.nan)
    below, above = np.where(np.isnan(below), above, below), np.where(np.isnan(above), below, above)
    return np.where(np.isnan(below), 1.0, (below + above) / 2)


def study_logits(slice_logits: ArrayLike, positions_mm: Sequence[float | None], rule: StudyRule) -> Floats:
    """Apply the study rule: slice logits (slices, 6) to study logits (6,), label by label.

    Slices thinner than the rule's nominal spacing are first averaged in bins along z, so that one lesion has the
    same weight in a thin and a thick series; then the highest bins are averaged: a lesion extends over adjacent slices,
    a false alarm often does not. The order of the slices does not matter. A single slice keeps its logits.

    Args:
        slice_logits: raw scores, uncalibrated.
        positions_mm: position of each slice along the normal; if one is unknown, every slice is its own bin.
        rule: from the model's card.

    Raises:
        ValueError: there are no slices, a score is not finite, or the numbers of positions and scores differ.
    """
    logits = np.asarray(slice_logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] != len(LABELS) or len(logits) < 1 or len(logits) != len(positions_mm):
        msg = (
            f"expected (slices, 6) logits with one position each, got {logits.shape} and {len(positions_mm)} positions"
        )
        raise ValueError(msg)
    if not np.isfinite(logits).all():
        msg = "slice logits hold values that are not finite: the model or its input is broken"
        raise ValueError(msg)
    bins = _binned(logits, positions_mm, rule.nominal_spacing_mm)
    highest: Floats = np.sort(bins, axis=0)[-rule.count :]
    return np.asarray(highest.mean(axis=0), dtype=np.float64)


def _binned(logits: Floats, positions_mm: Sequence[float | None], nominal_spacing_mm: float) -> Floats:
    """Average the logits (slices, 6) within bins of nominal spacing; thicker slices are bins of their own."""
    known = [position for position in positions_mm if position is not None]
    if len(known) < len(logits):
        return logits
    positions = np.array(known, dtype=np.float64)
    places = np.unique(positions)
    spacing = float(np.median(np.diff(places))) if len(places) > 1 else nominal_spacing_mm
    thick = local_spacings(positions, spacing) >= nominal_spacing_mm
    if thick.all():
        return logits
    # Sorting by position, then score, makes the sums below independent of the order of the slices, to the last bit.
    order = np.lexsort((*logits.T, positions))
    # A slice extends half a spacing to either side: bins start at its edge, not its centre, so that rounding of the
    # positions does not move slices between bins.
    place = np.floor((positions[order] - places[0] + spacing / 2) / nominal_spacing_mm)
    place = np.where(thick[order], -2.0 - np.arange(len(order)), place)
    starts = np.flatnonzero(np.diff(place, prepend=-1.0))
    counts = np.diff(starts, append=len(order))
    return np.asarray(np.add.reduceat(logits[order], starts, axis=0) / counts[:, None], dtype=np.float64)


def sequence_places(positions_mm: Sequence[float | None], nominal_spacing_mm: float) -> NDArray[np.intp]:
    """Return the place (0, 1, ...) of each slice in the input of the sequence network, shape (slices,).

    That network was trained on slices of about the nominal spacing. Adjacent thin slices share a place, so that the
    spacing of places is closest to nominal. Thicker slices, and slices of unknown position, have one place each.

    Args:
        positions_mm: position of each slice along the normal, slices in anatomical order, or None.
        nominal_spacing_mm: of the training slices.
    """
    count = len(positions_mm)
    known = np.array([position for position in positions_mm if position is not None], dtype=np.float64)
    if len(known) < count:
        return np.arange(count)
    places = np.unique(known)
    spacing = float(np.median(np.diff(places))) if len(places) > 1 else nominal_spacing_mm
    thinnest = nominal_spacing_mm / max(count, 1)  # all thinner slices share one place
    shared = np.maximum(np.rint(nominal_spacing_mm / np.maximum(local_spacings(known, spacing), thinnest)), 1)
    # Slices that share a place are adjacent and of one spacing: a new run begins where the spacing changes.
    starts = np.flatnonzero(np.diff(shared, prepend=-1.0))
    within = np.arange(count) - np.repeat(starts, np.diff(starts, append=count))
    return np.asarray(np.cumsum(within % shared == 0) - 1, dtype=np.intp)


def averaged(values: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Average the rows of ``values`` (slices, n) that share a place: (places, n). ``places`` must not decrease."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    counts = np.diff(starts, append=len(places))
    return np.asarray(np.add.reduceat(values, starts, axis=0) / counts[:, None], dtype=np.float32)


def calibrated(logits: Floats, calibrations: PerLabel[AnyCalibration]) -> Floats:
    """Convert logits (..., 6) to probabilities, each label with its own calibration."""
    return np.stack([calibrations[label].apply(logits[..., i]) for i, label in enumerate(LABELS)], axis=-1)


def consistent(probabilities: Floats, established: PerLabel[bool]) -> Floats:
    """Return probabilities (..., 6) in which ``any`` is at least every type.

    ``any`` is raised to the highest established type; a type that is not established is lowered to ``any``.
    """
    believed = np.array([True, *established.values[1:]])
    highest = np.where(believed, probabilities, 0.0).max(axis=-1, keepdims=True)
    return np.concatenate([highest, np.minimum(probabilities[..., 1:], highest)], axis=-1)
