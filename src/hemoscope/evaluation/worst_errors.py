"""Collects a model's worst errors while series are processed one at a time, so that memory use is bounded."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.evaluation_context import ErrorPicture
from hemoscope.inference.card import ModelCard
from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import box_on_slice
from hemoscope.inference.probabilities import Floats
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.error_picture import draw_error, window_of
from hemoscope.volume import HounsfieldVolume

Kind = Literal["missed", "false alarm"]
KINDS: tuple[Kind, ...] = ("missed", "false alarm")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredVolume:
    """One series with its scores, heat maps and labels.

    Attributes:
        volume: the series.
        maps: heat maps as logits, (slices, 6, height, width).
        probabilities: (slices, 6), calibrated.
        labels: (slices, 6) of 0, 1 or NaN; all NaN for slices to ignore.
        image_ids: of the slices.
    """

    volume: HounsfieldVolume
    maps: NDArray[np.float32]
    probabilities: Floats
    labels: Floats
    image_ids: Sequence[str]


class WorstErrors:
    """For each label, the misses of lowest and false alarms of highest probability, at most one per series."""

    def __init__(self, card: ModelCard, limit: int) -> None:
        """Keep at most ``limit`` errors of each label and kind; decisions use the card's points for slices."""
        self._card = card
        self._limit = limit
        self._kept: dict[tuple[Hemorrhage, Kind], list[tuple[float, int, ErrorPicture]]] = {}
        self._order = count()

    def add(self, scored: ScoredVolume) -> None:
        """Process one series, and keep pictures of errors that are among the worst so far."""
        if self._limit == 0:
            return
        for label in LABELS:
            for kind in KINDS:
                self._consider(scored, label, kind)

    def pictures(self) -> tuple[ErrorPicture, ...]:
        """Return the errors by label and kind, worst first."""
        return tuple(
            picture
            for label in LABELS
            for kind in KINDS
            for _, _, picture in sorted(self._kept.get((label, kind), ()), key=lambda one: (-one[0], one[2].image_id))
        )

    def _consider(self, scored: ScoredVolume, label: Hemorrhage, kind: Kind) -> None:
        k, threshold = LABELS.index(label), self._card.operating_points.slice[label].threshold
        probability, truth = scored.probabilities[:, k], scored.labels[:, k]
        missed = kind == "missed"
        wrong = np.flatnonzero(
            (truth == 1) & (probability < threshold) if missed else (truth == 0) & (probability >= threshold)
        )
        if not wrong.size:
            return
        badness = threshold - probability[wrong] if missed else probability[wrong] - threshold
        place = int(wrong[badness.argmax()])
        kept = self._kept.setdefault((label, kind), [])
        if len(kept) == self._limit and float(badness.max()) <= kept[0][0]:
            return
        # The running number breaks ties: pictures cannot be compared.
        heapq.heappush(kept, (float(badness.max()), next(self._order), self._picture(scored, label, kind, place)))
        if len(kept) > self._limit:
            heapq.heappop(kept)

    def _picture(self, scored: ScoredVolume, label: Hemorrhage, kind: Kind, place: int) -> ErrorPicture:
        card, k = self._card, LABELS.index(label)
        local = card.calibration.slice[label].apply(scored.maps[place, k].astype(np.float64))
        box = box_on_slice(scored.volume, place, card.preprocessing)
        heat = HeatMap(values=np.clip(local, 0.0, 1.0).astype(np.float32), box=box)
        return ErrorPicture(
            label=label,
            kind=kind,
            image_id=scored.image_ids[place],
            probability=float(scored.probabilities[place, k]),
            threshold=card.operating_points.slice[label].threshold,
            shows=tuple(one for one, known in zip(LABELS, scored.labels[place], strict=True) if known == 1),
            window=window_of(label)[0],
            jpeg=draw_error(scored.volume.hounsfield[place], heat, label),
        )
