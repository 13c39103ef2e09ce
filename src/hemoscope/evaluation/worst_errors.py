"""Collects a model's worst errors while series are processed one at a time, so that memory use is bounded."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.evaluation.evaluation_context import ErrorPicture
from hemoscope.evaluation.strata import SliceFacts
from hemoscope.inference.card import ModelCard
from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import box_on_slice
from hemoscope.inference.probabilities import Floats
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.error_picture import draw_error, window_of
from hemoscope.volume import HounsfieldVolume

Kind = Literal["missed", "false alarm"]
Level = Literal["slice", "study"]
KINDS: tuple[Kind, ...] = ("missed", "false alarm")
LEVELS: tuple[Level, ...] = ("slice", "study")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredVolume:
    """One series with its scores, heat maps and labels.

    Attributes:
        volume: the series.
        maps: heat maps as logits, (slices, 6, height, width).
        probabilities: (slices, 6), calibrated.
        labels: (slices, 6) of 0, 1 or NaN; all NaN for slices to ignore.
        image_ids: of the slices.
        facts: the strata of the slices; None if unknown.
        study: probabilities of the study, (6,); None looks at slices alone.
    """

    volume: HounsfieldVolume
    maps: NDArray[np.float32]
    probabilities: Floats
    labels: Floats
    image_ids: Sequence[str]
    facts: SliceFacts | None = None
    study: Floats | None = None


class WorstErrors:
    """For each label, the misses of lowest and false alarms of highest probability, at most one per series.

    By slice, and by study: there, the slice of the highest probability stands for the study, of those that show the
    label if it was missed.
    """

    def __init__(self, card: ModelCard, limit: int) -> None:
        """Keep at most ``limit`` errors of each label and kind; decisions use the card's points of each level."""
        self._card = card
        self._limit = limit
        self._kept: dict[tuple[Level, Hemorrhage, Kind], list[tuple[float, int, ErrorPicture]]] = {}
        self._order = count()

    def add(self, scored: ScoredVolume) -> None:
        """Process one series, and keep pictures of errors that are among the worst so far."""
        if self._limit == 0:
            return
        for label in LABELS:
            for kind in KINDS:
                self._consider(scored, label, kind)
                if scored.study is not None:
                    self._consider_study(scored, scored.study, label, kind)

    def pictures(self) -> tuple[ErrorPicture, ...]:
        """Return the errors by label and kind, worst first."""
        return tuple(
            picture
            for level in LEVELS
            for label in LABELS
            for kind in KINDS
            for _, _, picture in sorted(
                self._kept.get((level, label, kind), ()), key=lambda one: (-one[0], one[2].image_id)
            )
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
        self._keep(scored, "slice", label, kind, place, (float(badness.max()), float(probability[place]), threshold))

    def _consider_study(self, scored: ScoredVolume, study: Floats, label: Hemorrhage, kind: Kind) -> None:
        k, threshold = LABELS.index(label), self._card.operating_points.study[label].threshold
        truth, probability = scored.labels[:, k], float(study[k])
        if not np.isfinite(truth).any():
            return
        positive, flagged, missed = bool((truth == 1).any()), probability >= threshold, kind == "missed"
        if flagged == positive or positive != missed:
            return
        shown = np.where(truth == float(missed), scored.probabilities[:, k], -1.0)
        badness = abs(probability - threshold)
        self._keep(scored, "study", label, kind, int(shown.argmax()), (badness, probability, threshold))

    def _keep(
        self,
        scored: ScoredVolume,
        level: Level,
        label: Hemorrhage,
        kind: Kind,
        place: int,
        wrong: tuple[float, float, float],
    ) -> None:
        """Keep an error if it is among the worst; ``wrong`` is by how much, the probability and the threshold."""
        badness, probability, threshold = wrong
        kept = self._kept.setdefault((level, label, kind), [])
        if len(kept) == self._limit and badness <= kept[0][0]:
            return
        picture = replace(
            self._picture(scored, label, kind, place), level=level, probability=probability, threshold=threshold
        )
        # The running number breaks ties: pictures cannot be compared.
        heapq.heappush(kept, (badness, next(self._order), picture))
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
            strata=() if scored.facts is None else scored.facts.names(place),
            window=window_of(label)[0],
            jpeg=draw_error(scored.volume.hounsfield[place], heat, label),
        )
