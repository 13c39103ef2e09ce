"""What the histograms of all sites say together: ranking with its exact bounds, intervals, and rows to fit on.

A pair of a positive and a negative row is decided where their cells do not overlap. The pairs decided in favour are the
lowest AUROC that the rows can have, those not decided against the highest: exact bounds. The value between them spreads
each cell's rows evenly over it, so that rows in one cell count as ties; the stated error is the way to the further
bound. (The middle of the bounds would be several times further off: it takes any overlap of two wide cells for a tie.)
Bounds and values are of the reported rows. A label that a site may not report is missing there for both classes.

Intervals are a bootstrap of cells with patients as units: each round draws as many rows as there are patients. A drawn
slice stands for all slices of its patient, as if they added nothing, which for slices is wide. The lower end is
taken of the lower bounds and the upper end of the upper bounds, so that the interval includes the stated error. If the
classes are separated, resampling never varies: then the interval is the exact one of as many pairs as patients form.

Axes: cells, or (rounds, cells). Logits.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import t

from hemoscope.errors import FederationError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS
from hemoscope.evaluation.intervals import CONFIDENCE, Interval, proportion_interval
from hemoscope.federated.exchange.histograms import EDGES, Cell, ClassCounts, Level, ScoreHistograms
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.training.run_scores import LevelScores

Floats = NDArray[np.float64]

# Logits. An open end is taken to reach so much beyond the last edge: rows of its fine cell stand half of it beyond.
OPEN_END = 1.0
# Beyond any logit: in rows made for one label, no other label may lift or cap its probability.
_FAR = 1e6
MOST_PLACED = 100_000  # rows of a class


@dataclass(frozen=True, slots=True, kw_only=True)
class AurocBounds:
    """An AUROC from cells: between ``low`` and ``high`` wherever the rows in them lie, at ``value`` if evenly."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """How far the AUROC of the rows can be from ``value``."""
        return max(self.high - self.value, self.value - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prevalence:
    """Share of positive rows of one label.

    A site with few positives may not report the label, while a site with many, or with none, does. So the share among
    reported rows, at which a calibration is fitted, is not the share of all rows.

    Attributes:
        reported: share among the reported rows.
        low: least share of all rows, if each report that withholds the label holds one positive.
        high: largest share of all rows, if each holds one positive less than it could report.
        withheld: reports that hold rows and withhold this label.
    """

    reported: float
    low: float
    high: float
    withheld: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PooledClass:
    """One class of one label over all sites, cells in a fixed order: bounds and counts, (cells,) each."""

    low: Floats
    high: Floats
    count: Floats
    patients: int

    @classmethod
    def of(cls, reported: Sequence[ClassCounts]) -> "PooledClass":
        """Add sites up; the same for any order of them."""
        counts: Counter[tuple[int, int]] = Counter()
        for site in reported:
            counts.update({(cell.first, cell.last): cell.count for cell in site.cells})
        cells = [Cell(first=first, last=last, count=count) for (first, last), count in sorted(counts.items())]
        bounds = np.array([cell.bounds for cell in cells]).reshape(-1, 2)
        count = np.array([cell.count for cell in cells], dtype=np.float64)
        return cls(low=bounds[:, 0], high=bounds[:, 1], count=count, patients=sum(site.patients for site in reported))

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.count.sum())

    @property
    def spread(self) -> tuple[Floats, Floats]:
        """Where each cell begins and ends, the open ends taken to reach ``OPEN_END`` beyond the last edge."""
        return np.maximum(self.low, EDGES[0] - OPEN_END), np.minimum(self.high, EDGES[-1] + OPEN_END)

    def placed(self) -> Floats:
        """A logit for each row, spread evenly over its cell; of more than 100,000 about so many, in proportion."""
        count = np.ceil(self.count * min(1.0, MOST_PLACED / max(self.rows, 1))).astype(np.intp)
        low, high = (np.repeat(ends, count) for ends in self.spread)
        number = np.arange(len(low)) - np.repeat(np.cumsum(count) - count, count)
        return np.asarray(low + (number + 0.5) / np.repeat(count, count) * (high - low))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PooledScores:
    """All sites' scores at one level; ``rows`` and ``patients`` as far as the sites report them.

    ``withheld`` has one (rows, least cell) for each report that holds rows and withholds the label.
    """

    level: Level
    sites: int
    least_cell: int
    rows: int
    patients: int
    positive: PerLabel[PooledClass]
    negative: PerLabel[PooledClass]
    reported: PerLabel[int]
    withheld: PerLabel[tuple[tuple[int, int], ...]]

    def auroc(self, label: Hemorrhage) -> AurocBounds | None:
        """The AUROC of the pooled rows within its exact bounds; None where a class has none."""
        positive, negative = self.positive[label], self.negative[label]
        if not positive.rows or not negative.rows:
            return None
        low, high = _bounds(positive, negative, positive.count[None, :], negative.count[None, :])
        value = positive.count @ _chance_above(positive, negative) @ negative.count / (positive.rows * negative.rows)
        ends = float(low[0]), float(high[0])
        return AurocBounds(value=float(np.clip(value, *ends)), low=ends[0], high=ends[1])

    def interval(self, label: Hemorrhage, *, rounds: int = DEFAULT_ROUNDS, seed: int = 0) -> Interval | None:
        """The AUROC with its 95% interval; None where it is not defined, or all rounds lack a class.

        From the lower bound to the upper bound, each less or plus its bootstrap standard error on the logit scale times
        Student's t for the patients of the smaller class, as for an AUROC of rows.
        """
        found = self.auroc(label)
        if found is None:
            return None
        positive, negative = self.positive[label], self.negative[label]
        drawn = _draws(positive, negative, rounds=rounds, seed=seed)
        split = len(positive.count)
        both = (drawn[:, :split].sum(axis=1) > 0) & (drawn[:, split:].sum(axis=1) > 0)
        if not both.any():
            return None
        low, high = _bounds(positive, negative, drawn[both, :split], drawn[both, split:])
        fewest = min(positive.patients, negative.patients)
        ends = _end(found.low, low, -1, fewest), _end(found.high, high, 1, fewest)
        if ends in {(0.0, 0.0), (1.0, 1.0)}:
            ends = self._separated(label, ends[0])
        return Interval(value=found.value, low=min(ends[0], found.low), high=max(ends[1], found.high))

    def _separated(self, label: Hemorrhage, share: float) -> tuple[float, float]:
        """Return the exact interval of separated classes, whose resampling never varies: as for an AUROC of rows."""
        pairs = max(min(self.positive[label].patients, self.negative[label].patients), 1)
        exact = proportion_interval(np.full(pairs, share == 1.0))
        assert exact is not None
        return exact.low, exact.high

    def prevalence(self, label: Hemorrhage) -> Prevalence | None:
        """The share of positives, with its range over all rows; None if no row is reported."""
        positive = self.positive[label].rows
        known, withheld = positive + self.negative[label].rows, self.withheld[label]
        if not known:
            return None
        every = known + sum(rows for rows, _ in withheld)
        most = sum(min(least - 1, rows) for rows, least in withheld)
        return Prevalence(
            reported=positive / known,
            low=(positive + min(len(withheld), most)) / every,
            high=(positive + most) / every,
            withheld=len(withheld),
        )

    def positive_patients(self, label: Hemorrhage) -> int:
        """Patients with the label among those reported, at least."""
        return self.positive[label].patients

    def made_rows(self) -> LevelScores:
        """Rows that fits can read: each reported row somewhere in its cell, one label a row, the others unknown.

        Patients are made up too, as many in a class as it has.
        """
        made = [
            _made_class(found[label], k, truth=truth, name=f"{label.value} {truth:g}")
            for k, label in enumerate(LABELS)
            for found, truth in ((self.positive, 1.0), (self.negative, 0.0))
        ]
        return LevelScores(
            logits=np.concatenate([one.logits for one in made]),
            truth=np.concatenate([one.truth for one in made]),
            patients=tuple(name for one in made for name in one.patients),
        )


def _end(bound: float, drawn: Floats, side: int, patients: int) -> float:
    """Return an end of the interval beyond a bound of the AUROC; ``drawn`` are its values in bootstrap samples."""
    if patients < 2:
        return float(side > 0)
    if bound in (0.0, 1.0):
        tail = (1.0 - CONFIDENCE) / 2
        return float(np.quantile(drawn, tail if side < 0 else 1.0 - tail))
    half = t.ppf((1.0 + CONFIDENCE) / 2, patients - 1) * drawn.std(ddof=1) / (bound * (1.0 - bound))
    return float(expit(logit(bound) + side * half))


def pool(histograms: Sequence[ScoreHistograms]) -> PooledScores:
    """Add the sites' histograms of one level up.

    Raises:
        FederationError: there is none, or they are of different levels.
    """
    levels = {found.level for found in histograms}
    if len(levels) != 1:
        found = " and ".join(sorted(levels)) or "nothing"
        msg = f"score histograms of {found} cannot be pooled. Give those of one level, from one site at least"
        raise FederationError(msg)

    def reported(label: Hemorrhage) -> int:
        return sum(bool(_rows(site.positive[label]) or _rows(site.negative[label])) for site in histograms)

    def withheld(label: Hemorrhage) -> tuple[tuple[int, int], ...]:
        return tuple((site.rows, site.least_cell) for site in histograms if site.rows and site.positive[label] is None)

    return PooledScores(
        level=levels.pop(),
        sites=len(histograms),
        least_cell=min(site.least_cell for site in histograms),
        rows=sum(site.rows for site in histograms),
        patients=sum(site.patients for site in histograms),
        positive=_pooled(lambda label: [site.positive[label] for site in histograms]),
        negative=_pooled(lambda label: [site.negative[label] for site in histograms]),
        reported=PerLabel.build(reported),
        withheld=PerLabel.build(withheld),
    )


def _rows(found: ClassCounts | None) -> int:
    return 0 if found is None else found.rows


def _pooled(of: Callable[[Hemorrhage], Sequence[ClassCounts | None]]) -> PerLabel[PooledClass]:
    return PerLabel.build(lambda label: PooledClass.of([found for found in of(label) if found is not None]))


def _bounds(
    positive: PooledClass, negative: PooledClass, positive_weights: Floats, negative_weights: Floats
) -> tuple[Floats, Floats]:
    """Lowest and highest AUROC of each weighting: weights (rounds, cells) to (rounds,) each; both classes are there."""
    pairs = positive_weights.sum(axis=1) * negative_weights.sum(axis=1)
    # Won for certain: the negative's cell ends (exclusive) no higher than the positive's begins.
    won = _weight_up_to(negative.high, negative_weights, positive.low, side="right")
    # Not lost for certain: the negative's cell begins (inclusive) below the positive's end (exclusive).
    not_lost = _weight_up_to(negative.low, negative_weights, positive.high, side="left")
    low, high = ((positive_weights * beaten).sum(axis=1) / pairs for beaten in (won, not_lost))
    return low, high


def _chance_above(positive: PooledClass, negative: PooledClass) -> Floats:
    """Chance that a row of each positive cell lies above one of each negative cell, both spread evenly."""
    (first, last), (low, high) = (found.spread for found in (positive, negative))
    width = high - low

    def beaten(limit: Floats) -> Floats:
        """The share of each negative cell below a logit, integrated up to the limit of each positive cell."""
        inside = np.clip(limit[:, None] - low, 0.0, width)
        return np.asarray(inside**2 / (2 * width) + np.maximum(limit[:, None] - high, 0.0))

    return np.asarray((beaten(last) - beaten(first)) / (last - first)[:, None])


def _weight_up_to(places: Floats, weights: Floats, limits: Floats, *, side: Literal["left", "right"]) -> Floats:
    """Weight of the places below each limit (``right``: or at it): (rounds, limits)."""
    order = np.argsort(places, kind="stable")
    sums = np.zeros((len(weights), len(places) + 1))
    np.cumsum(weights[:, order], axis=1, out=sums[:, 1:])
    return np.asarray(sums[:, np.searchsorted(places[order], limits, side=side)])


def _draws(positive: PooledClass, negative: PooledClass, *, rounds: int, seed: int) -> Floats:
    """Rows drawn from each cell, positives then negatives, (rounds, cells): as many in all as there are patients."""
    shares = [found.patients * found.count / found.rows for found in (positive, negative)]
    joined = np.concatenate(shares)
    random = np.random.default_rng(seed)
    draws = random.multinomial(positive.patients + negative.patients, joined / joined.sum(), size=rounds)
    return draws.astype(np.float64)


def _made_class(found: PooledClass, k: int, *, truth: float, name: str) -> LevelScores:
    """Rows (n, 6) of one class of label ``k``; ``any`` and the types neither lift nor cap what is made here."""
    values = found.placed()
    logits = np.full((len(values), len(LABELS)), -_FAR)
    logits[:, 0] = _FAR
    logits[:, k] = values
    known = np.full_like(logits, np.nan)
    known[:, k] = truth
    patients = tuple(f"{name} {row % max(found.patients, 1)}" for row in range(len(values)))
    return LevelScores(logits=logits, truth=known, patients=patients)
