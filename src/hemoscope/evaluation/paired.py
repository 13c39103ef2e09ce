"""Several models on the same patients: the AUROC of each, and how far apart they are, from one bootstrap for all.

Percentile bootstrap over whole patients as in :mod:`hemoscope.evaluation.bootstrap`. A round draws the same patients
for every model, so that what is hard about a patient cancels in a difference (DeLong 1988 gives the reason; drawing
patients instead of slices, Obuchowski 1997).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS, Interval, group_indices, interval, resamples
from hemoscope.evaluation.metrics import Booleans, Floats, Ranking

_CHUNK_CELLS = 2_000_000  # rounds times images held at once, as float64 (16 MB)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairedAuroc:
    """AUROC of several models on one set of images.

    Attributes:
        values: of each model, NaN where only one class is known.
        drawn: (rounds,) of each model; the same round of any two drew the same patients.
    """

    values: Mapping[str, float]
    drawn: Mapping[str, Floats]

    def interval(self, weights: Mapping[str, float]) -> Interval | None:
        """A weighted sum of the models' AUROC with its 95% interval; None where it is not defined.

        Args:
            weights: ``{"a": 1}`` is the AUROC of ``a``; ``{"a": 1, "b": -1}`` how far ``a`` stands above ``b``.
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
    """Draw patients once and measure every model on each draw.

    Args:
        scores: of each model, (images,).
        labels: (images,) of 0, 1 or NaN; an image whose label is unknown is left out.
        patients: of each image. All of them are drawn, those without a known label too: so the draws are the same for
            every label of one set of images.
        rounds: bootstrap rounds.
        seed: of the draws.

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
