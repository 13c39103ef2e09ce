"""Recomputes the paper's numbers: a value for each ``key`` of ``published_paper``, from whatever data are given.

Intervals are 95%. Those of points on curves (Tables IV and V) come from a bootstrap over patients, or over single
images if the patients are unknown; the others are those of the evaluation report.
"""

import math
import tomllib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import DataError
from hemoscope.evaluation.metrics import Floats
from hemoscope.evaluation.paper_tables import TABLE_FIVE_PRECISION, TRADEOFF_PRECISIONS
from hemoscope.evaluation.published_paper import PUBLISHED
from hemoscope.evaluation.score_documents import Document
from hemoscope.evaluation.thresholds import Cuts, row_at_precision
from hemoscope.labels import LABELS, Hemorrhage

_POINT = ("precision", "threshold", "recall", "accuracy")
_TAILS = (2.5, 97.5)
_WIDTH = 1.959964  # 95% of a normal distribution lie within so many standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """A recomputed value, its interval if it has one, and what it was computed from."""

    value: float
    low: float | None = None
    high: float | None = None
    basis: str


Values = dict[str, Recomputed]


def from_report(report: Document) -> Values:
    """Read the scores of Tables II and III, of the headline and of the points of Tables IV and V from a report.

    Args:
        report: the content of ``report.json``, as ``evaluation.report`` describes it. A score that is null is left out.
    """
    basis = f"{report['n_images']:,} slices"
    named: dict[str, tuple[Mapping[str, Any] | None, float]] = {
        "headline.accuracy": (report["macro"]["accuracy"], 100),
        "headline.exact_match": (report["exact_match"], 100),
        "headline.recall": (report["macro"]["recall"], 1),
        "headline.auroc": (report["macro"]["auroc"], 1),
    }
    for metric in ("accuracy", "precision", "recall"):
        named |= {f"label.{label}.{metric}": (report["labels"][label.value][metric], 1) for label in LABELS}
        named |= {f"any.{way}.{metric}": (report["any"][way][metric], 1) for way in ("learned", "explicit")}
    found = {key: _scaled(score, factor, basis) for key, (score, factor) in named.items() if score is not None}
    points = {
        f"tradeoff.{_target(point['target'])}": point for point in report["any_tradeoff"] if point["recall"] is not None
    }
    points |= {
        f"at_precision.{label}": point
        for label, point in report["recall_at_precision"].items()
        if point["recall"] is not None
    }
    found |= {
        f"{key}.{name}": Recomputed(value=point[name], basis=basis) for key, point in points.items() for name in _POINT
    }
    recalls = [report["recall_at_precision"][label.value]["recall"] for label in LABELS]
    return found | {key: Recomputed(value=value, basis=basis) for key, value in _mean_recalls(recalls).items()}


def with_intervals(values: Values, intervals: Mapping[str, tuple[float, float]]) -> Values:
    """Add the intervals of :func:`point_intervals` to values of the same keys."""
    return {
        key: one
        if key not in intervals
        else Recomputed(value=one.value, low=intervals[key][0], high=intervals[key][1], basis=one.basis)
        for key, one in values.items()
    }


def point_intervals(
    probabilities: Floats, labels: Floats, groups: Sequence[Hashable] | None = None, *, rounds: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return 95% percentile bootstrap intervals of the points of Tables IV and V; each round chooses its thresholds.

    The precision of a point has none: it is what the point is chosen for.

    Args:
        probabilities: (images, 6) in label order.
        labels: (images, 6) of 0, 1 or NaN; images whose label is unknown are excluded for that label.
        groups: the patient of each image; None resamples single images, which makes the intervals too narrow.
        rounds: of the bootstrap; a round in which a precision is not reached is left out of that point.
        seed: of the bootstrap.
    """
    ranked = [_Ranked.of(probabilities[:, k], labels[:, k]) for k in range(len(LABELS))]
    names = np.arange(len(labels)) if groups is None else np.unique(list(map(str, groups)), return_inverse=True)[1]
    count = int(names.max()) + 1
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(rounds):
        weights = np.bincount(random.integers(count, size=count), minlength=count)[names]
        for key, value in _points(ranked, weights).items():
            drawn.setdefault(key, []).append(value)
    wanted = {key: values for key, values in drawn.items() if not key.endswith(".precision")}
    return {key: (float(low), float(high)) for key, (low, high) in _ends(wanted)}


def at_printed_thresholds(probabilities: Floats, labels: Floats) -> dict[str, float]:
    """Return accuracies of ``any`` above the thresholds of Table IV as printed, three decimals, by the number's id.

    It shows where the paper computed accuracy at the rounded threshold. Arguments (images, 6) in label order.
    """
    known = np.isfinite(labels[:, 0])
    scores, truth = probabilities[known, 0], labels[known, 0] == 1
    rows = {number.row: number.value for number in PUBLISHED if number.id.endswith(".threshold")}
    accuracies = [number for number in PUBLISHED if number.where == "Table IV" and number.id.endswith(".accuracy")]
    return {number.id: float(((scores > rows[number.row]) == truth).mean()) for number in accuracies}


def from_labels(labels: Iterable[Sequence[int | float | None]], basis: str, *, whole: bool) -> Values:
    """Count images by number of diagnoses, in percent; an image with an unknown label is left out.

    Args:
        labels: six for each image in label order: 0, 1, or None or NaN (unknown).
        basis: what the images are, for the page.
        whole: whether they are the whole dataset, so that its size counts and no share needs an interval.
    """
    rows = np.array([[math.nan if value is None else value for value in six] for six in labels], dtype=np.float64)
    known = rows[np.isfinite(rows).all(axis=1)]
    if not len(known):
        return {}
    types = known[:, 1:].sum(axis=1)
    kinds = {"none": types == 0, "one": types == 1, "several": types > 1}
    found = {f"data.{name}": _share(kind, basis, whole=whole) for name, kind in kinds.items()}
    if whole:
        size = {"data.images": float(len(rows)), "data.lines": float(len(LABELS))}
        size["split.images"] = math.ceil(len(rows) * _experiment()["run"]["test"]) / 1000
        found |= {key: Recomputed(value=value, basis=basis) for key, value in size.items()}
    return found


def from_recipe() -> Values:
    """Read the settings of the shipped experiment ``paper.toml``."""
    paper = _experiment()
    windows = dict(zip(("brain", "subdural", "bone"), paper["preprocessing"]["windows"], strict=True))
    found: dict[str, float] = {f"window.{name}.level": level for name, (level, _) in windows.items()}
    found |= {f"window.{name}.width": width for name, (_, width) in windows.items()}
    found |= {f"loss.weight.{label}": weight for label, weight in zip(LABELS, paper["loss"]["labels"], strict=True)}
    found |= {
        "split.test": 100 * paper["run"]["test"],
        "network.size": paper["preprocessing"]["size"],
        "network.channels": len(windows),
        "network.hidden": paper["network"]["hidden"],
        "network.outputs": len(LABELS),
        "loss.divisor": len(LABELS) if paper["loss"]["divide_by"] == "labels" else sum(paper["loss"]["labels"]),
        "training.learning_rate": paper["optimizer"]["learning_rate"],
        "training.batch_size": paper["run"]["batch_size"],
        "training.epochs": paper["run"]["epochs"],
    }
    return {key: Recomputed(value=float(value), basis="paper.toml") for key, value in found.items()}


def from_timing(timing: Document) -> Values:
    """Read the measured deployment from the document of ``training.deployment_timing``."""
    network, headline = timing["network"], timing["headline"]
    basis = "this machine"
    values = {
        "network.side": network["side"],
        "network.features": network["features"],
        "deployment.time": headline["forward_cpu_ms"],
        "deployment.memory": headline["peak_memory_gb"],
    }
    return {key: Recomputed(value=float(value), basis=basis) for key, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ranked:
    """One label's images from the highest score to the lowest; ``last`` ends each run of equal scores."""

    order: NDArray[np.intp]
    positive: Floats
    scores: Floats
    last: NDArray[np.intp]

    @classmethod
    def of(cls, scores: Floats, labels: Floats) -> "_Ranked":
        known = np.flatnonzero(np.isfinite(labels))
        order = known[np.argsort(-scores[known], kind="stable")]
        last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        return cls(order=order, positive=labels[order], scores=scores[order][last], last=last)

    def cuts(self, weights: NDArray[np.intp]) -> Cuts | None:
        """Return the cuts of a bootstrap sample; None if it has only one class."""
        mine = weights[self.order]
        hits, falses = np.cumsum(mine * self.positive)[self.last], np.cumsum(mine * (1 - self.positive))[self.last]
        if not hits[-1] or not falses[-1]:
            return None
        return Cuts(
            scores=np.append(np.inf, self.scores),
            true_positives=np.append(0.0, hits),
            false_positives=np.append(0.0, falses),
        )


def _points(ranked: Sequence[_Ranked], weights: NDArray[np.intp]) -> dict[str, float]:
    """Every point of Tables IV and V in one bootstrap sample."""
    cuts = [one.cuts(weights) if len(one.order) else None for one in ranked]
    wanted = [(f"tradeoff.{_target(target)}", cuts[0], target) for target in TRADEOFF_PRECISIONS]
    wanted += [(f"at_precision.{label}", one, TABLE_FIVE_PRECISION) for label, one in zip(LABELS, cuts, strict=True)]
    found: dict[str, float] = {}
    for key, one, target in wanted:
        found |= {f"{key}.{name}": value for name, value in _point(one, target).items()}
    recalls = [found.get(f"at_precision.{label}.recall") for label in LABELS]
    return found | _mean_recalls(recalls)


def _point(cuts: Cuts | None, target: float) -> dict[str, float]:
    try:
        row = None if cuts is None else row_at_precision(cuts, target)
    except DataError:  # the sample does not reach this precision
        row = None
    if cuts is None or row is None:
        return {}
    arrays = (cuts.precision, cuts.scores, cuts.sensitivity, cuts.accuracy)
    return {name: float(array[row]) for name, array in zip(_POINT, arrays, strict=True)}


def _mean_recalls(recalls: Sequence[float | None]) -> dict[str, float]:
    """The conclusion's mean and sample standard deviation of six labels, the abstract's mean of five types."""
    known = [recall for recall in recalls if recall is not None]
    if len(known) < len(LABELS):
        return {}
    return {
        "conclusion.recall": float(np.mean(known)),
        "conclusion.spread": float(np.std(known, ddof=1)),
        "abstract.recall": 100 * float(np.mean(known[LABELS.index(Hemorrhage.ANY) + 1 :])),
    }


def _ends(drawn: Mapping[str, Sequence[float]]) -> Iterable[tuple[str, NDArray[np.float64]]]:
    return ((key, np.percentile(values, _TAILS)) for key, values in drawn.items())


def _target(precision: float) -> str:
    """The precision as Table IV's rows are named: ``.50``."""
    return f"{precision:.2f}".removeprefix("0")


def _scaled(score: Mapping[str, Any], factor: float, basis: str) -> Recomputed:
    low, high = score.get("low"), score.get("high")
    return Recomputed(
        value=factor * score["value"],
        low=None if low is None else factor * low,
        high=None if high is None else factor * high,
        basis=basis,
    )


def _share(kind: NDArray[np.bool_], basis: str, *, whole: bool) -> Recomputed:
    """A share in percent; of a sample, with Wilson's interval (1927)."""
    share, n = float(kind.mean()), len(kind)
    if whole:
        return Recomputed(value=100 * share, basis=basis)
    square = _WIDTH**2 / n
    middle = (share + square / 2) / (1 + square)
    half = _WIDTH * math.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return Recomputed(value=100 * share, low=100 * (middle - half), high=100 * (middle + half), basis=basis)


def _experiment() -> dict[str, Any]:
    return tomllib.loads(files("hemoscope").joinpath("experiments", "paper.toml").read_text(encoding="utf-8"))
