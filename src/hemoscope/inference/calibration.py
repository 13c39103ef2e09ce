"""Calibration, study rule and operating points as value types; ``evaluation`` fits them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemoscope.labels import PerLabel


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert logits of any shape to probabilities, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Platt scaling of one label: probability = sigmoid(scale * logit + bias); scale > 0 keeps the order.

    Temperature scaling has a bias of 0, and ``scale`` is one over the temperature.
    """

    scale: float
    bias: float

    def __post_init__(self) -> None:
        """Reject a scale that would not preserve the order of scores."""
        if not (self.scale > 0 and np.isfinite(self.scale) and np.isfinite(self.bias)):
            msg = f"calibration needs a positive finite scale and a finite bias, got {self.scale} and {self.bias}"
            raise ValueError(msg)

    def apply(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert logits of any shape to calibrated probabilities."""
        return sigmoid(self.scale * np.asarray(logits, dtype=np.float64) + self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class IsotonicCalibration:
    """A rising curve from logit to probability, linear between its points and level outside them."""

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        """Reject points that do not increase, or probabilities outside [0, 1]."""
        x, y = np.asarray(self.logits), np.asarray(self.probabilities)
        rising = x.size > 0 and x.shape == y.shape and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
        if not (rising and np.isfinite(x).all() and y[0] >= 0.0 and y[-1] <= 1.0):
            msg = f"an isotonic calibration needs rising logits and probabilities in 0 to 1, got {x.size} and {y.size}"
            raise ValueError(msg)

    def apply(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert logits of any shape to calibrated probabilities."""
        return np.interp(np.asarray(logits, dtype=np.float64), self.logits, self.probabilities)


# The calibrations of a card, distinguished by their keys.
AnyCalibration = Calibration | IsotonicCalibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share with its 95% interval and the counts behind it: ``hits`` of ``rows`` (slices or studies)."""

    value: float
    low: float
    high: float
    hits: int
    rows: int
    patients: int

    def __post_init__(self) -> None:
        """Reject counts that no rows can have."""
        if not (0 <= self.hits <= self.rows and 1 <= self.patients <= self.rows):
            found = f"{self.hits} of {self.rows} rows of {self.patients} patients"
            msg = f"a proportion counts some of its rows, and at least one row of each patient, got {found}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointPerformance:
    """Performance of an operating point on rows that neither its threshold nor its calibration was fitted on.

    Attributes:
        method: ``cross_fitted``: each patient's rows are decided by settings fitted on the other folds of patients, so
            it describes the rule; ``test_set``: this threshold on a test set.
        sensitivity: true positives of positives; None without positives.
        specificity: true negatives of negatives; None without negatives.
        precision: true positives of positive decisions, at the prevalence of these rows; None without such a decision.
    """

    method: Literal["cross_fitted", "test_set"]
    sensitivity: Proportion | None
    specificity: Proportion | None
    precision: Proportion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold on a calibrated probability, and the rule that chose it; at or above it is positive.

    ``sensitivity`` and ``specificity`` are those on the rows that the threshold was chosen on (in sample), so they are
    optimistic. ``performance`` is None if it was not measured, as in cards of earlier versions.
    """

    threshold: float
    rule: str
    sensitivity: float | None = None
    specificity: float | None = None
    performance: PointPerformance | None = None

    def __post_init__(self) -> None:
        """Reject a threshold outside (0, 1)."""
        if not 0.0 < self.threshold < 1.0:
            msg = f"a threshold must lie between 0 and 1, got {self.threshold}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """One stratum of slices, of a ``kind`` such as age.

    ``found`` are the flagged ones of its slices with hemorrhage, ``false_alarms`` those of the others; None without.
    """

    kind: str
    name: str
    found: Proportion | None
    false_alarms: Proportion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StrataTable:
    """Strata of the slices of one dataset, flagged where ``any`` has this specificity over all of them."""

    name: str
    specificity: float
    strata: tuple[Stratum, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsurePerformance:
    """What a pair of quantiles does on studies that neither they nor their calibration were fitted on.

    Attributes:
        method: as in ``PointPerformance``.
        unsure: studies left unsure, of all.
        not_low: of those with hemorrhage, those not in the low set; at least 1 - alpha is meant.
        not_high: of those without hemorrhage, those not in the high set; at least 1 - alpha is meant.
        low_without: of those in the low set, those without hemorrhage; None if there are none.
        high_with: of those in the high set, those with hemorrhage; None if there are none.
    """

    method: Literal["cross_fitted", "test_set"]
    unsure: Proportion
    not_low: Proportion
    not_high: Proportion
    low_without: Proportion | None
    high_with: Proportion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalSets:
    """Two class-conditional conformal quantiles of the study's probability of ``any``.

    Below ``low``, hemorrhage is excluded: at most a share ``alpha`` of the studies with hemorrhage lies there. At or
    above ``high``, no hemorrhage is excluded: at most ``alpha`` of the studies without lies there. Between them,
    neither is: the model is unsure.
    """

    alpha: float
    low: float
    high: float
    performance: UnsurePerformance | None = None

    def __post_init__(self) -> None:
        """Reject quantiles that are no probabilities or in the wrong order."""
        if not (0.0 < self.alpha < 0.5 and 0.0 < self.low <= self.high < 1.0):
            found = f"{self.alpha}, {self.low} and {self.high}"
            msg = f"conformal sets need an alpha from 0 to 0.5 and quantiles in rising order in (0, 1), got {found}"
            raise ValueError(msg)

    def of(self, probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the set of each probability (n,): 0 low, 1 unsure, 2 high."""
        return (probabilities >= self.low).astype(np.intp) + (probabilities >= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsureRule:
    """When a study is called unsure: by the sets of ``alpha``, which is one of those in ``sets``."""

    alpha: float
    sets: tuple[ConformalSets, ...]

    def __post_init__(self) -> None:
        """Reject a rule without the sets that it uses."""
        if [one.alpha for one in self.sets].count(self.alpha) != 1:
            msg = f"the sets of alpha {self.alpha} must be there once"
            raise ValueError(msg)

    @property
    def used(self) -> ConformalSets:
        """The sets that decide."""
        return next(one for one in self.sets if one.alpha == self.alpha)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRule:
    """The study score of one label: the mean of its highest slice logits over a given extent.

    Thin slices are first averaged within bins of ``nominal_spacing_mm``, so that the score does not depend on slice
    thickness; then the highest ``count`` bins, which together span ``extent_mm``, are averaged.
    """

    kind: Literal["top_mean"] = "top_mean"
    extent_mm: float = 15.0
    nominal_spacing_mm: float = 5.0

    def __post_init__(self) -> None:
        """Reject an unknown kind, and lengths that are impossible for a head."""
        if self.kind != "top_mean":
            msg = f"the only study rule is top_mean, got {self.kind}"
            raise ValueError(msg)
        if not (0 < self.nominal_spacing_mm <= 50 and 0 < self.extent_mm <= 300):
            found = f"{self.nominal_spacing_mm} and {self.extent_mm}"
            msg = f"a study rule needs a nominal spacing up to 50 mm and an extent up to 300 mm, got {found}"
            raise ValueError(msg)

    @property
    def count(self) -> int:
        """Number of highest bins that are averaged."""
        return max(1, round(self.extent_mm / self.nominal_spacing_mm))


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinSeriesRule:
    """Which slices of a thin series are scored (``thin_series``); the scores of the others are interpolated.

    Attributes:
        step_mm: the largest distance between two slices that are scored.
        tolerance: gaps are halved while the own probability of a slice in them, by the card's calibration of slices,
            may be wrong by more than that. Of probabilities that a slice rule smooths and calibrates, it is no bound.
    """

    step_mm: float = 2.5
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        """Reject a step that could miss a lesion, and a tolerance that is no difference of probabilities."""
        if not (0 < self.step_mm <= 5 and 0 < self.tolerance <= 1):
            found = f"{self.step_mm} and {self.tolerance}"
            msg = f"a thin-series rule needs a step up to 5 mm and a tolerance above 0, at most 1, got {found}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRule:
    """Smoothing of slice logits along the head: a mean weighted by a Gaussian of the distance in mm.

    Attributes:
        kind: ``gaussian``.
        width_mm: standard deviation of the Gaussian; None smooths nothing.
        calibration: of smoothed logits; None takes the card's calibration of slices for them, too. Slices that are not
            mixed with others, and heat maps, always have the card's.
    """

    kind: Literal["gaussian"] = "gaussian"
    width_mm: float | None = None
    calibration: PerLabel[AnyCalibration] | None = None

    def __post_init__(self) -> None:
        """Reject an unknown kind, and widths that are impossible for a head."""
        if self.kind != "gaussian":
            msg = f"the only slice rule is gaussian, got {self.kind}"
            raise ValueError(msg)
        if self.width_mm is not None and not 0 < self.width_mm <= 50:
            msg = f"a slice rule needs a width above 0 and up to 50 mm, got {self.width_mm}"
            raise ValueError(msg)
