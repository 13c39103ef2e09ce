"""Rules that choose an operating point, read from a card or given by a user."""

import re
from dataclasses import dataclass

from numpy.typing import ArrayLike

from hemoscope.errors import ConfigError, DataError
from hemoscope.evaluation.thresholds import at_precision, at_sensitivity, at_specificity, best_f_beta, youden
from hemoscope.inference.calibration import OperatingPoint

RULES = ("sensitivity", "specificity", "precision", "youden", "f-beta")
_AT = {"sensitivity": at_sensitivity, "specificity": at_specificity, "precision": at_precision}
# The rule texts that the functions of ``thresholds`` write into a point, and so into a card.
_WRITTEN = re.compile(r"(sensitivity|specificity|precision|f-beta|youden)(?:(?: >=)? ([0-9.eE+-]+))?")
# Follows the rule of an urgent point that was raised to the threshold of any.
NOT_BELOW_ANY = ", not below any"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRule:
    """A rule: a target share (above 0, at most 1), Youden's index (no target), or F-beta (beta above 0)."""

    kind: str
    target: float | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown rule and a target that does not fit it."""
        if self.kind not in RULES:
            msg = f"unknown rule {self.kind!r}; choose one of {', '.join(RULES)}"
            raise ConfigError(msg)
        if self.kind == "youden":
            fits, expected = self.target is None, "no target: it maximises sensitivity + specificity"
        elif self.kind == "f-beta":
            fits, expected = self.target is not None and 0 < self.target < 100, "the target beta, as 1 for F1"
        else:
            fits, expected = self.target is not None and 0 < self.target <= 1, "a target above 0 and not above 1"
        if not fits:
            msg = f"the rule {self.kind} needs {expected}; got {self.target}"
            raise ConfigError(msg)

    def point(self, probabilities: ArrayLike, labels: ArrayLike) -> OperatingPoint:
        """Choose a point from (images,) probabilities and labels. Raises DataError if there is no threshold."""
        if self.target is None:
            return youden(probabilities, labels)
        if self.kind == "f-beta":
            return best_f_beta(probabilities, labels, self.target)
        return _AT[self.kind](probabilities, labels, self.target)


def parse_rule(text: str) -> ThresholdRule:
    """Parse the rule of a card's operating point; the limit of an urgent point is no part of the rule.

    Raises:
        DataError: the text is not a rule, such as that of a manually set threshold.
    """
    found = _WRITTEN.fullmatch(text.removesuffix(NOT_BELOW_ANY))
    if found is None:
        msg = f"the card's rule {text!r} cannot be applied again. Give --rule"
        raise DataError(msg)
    try:
        return ThresholdRule(kind=found[1], target=None if found[2] is None else float(found[2]))
    except (ConfigError, ValueError) as error:
        msg = f"the card's rule {text!r} cannot be applied again. Give --rule"
        raise DataError(msg) from error
