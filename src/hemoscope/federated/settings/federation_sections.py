"""The tables of a federation file, each checked when it is made."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hemoscope.errors import ConfigError

Strategy = Literal["fedavg", "fedprox", "fedadam", "trimmed-mean", "median"]
BatchNorm = Literal["shared", "local", "fixed"]
Weighting = Literal["slices", "positives", "uniform"]
Folds = Literal["together", "each"]

ROBUST: tuple[Strategy, ...] = ("trimmed-mean", "median")


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """How the server makes one model of the sites' models.

    Attributes:
        name: ``fedavg`` (McMahan et al. 2017), ``fedprox`` (Li et al. 2020), ``fedadam`` (Reddi et al. 2021),
            ``trimmed-mean`` and ``median`` of each coordinate (Yin et al. 2018), which bear a poisoned site.
        proximal: mu of ``fedprox``: the weight of half the squared distance to the round's first weights.
        server_learning_rate: of ``fedadam``.
        beta_1: decay of ``fedadam``'s first moment.
        beta_2: decay of its second moment.
        tau: what ``fedadam`` adds to the root of the second moment.
        trim: share of the sites that ``trimmed-mean`` leaves out at each end of each coordinate.
    """

    name: Strategy = "fedavg"
    proximal: float = 0.01
    server_learning_rate: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3
    trim: float = 0.25

    def __post_init__(self) -> None:
        """Reject numbers that no strategy could use."""
        check_word("strategy.name", self.name, Strategy)
        check_range("strategy.proximal", self.proximal, 0, 1000)
        check_above("strategy.server_learning_rate", self.server_learning_rate, 0)
        check_above("strategy.tau", self.tau, 0)
        for name in ("beta_1", "beta_2"):
            check_below(f"strategy.{name}", getattr(self, name), 0, 1)
        check_below("strategy.trim", self.trim, 0, 0.5)

    @property
    def robust(self) -> bool:
        """Whether a few sites that send anything at all cannot carry the mean away."""
        return self.name in ROBUST


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureAggregationConfig:
    """Masks that hide each site's update from the server, which learns the sum alone (SecAgg+, Bell et al. 2020).

    Attributes:
        enabled: whether updates are masked.
        shares: that a site's key is split into, one for each neighbour and itself; odd.
        threshold: shares that bring the key back, so that a site may leave in mid-round.
    """

    enabled: bool = False
    shares: int = 3
    threshold: int = 2

    def __post_init__(self) -> None:
        """Reject numbers of shares that protect nothing."""
        if self.shares < 3 or self.shares % 2 == 0:
            msg = f"secure_aggregation.shares must be odd and at least 3, got {self.shares}"
            raise ConfigError(msg)
        # With half the shares or fewer, a server could claim to one half of the neighbours that a site left and the
        # other half that it stayed, and take off both of its masks.
        if not self.shares < 2 * self.threshold < 2 * self.shares:
            msg = (
                f"secure_aggregation.threshold must be more than half of the {self.shares} shares and fewer than all, "
                f"got {self.threshold}"
            )
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """Noise on the mean of clipped updates: differential privacy whose protected unit is a whole site.

    Attributes:
        noise_multiplier: standard deviation of the noise on the sum, in units of ``clipping_norm``; 0 is off.
        clipping_norm: longest update of a site (L2 over all trained parameters); longer ones are shortened there.
        delta: of the (epsilon, delta) that is reported.
        max_epsilon: epsilon at which training ends; none is no limit.
    """

    noise_multiplier: float = 0.0
    clipping_norm: float = 1.0
    delta: float = 1e-5
    max_epsilon: float | None = None

    def __post_init__(self) -> None:
        """Reject numbers that mean nothing."""
        check_range("privacy.noise_multiplier", self.noise_multiplier, 0, 1e6)
        check_above("privacy.clipping_norm", self.clipping_norm, 0)
        if not 0 < self.delta < 1:
            msg = f"privacy.delta must lie between 0 and 1, got {self.delta}"
            raise ConfigError(msg)
        if self.max_epsilon is not None:
            check_above("privacy.max_epsilon", self.max_epsilon, 0)

    @property
    def enabled(self) -> bool:
        """Whether noise is added."""
        return self.noise_multiplier > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """How large an update may be.

    Attributes:
        max_norm: L2 norm of a site's update over all trained parameters above which it is left out of the round; with
            secure aggregation, where the server cannot see it, the site shortens its update to this.
        max_weight: highest weight that a site may claim: slices or positives.
    """

    max_norm: float = 100.0
    max_weight: int = 100_000

    def __post_init__(self) -> None:
        """Reject limits that let nothing through."""
        check_above("limits.max_norm", self.max_norm, 0)
        check_range("limits.max_weight", self.max_weight, 1, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramConfig:
    """How sites report their scores: counts in fixed cells, never rows.

    Attributes:
        least_cell: fewest slices or patients of a class in a cell that is sent; smaller cells are joined.
        every: rounds between evaluations; 0 evaluates after the last alone.
        folds: of a run on folds, ``together`` reports nothing of a fold and once, after the final network, of all
            held-out patients of a site: small sites can report more so, and no fold can be had by subtraction. ``each``
            tells of every fold, which shows its run, and lets the calibration error be cross-fitted.
    """

    least_cell: int = 5
    every: int = 0
    folds: Folds = "together"

    def __post_init__(self) -> None:
        """Reject cells of nobody."""
        check_range("histograms.least_cell", self.least_cell, 1, 10_000)
        check_range("histograms.every", self.every, 0, 10_000)
        check_word("histograms.folds", self.folds, Folds)


def check_word(name: str, value: str, kind: Any) -> None:
    """Raise ConfigError unless a word is one of a Literal type's."""
    if value not in get_args(kind):
        msg = f"{name} must be one of {', '.join(get_args(kind))}, got {value}"
        raise ConfigError(msg)


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise ConfigError unless ``least <= value <= most``."""
    if not least <= value <= most:  # not a number is in no range
        msg = f"{name} must be {least:g} to {most:g}, got {value}"
        raise ConfigError(msg)


def check_below(name: str, value: float, least: float, limit: float) -> None:
    """Raise ConfigError unless ``least <= value < limit``."""
    if not least <= value < limit:
        msg = f"{name} must be at least {least:g} and below {limit:g}, got {value}"
        raise ConfigError(msg)


def check_above(name: str, value: float, limit: float) -> None:
    """Raise ConfigError unless the value is finite and above the limit."""
    if not limit < value < math.inf:
        msg = f"{name} must be a number above {limit:g}, got {value}"
        raise ConfigError(msg)
