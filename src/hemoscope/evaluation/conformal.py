"""Class-conditional conformal quantiles: when the model is unsure about a study.

For a new study that is exchangeable with the calibration studies of its class, the p-value of that class is the share
of them, itself included, that are at least as unlike it (Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a
random world", Mondrian predictors). A class with a p-value of at most alpha is excluded. This holds for each class
alone, whatever the prevalence.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hemoscope.evaluation.metrics import Booleans, Floats, Integers
from hemoscope.evaluation.performance import Method, proportion
from hemoscope.inference.calibration import ConformalSets, UnsurePerformance, UnsureRule

ALPHAS = (0.1, 0.05)
# With the 82 patients of CT-ICH, .05 leaves more than a third of the studies unsure, and its low quantile is the
# lowest of 36 scores: one patient. The page on the study rule compares both.
DEFAULT_ALPHA = 0.1
LOW, UNSURE, HIGH = range(3)
_EXACT = 1e-9  # keeps alpha * (n + 1) from falling below a whole number by rounding


def fit_sets(probabilities: Floats, truth: Floats, alpha: float) -> ConformalSets | None:
    """Choose the quantiles of one alpha; None if a class has too few studies to be excluded ever.

    As every threshold, a quantile lies halfway to the next score, here on the side that excludes less.

    Args:
        probabilities: (n,) of ``any`` by study.
        truth: (n,) 0, 1 or NaN (unknown: ignored).
        alpha: the share of each class that may be excluded wrongly.
    """
    positive, negative = np.sort(probabilities[truth == 1.0]), np.sort(probabilities[truth == 0.0])[::-1]
    below, above = (int(alpha * (len(one) + 1) + _EXACT) for one in (positive, negative))
    if below < 1 or above < 1:
        return None
    known = probabilities[np.isfinite(truth)]
    lowest, highest = positive[below - 1], negative[above - 1]
    low = (lowest + known[known < lowest].max(initial=0.0)) / 2
    high = (highest + known[known > highest].min(initial=1.0)) / 2
    if not 0.0 < low < 1.0 or not 0.0 < high < 1.0:
        return None
    # If the classes hardly overlap, both are excluded from high to low: such a study is called high.
    return ConformalSets(alpha=alpha, low=float(min(low, high)), high=float(high))


def fit_unsure(probabilities: Floats, truth: Floats) -> UnsureRule | None:
    """Choose the quantiles of every alpha; None if those of the default cannot be chosen. Arguments as ``fit_sets``."""
    found = [fit_sets(probabilities, truth, alpha) for alpha in ALPHAS]
    sets = tuple(one for one in found if one is not None)
    return UnsureRule(alpha=DEFAULT_ALPHA, sets=sets) if any(one.alpha == DEFAULT_ALPHA for one in sets) else None


def measured_rule(
    rule: UnsureRule, found: Sequence[Integers], truth: Floats, groups: Sequence[str] | Integers, method: Method
) -> UnsureRule:
    """Return the rule with its performance on held-out studies.

    Args:
        rule: that was fitted.
        found: the set of each study (n,) by settings that were not fitted on it, for each of ``rule.sets``.
        truth: (n,) 0, 1 or NaN (unknown: ignored).
        groups: the patient of each study.
        method: how the studies were held out.
    """
    known, patients = np.isfinite(truth), np.asarray(groups)
    sets = (
        replace(one, performance=_performance(of[known], truth[known] == 1.0, patients[known], method))
        for one, of in zip(rule.sets, found, strict=True)
    )
    return replace(rule, sets=tuple(sets))


def _performance(found: Integers, positive: Booleans, patients: Integers, method: Method) -> UnsurePerformance | None:
    low, high = found == LOW, found == HIGH
    unsure = proportion(found == UNSURE, patients)
    not_low = proportion(~low[positive], patients[positive])
    not_high = proportion(~high[~positive], patients[~positive])
    if unsure is None or not_low is None or not_high is None:
        return None
    return UnsurePerformance(
        method=method,
        unsure=unsure,
        not_low=not_low,
        not_high=not_high,
        low_without=proportion(~positive[low], patients[low]),
        high_with=proportion(positive[high], patients[high]),
    )
