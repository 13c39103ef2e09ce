"""Which of strategy, secure aggregation, privacy, weighting and experiment combine: one table, checked at start.

Two defences that cancel each other look like two defences. So what excludes each other is refused where a federation
is made, at the server and at every site, and the documentation shows this very table.
"""

# ruff: noqa: D102  the protocol's properties are keys of a federation file, documented there

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hemoscope.errors import ConfigError
from hemoscope.federated.settings.federation_sections import (
    BatchNorm,
    PrivacyConfig,
    SecureAggregationConfig,
    StrategyConfig,
    Weighting,
)
from hemoscope.training.experiment import Experiment


class FederationSettings(Protocol):
    """What the requirements look at: a ``Federation``, which imports this module to be checked when it is made."""

    @property
    def name(self) -> str: ...
    @property
    def experiment(self) -> Experiment: ...
    @property
    def fraction(self) -> float: ...
    @property
    def min_sites(self) -> int: ...
    @property
    def batch_norm(self) -> BatchNorm: ...
    @property
    def weighting(self) -> Weighting: ...
    @property
    def strategy(self) -> StrategyConfig: ...
    @property
    def secure_aggregation(self) -> SecureAggregationConfig: ...
    @property
    def privacy(self) -> PrivacyConfig: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one choice requires of another.

    Attributes:
        choice: what was chosen, as a user reads it; ``chosen`` is whether it was.
        chosen: see there.
        needs: what else must hold, as in a federation file; ``met`` is whether it does.
        met: see there.
        because: why, as the end of a sentence.
    """

    choice: str
    chosen: Callable[[FederationSettings], bool]
    needs: str
    met: Callable[[FederationSettings], bool]
    because: str


def _robust(federation: FederationSettings) -> bool:
    return federation.strategy.robust


def _secure(federation: FederationSettings) -> bool:
    return federation.secure_aggregation.enabled


def _private(federation: FederationSettings) -> bool:
    return federation.privacy.enabled


def _always(_federation: FederationSettings) -> bool:
    return True


_ROBUST, _SECURE = "strategy.name trimmed-mean or median", "secure_aggregation.enabled = true"
_PRIVATE, _ANY = "privacy.noise_multiplier above 0", "every federation"
_MEANS = ("fedavg", "fedprox")

COMBINATIONS: tuple[Requirement, ...] = (
    Requirement(
        choice=_ROBUST,
        chosen=_robust,
        needs='weighting = "uniform"',
        met=lambda federation: federation.weighting == "uniform",
        because="each coordinate is sorted over sites that count alike, and a weight is what a poisoned site may claim",
    ),
    Requirement(
        choice=_ROBUST,
        chosen=_robust,
        needs="secure_aggregation.enabled = false",
        met=lambda federation: not _secure(federation),
        because="they look at single updates, which secure aggregation hides",
    ),
    Requirement(
        choice=_ROBUST,
        chosen=_robust,
        needs="privacy.noise_multiplier = 0",
        met=lambda federation: not _private(federation),
        because="the noise is measured for a mean of clipped updates, and a median has another sensitivity",
    ),
    Requirement(
        choice=_SECURE,
        chosen=_secure,
        needs='strategy.name = "fedavg" or "fedprox"',
        met=lambda federation: federation.strategy.name in _MEANS,
        because="the server learns a sum of masked updates, which serves a mean alone",
    ),
    Requirement(
        choice=_SECURE,
        chosen=_secure,
        needs="fraction = 1.0",
        met=lambda federation: federation.fraction == 1,
        because="sums over changing groups of sites give single updates away when they are subtracted",
    ),
    Requirement(
        choice=_SECURE,
        chosen=_secure,
        needs="min_sites at least secure_aggregation.threshold",
        met=lambda federation: federation.min_sites >= federation.secure_aggregation.threshold,
        because="a sum over fewer sites hides too little, and fewer cannot take off the masks of those that left",
    ),
    Requirement(
        choice=_PRIVATE,
        chosen=_private,
        needs='strategy.name = "fedavg" or "fedprox"',
        met=lambda federation: federation.strategy.name in _MEANS,
        because="the noise is measured for a mean of clipped updates",
    ),
    Requirement(
        choice=_PRIVATE,
        chosen=_private,
        needs='weighting = "uniform"',
        met=lambda federation: federation.weighting == "uniform",
        because="with other weights one site can move the mean by more than the noise is measured for",
    ),
    Requirement(
        choice=_PRIVATE,
        chosen=_private,
        needs="fraction = 1.0",
        met=lambda federation: federation.fraction == 1,
        because="epsilon is counted for all sites in every round, and the server knows whom it asked",
    ),
    Requirement(
        choice=_PRIVATE,
        chosen=_private,
        needs='batch_norm = "local" or "fixed"',
        met=lambda federation: federation.batch_norm != "shared",
        because="shared statistics would leave each site without noise",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs='run.split = "folds" or "patient" in the experiment',
        met=lambda federation: federation.experiment.run.split != "slice",
        because="a split by slice leaks, and no site's scores would say how the model does on new patients",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs="optimizer.ema = 0 in the experiment",
        met=lambda federation: federation.experiment.optimizer.ema == 0,
        because="no moving average of weights is kept across rounds: each begins with the sites' mean",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs="no table [sequence] in the experiment",
        met=lambda federation: federation.experiment.sequence is None,
        because="the slice network alone is exchanged",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs="run.devices = 1 and run.nodes = 1 in the experiment",
        met=lambda federation: (federation.experiment.run.devices, federation.experiment.run.nodes) == (1, 1),
        because="a site's round runs in one process",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs="run.accumulate = 1 in the experiment",
        met=lambda federation: federation.experiment.run.accumulate == 1,
        because="the batches that a round leaves over would be lost in every round",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs="no run.held_out in the experiment",
        met=lambda federation: not federation.experiment.run.held_out,
        because="settings travel to every site, and identifiers of patients must not",
    ),
    Requirement(
        choice=_ANY,
        chosen=_always,
        needs="run.early_stop = 0 in the experiment",
        met=lambda federation: federation.experiment.run.early_stop == 0,
        because="the rounds say when training ends, for all sites together",
    ),
)


def check_combinations(federation: FederationSettings) -> None:
    """Refuse a federation whose choices exclude each other.

    Raises:
        ConfigError: naming every choice, what it needs and why.
    """
    broken = [
        requirement
        for requirement in COMBINATIONS
        if requirement.chosen(federation) and not requirement.met(federation)
    ]
    if broken:
        reasons = "; ".join(f"{one.choice} needs {one.needs}: {one.because}" for one in broken)
        msg = f"federation {federation.name}: {reasons}. Choose one or the other"
        raise ConfigError(msg)


def combination_table() -> str:
    """The table as Markdown, as ``docs/reference/federation.md`` shows it."""
    rows = [f"| {one.choice} | {one.needs} | {one.because} |" for one in COMBINATIONS]
    return "\n".join(["| with | it takes | because |", "|---|---|---|", *rows])
