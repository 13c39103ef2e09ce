"""Local tuning: calibration and operating points fitted on validation scores, with cross-fitted performance.

Platt and temperature scaling start from the card's calibration and are composed with it; Platt scaling is regularised
toward it, which matters with few images. An isotonic curve replaces the card's calibration: it is fitted to the raw
scores, and needs many positives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.bootstrap import DEFAULT_ROUNDS, interval, resamples, sum_by_group
from hemoscope.evaluation.calibrate import DEFAULT_FOLDS, DEFAULT_METHOD, fit_of, group_folds
from hemoscope.evaluation.conformal import fit_sets
from hemoscope.evaluation.metrics import Booleans, Floats, Integers, contributions, tally
from hemoscope.evaluation.performance import held_out_performance
from hemoscope.evaluation.threshold_rules import NOT_BELOW_ANY, ThresholdRule, parse_rule
from hemoscope.evaluation.thresholds import stated
from hemoscope.inference.calibration import (
    AnyCalibration,
    Calibration,
    IsotonicCalibration,
    OperatingPoint,
    UnsureRule,
)
from hemoscope.inference.card import to_plain
from hemoscope.inference.probabilities import calibrated, consistent
from hemoscope.labels import LABELS, Hemorrhage, PerLabel

# With fewer groups with, or without, a label, the label keeps its settings.
FEWEST_GROUPS = 2
LOSSES = ("log_loss", "brier")
_NEAREST = 1e-13  # keeps a threshold inside (0, 1) in float64
_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValidationScores:
    """Raw logits (n, 6), truth (n, 6; 0, 1 or NaN) and each row's group number (n,), from 0."""

    logits: Floats
    truth: Floats
    groups: Integers

    def rows(self, chosen: Booleans) -> "ValidationScores":
        """Return some of the rows; groups keep their numbers."""
        return ValidationScores(logits=self.logits[chosen], truth=self.truth[chosen], groups=self.groups[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelSettings:
    """Settings of one level (slice or study) of a card, and which labels are established.

    ``urgent`` is the second point on the study's ``any``, and ``unsure`` its conformal rule; None for slices.
    """

    calibration: PerLabel[AnyCalibration]
    points: PerLabel[OperatingPoint]
    established: PerLabel[bool]
    urgent: OperatingPoint | None = None
    unsure: UnsureRule | None = None

    def probabilities(self, logits: Floats) -> Floats:
        """Return the probabilities that a user sees from raw logits (n, 6)."""
        return consistent(calibrated(logits, self.calibration), self.established)

    def decisions(self, probabilities: Floats) -> Booleans:
        """Return decisions (n, 6): at or above each label's threshold."""
        return probabilities >= np.array([point.threshold for point in self.points.values])

    def urgent_decisions(self, probabilities: Floats) -> Booleans:
        """Return which studies (n,) reach the urgent point; none if there is no such point."""
        lowest = np.inf if self.urgent is None else self.urgent.threshold
        return np.asarray(probabilities[:, 0] >= lowest)

    def conformal_sets(self, probabilities: Floats) -> tuple[Integers, ...]:
        """Return the set of each study (n,) for each alpha of the rule; nothing without a rule."""
        return () if self.unsure is None else tuple(one.of(probabilities[:, 0]) for one in self.unsure.sets)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedLevel:
    """New settings of a level, and for each label why its calibration or rule could not be fitted (or None).

    ``converted`` are the alphas whose quantiles were only converted to the new calibration: there were too few studies.
    """

    settings: LevelSettings
    kept: PerLabel[str | None]
    converted: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossFitted:
    """Results of tuning on held-out groups: probabilities and decisions, (n, 6) each, and urgent decisions (n,).

    ``logits`` (n, 6) are the scores that were calibrated, and ``sets`` the conformal sets (n,) of each alpha.
    """

    probabilities: Floats
    decisions: Booleans
    urgent: Booleans
    logits: Floats
    sets: tuple[Integers, ...] = ()


def tune_level(
    scores: ValidationScores, before: LevelSettings, rule: ThresholdRule | None = None, *, method: str = DEFAULT_METHOD
) -> TunedLevel:
    """Fit one level's calibration, then choose its operating points on the new probabilities.

    Args:
        scores: of the bundle, and the truth.
        before: the card's settings of this level.
        rule: for every label; None applies the rule of each point in the card. The urgent point keeps its own.
        method: of calibration: platt, isotonic or temperature.

    Returns:
        The new settings. A label that cannot be fitted keeps its calibration; a point that cannot be chosen is
        converted to the new calibration, so that the same scores are positive. ``kept`` says why.
    """
    fits = PerLabel.build(lambda label: _refit(scores, label, before.calibration[label], method))
    tuned = replace(before, calibration=PerLabel.of([found for found, _ in fits.values]))
    probabilities = tuned.probabilities(scores.logits)

    def point(label: Hemorrhage) -> tuple[OperatingPoint, str | None]:
        change = before.calibration[label], tuned.calibration[label]
        return choose_point(scores, probabilities, label, before.points[label], change, rule)

    points = PerLabel.build(point)
    reasons = [
        "; ".join(dict.fromkeys(filter(None, (fits[label][1], points[label][1])))) or None  # no repetition
        for label in LABELS
    ]
    settings = replace(tuned, points=PerLabel.of([found for found, _ in points.values]))
    if before.urgent is not None:
        change = before.calibration[Hemorrhage.ANY], tuned.calibration[Hemorrhage.ANY]
        urgent, _ = choose_point(scores, probabilities, Hemorrhage.ANY, before.urgent, change, None)
        lowest = settings.points[Hemorrhage.ANY].threshold
        settings = replace(settings, urgent=not_below(urgent, lowest, probabilities[:, 0], scores.truth[:, 0]))
    converted: tuple[float, ...] = ()
    if before.unsure is not None:
        unsure, converted = _tuned_unsure(scores, probabilities, before.unsure, before, tuned)
        settings = replace(settings, unsure=unsure)
    return TunedLevel(settings=settings, kept=PerLabel.of(reasons), converted=converted)


def not_below(point: OperatingPoint, lowest: float, probabilities: Floats, truth: Floats) -> OperatingPoint:
    """Return the urgent point, at least at the threshold of ``any``: an urgent study must have a finding.

    Args:
        point: as its own rule chose it.
        lowest: the study's threshold of ``any``.
        probabilities: (n,) of ``any``.
        truth: (n,) of ``any``, NaN if unknown.
    """
    if point.threshold >= lowest:
        return point
    known = np.isfinite(truth)
    return stated(probabilities[known], truth[known], lowest, rule=f"{point.rule}{NOT_BELOW_ANY}")


def _tuned_unsure(
    scores: ValidationScores, probabilities: Floats, rule: UnsureRule, before: LevelSettings, after: LevelSettings
) -> tuple[UnsureRule, tuple[float, ...]]:
    """Choose the quantiles of each alpha again; if there are too few studies, convert them to the new calibration.

    Return the alphas that were only converted, too.
    """
    change = before.calibration[Hemorrhage.ANY], after.calibration[Hemorrhage.ANY]

    found = [fit_sets(probabilities[:, 0], scores.truth[:, 0], old.alpha) for old in rule.sets]
    moved = (replace(old, low=_moved_to(old.low, *change), high=_moved_to(old.high, *change)) for old in rule.sets)
    sets = tuple(new or other for new, other in zip(found, moved, strict=True))
    converted = (old.alpha for old, new in zip(rule.sets, found, strict=True) if new is None)
    return replace(rule, sets=sets), tuple(converted)


def _refit(
    scores: ValidationScores, label: Hemorrhage, old: AnyCalibration, method: str
) -> tuple[AnyCalibration, str | None]:
    """Fit one label; return the old calibration and the reason if there are too few images."""
    k = LABELS.index(label)
    known = np.isfinite(scores.truth[:, k])
    truth, groups = scores.truth[known, k] == 1.0, scores.groups[known]
    for name, members in (("with", groups[truth]), ("without", groups[~truth])):
        count = len(np.unique(members))
        if count < FEWEST_GROUPS:
            return old, f"{count} groups {name} it; a fit needs {FEWEST_GROUPS}"
    logits = scores.logits[known, k]
    if method == "isotonic" or isinstance(old, IsotonicCalibration):
        return fit_of(method)(logits, truth), None
    new = fit_of(method)(old.scale * logits + old.bias, truth)
    if isinstance(new, IsotonicCalibration):
        return new, None
    return Calibration(scale=new.scale * old.scale, bias=new.scale * old.bias + new.bias), None


def choose_point(
    scores: ValidationScores,
    probabilities: Floats,
    label: Hemorrhage,
    old: OperatingPoint,
    change: tuple[AnyCalibration, AnyCalibration],
    rule: ThresholdRule | None,
) -> tuple[OperatingPoint, str | None]:
    """Choose one label's point by ``rule`` or the card's own rule; if that fails, convert the threshold.

    Args:
        scores: the truth.
        probabilities: (n, 6) under the new calibration.
        label: of the point.
        old: the card's point.
        change: the label's calibration before and after.
        rule: None uses the rule of ``old``.
    """
    k = LABELS.index(label)
    known = np.isfinite(scores.truth[:, k])
    try:
        return (rule or parse_rule(old.rule)).point(probabilities[known, k], scores.truth[known, k]), None
    except DataError as error:
        return _moved(old, *change), str(error)


def _moved(point: OperatingPoint, before: AnyCalibration, after: AnyCalibration) -> OperatingPoint:
    """Convert a threshold to another calibration, so that the same scores are positive; its performance is unchanged.

    On a flat part of an isotonic curve, all its scores are positive. From a curve it cannot be converted, and stays.
    """
    return replace(point, threshold=_moved_to(point.threshold, before, after))


def _moved_to(threshold: float, before: AnyCalibration, after: AnyCalibration) -> float:
    if after == before or isinstance(before, IsotonicCalibration):
        return threshold
    raw = (np.log(threshold) - np.log1p(-threshold) - before.bias) / before.scale
    moved = float(after.apply(np.asarray(raw)))
    return min(max(moved, _NEAREST), 1.0 - _NEAREST)


def cross_fit(
    scores: ValidationScores,
    before: LevelSettings,
    rule: ThresholdRule | None = None,
    *,
    method: str = DEFAULT_METHOD,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
    logits_by: Callable[[Booleans], Floats] | None = None,
) -> CrossFitted:
    """Tune calibration and points on all folds but one and apply them to that fold, for each fold.

    Groups are not divided; folds are stratified by the rarest label that can be fitted.

    Args:
        scores: raw scores, and the truth.
        before: the settings to start from.
        rule: as for ``tune_level``.
        method: of calibration.
        folds: number of folds.
        seed: of the assignment of groups to folds.
        logits_by: returns the logits (n, 6) to take for a fold, chosen on the rows (n,) of the other folds; None takes
            those of ``scores``.

    Raises:
        DataError: too few groups, or no label with two positive groups.
    """
    part = group_folds(_rarest(scores), scores.groups, folds, seed=seed)
    probabilities, logits = np.empty(scores.logits.shape), np.empty(scores.logits.shape)
    decisions = np.empty(scores.logits.shape, dtype=bool)
    urgent = np.empty(len(scores.logits), dtype=bool)
    sets = tuple(np.empty(len(scores.logits), dtype=np.intp) for _ in before.unsure.sets) if before.unsure else ()
    for fold in range(folds):
        held_out = part == fold
        taken = scores if logits_by is None else replace(scores, logits=logits_by(~held_out))
        settings = tune_level(taken.rows(~held_out), before, rule, method=method).settings
        logits[held_out] = taken.logits[held_out]
        probabilities[held_out] = settings.probabilities(logits[held_out])
        decisions[held_out] = settings.decisions(probabilities[held_out])
        urgent[held_out] = settings.urgent_decisions(probabilities[held_out])
        for kept, found in zip(sets, settings.conformal_sets(probabilities[held_out]), strict=True):
            kept[held_out] = found
    return CrossFitted(probabilities=probabilities, decisions=decisions, urgent=urgent, logits=logits, sets=sets)


def _rarest(scores: ValidationScores) -> Booleans:
    """Return the images positive for the rarest label that at least two groups have, else for ``any``."""
    positive = scores.truth == 1.0
    counts = [len(np.unique(scores.groups[column])) for column in positive.T]
    enough = [(count, k) for k, count in enumerate(counts) if count >= FEWEST_GROUPS]
    return np.asarray(positive[:, min(enough)[1] if enough else 0])


def level_scores(
    probabilities: Floats, decisions: Booleans, scores: ValidationScores, *, rounds: int = DEFAULT_ROUNDS, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return losses, calibration error and performance of the thresholds by label, with group-level intervals.

    Losses have a bootstrap interval, proportions their closed form; the calibration error has none.

    Args:
        probabilities: (n, 6) as a user sees them.
        decisions: (n, 6) at the operating points.
        scores: the truth and the groups.
        rounds: bootstrap rounds.
        seed: of the bootstrap.

    Returns:
        ``{label: {metric: {"value", "low", "high"} or None if undefined}}``; ``low`` and ``high`` of the calibration
        error are None, and proportions have the counts of :class:`Proportion` too.
    """
    known = np.isfinite(scores.truth)
    n_groups = int(scores.groups.max()) + 1
    sums = [
        sum_by_group(
            contributions(probabilities[rows, k], scores.truth[rows, k] == 1.0, decisions[rows, k]),
            scores.groups[rows],
            n_groups,
        )
        for k, rows in enumerate(known.T)
    ]
    drawn: list[Mapping[str, list[Floats]]] = [{name: [] for name in LOSSES} for _ in LABELS]
    for weights in resamples(n_groups, rounds, seed=seed, chunk=max(1, _CHUNK_CELLS // n_groups)):
        for k, columns in enumerate(sums):
            found = tally(weights @ columns)
            for name in LOSSES:
                drawn[k][name].append(found[name])

    def of(k: int) -> dict[str, Any]:
        values = {name: float(column[0]) for name, column in tally(sums[k].sum(axis=0)[None]).items()}
        error = values["ece"] if np.isfinite(values["ece"]) else None
        return {
            **{name: _interval(values[name], np.concatenate(drawn[k][name])) for name in LOSSES},
            "ece": None if error is None else {"value": error, "low": None, "high": None},
            **_shares(decisions[:, k], scores.truth[:, k], scores.groups),
        }

    return {label.value: of(k) for k, label in enumerate(LABELS)}


def _interval(value: float, rounds: Floats) -> dict[str, float] | None:
    found = interval(value, rounds)
    return None if found is None else found.as_dict()


def _shares(decisions: Booleans, truth: Floats, groups: Integers) -> dict[str, Any]:
    """Return recall, specificity and precision of one label's decisions (n,); None with one class only."""
    found = held_out_performance(decisions, truth, groups, "cross_fitted")
    if found is None:
        return {"recall": None, "specificity": None, "precision": None}
    shares = {"recall": found.sensitivity, "specificity": found.specificity, "precision": found.precision}
    return {name: to_plain(one) for name, one in shares.items()}
