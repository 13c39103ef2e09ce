"""Paired comparison of models on the same patients: AUROCs and their differences, from one bootstrap.

Percentile bootstrap over whole patients as in :mod:`hemoscope.evaluation.bootstrap`. A round resamples the same
patients for every model, so that a patient's difficulty cancels in a difference (DeLong 1988; resampling patients
instead of slices, Obuchowski 1997).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS, interval, resamples
from hemoscope.evaluation.intervals import Interval, group_indices
from hemoscope.evaluation.metrics import Booleans, Floats, Ranking

_CHUNK_CELLS = 2_000_000  # maximum array size: rounds times images, as float64 (16 MB)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedAuroc:
    """AUROC of several models on one set of images.

    Attributes:
        values: of each model, NaN if only one class is known.
        drawn: (rounds,) of each model; a round has the same patients for all models.
    """

    values: Mapping[str, float]
    drawn: Mapping[str, Floats]

    def interval(self, weights: Mapping[str, float]) -> Interval | None:
        """Return a weighted sum of the models' AUROCs with its 95% interval; None if undefined.

        Args:
            weights: ``{"a": 1}`` is the AUROC of ``a``; ``{"a": 1, "b": -1}`` is that of ``a`` minus ``b``.
        """
        value = sum(weight * self.values[name] for name, weight in weights.items())
        drawn = sum((weight * self.drawn[name] for name, weight in weights.items()), start=np.zeros(1))
        return interval(value, np.asarray(drawn))


def paired_auroc(
    scores: Mapping[str, Floats],
    labels: Floats,
    patients: Sequence[Hashable],
    *,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
) -> PairedAuroc:
    """Resample patients and score every model on each sample.

    Args:
        scores: of each model, (images,).
        labels: (images,) of 0, 1 or NaN; images with unknown labels are excluded.
        patients: of each image. All are resampled, also those without a known label, so that the samples are the same
            for every label.
        rounds: bootstrap rounds.
        seed: of the resampling.

    Raises:
        DataError: scores and labels differ in length.
    """
    lengths = {len(labels), *map(len, scores.values())}
    if len(lengths) != 1:
        msg = f"models with {', '.join(map(str, sorted(lengths)))} scores and labels: each must score the same images"
        raise DataError(msg)
    groups, n_groups = group_indices(patients, len(labels))
    known: Booleans = np.isfinite(labels)
    if not known.any() or labels[known].min() == labels[known].max():
        nowhere = {name: np.full(rounds, np.nan) for name in scores}
        return PairedAuroc(values=dict.fromkeys(scores, float("nan")), drawn=nowhere)
    rankings = {name: Ranking.of(values[known], labels[known]) for name, values in scores.items()}
    chunk = max(1, _CHUNK_CELLS // int(known.sum()))
    drawn: dict[str, list[Floats]] = {name: [] for name in scores}
    for weights in resamples(n_groups, rounds, seed=seed, chunk=chunk):
        of_images = weights[:, groups[known]]
        for name, ranking in rankings.items():
            drawn[name].append(ranking.evaluate(of_images[:, ranking.order])[0])
    once = np.ones((1, int(known.sum())))
    return PairedAuroc(
        values={name: float(ranking.evaluate(once)[0][0]) for name, ranking in rankings.items()},
        drawn={name: np.concatenate(parts) for name, parts in drawn.items()},
    )
