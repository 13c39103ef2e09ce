"""A federation file: what sites train together, and how. TOML in, one frozen record out; unknown keys are errors.

The record travels to the sites as JSON within each message, so it is read there as strictly as here: what a site runs
is decided by a record that passed the same checks, never by code or paths that a server sent.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from hemoscope.errors import ConfigError
from hemoscope.federated.settings import combinations
from hemoscope.federated.settings.names import check_name
from hemoscope.training.experiment import Experiment, build_record, find_file, read_tables, set_key

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
        _check_word("strategy.name", self.name, Strategy)
        _check_range("strategy.proximal", self.proximal, 0, 1000)
        _check_above("strategy.server_learning_rate", self.server_learning_rate, 0)
        _check_above("strategy.tau", self.tau, 0)
        for name in ("beta_1", "beta_2"):
            _check_below(f"strategy.{name}", getattr(self, name), 0, 1)
        _check_below("strategy.trim", self.trim, 0, 0.5)

    @property
    def robust(self) -> bool:
        """Whether a few sites that send anything at all cannot carry the mean away."""
        return self.name in ROBUST


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureAggregationConfig:
    """Masks that hide each site's update from the server, which learns the sum alone (SecAgg+, Bell et al. 2020).

    Attributes:
        enabled: whether updates are masked.
        shares: pieces that a site's key is split into, one for each neighbour and itself; odd.
        threshold: pieces that bring the key back, so that a site may leave in mid-round.
    """

    enabled: bool = False
    shares: int = 3
    threshold: int = 2

    def __post_init__(self) -> None:
        """Reject numbers of shares that protect nothing."""
        if self.shares < 3 or self.shares % 2 == 0:
            msg = f"secure_aggregation.shares must be odd and at least 3, got {self.shares}"
            raise ConfigError(msg)
        # With half the shares or fewer, a server could tell one half of the neighbours that a site left and the
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
        _check_range("privacy.noise_multiplier", self.noise_multiplier, 0, 1e6)
        _check_above("privacy.clipping_norm", self.clipping_norm, 0)
        if not 0 < self.delta < 1:
            msg = f"privacy.delta must lie between 0 and 1, got {self.delta}"
            raise ConfigError(msg)
        if self.max_epsilon is not None:
            _check_above("privacy.max_epsilon", self.max_epsilon, 0)

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
        _check_above("limits.max_norm", self.max_norm, 0)
        _check_range("limits.max_weight", self.max_weight, 1, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramConfig:
    """How sites report their scores: counts in fixed cells, never rows.

    Attributes:
        least_cell: fewest slices or patients of a class in a cell that is sent; smaller cells are joined.
        every: rounds between evaluations; 0 evaluates after the last alone.
        folds: of a run on folds, ``together`` tells nothing of a fold and once, after the final network, of all
            held-out patients of a site: small sites can tell more so, and no fold can be had by subtraction. ``each``
            tells of every fold, which shows its course, and lets the calibration error be cross-fitted.
    """

    least_cell: int = 5
    every: int = 0
    folds: Folds = "together"

    def __post_init__(self) -> None:
        """Reject cells of nobody."""
        _check_range("histograms.least_cell", self.least_cell, 1, 10_000)
        _check_range("histograms.every", self.every, 0, 10_000)
        _check_word("histograms.folds", self.folds, Folds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Everything that the sites of one federation agree on but their data.

    Attributes:
        name: letters, digits, ``_``, ``.`` and ``-``: it names a folder at every site.
        description: goes into the card.
        experiment: what each site trains; its ``run.epochs`` does not count, ``rounds`` x ``local_epochs`` does.
        rounds: how often the sites' models become one.
        local_epochs: passes over its own data that a site makes in a round.
        fraction: share of the connected sites that are asked each round.
        min_sites: replies below which a round is void and tried again.
        retries: how often a void round is tried again before training ends with an error.
        round_timeout: seconds after which a round goes on without the sites that have not answered.
        batch_norm: ``shared`` averages its statistics beside the strategy, ``local`` keeps all of batch norm at its
            site (FedBN, Li et al. 2021), ``fixed`` leaves the statistics as they began.
        weighting: what a site's update counts by: its ``slices``, its ``positives``, or all alike (``uniform``).
        strategy: see ``StrategyConfig``.
        secure_aggregation: see ``SecureAggregationConfig``.
        privacy: see ``PrivacyConfig``.
        limits: see ``LimitsConfig``.
        histograms: see ``HistogramConfig``.
    """

    name: str
    description: str = ""
    experiment: Experiment
    rounds: int = 10
    local_epochs: int = 1
    fraction: float = 1.0
    min_sites: int = 2
    retries: int = 3
    round_timeout: float = 3600.0
    batch_norm: BatchNorm = "shared"
    weighting: Weighting = "slices"
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    secure_aggregation: SecureAggregationConfig = field(default_factory=SecureAggregationConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    histograms: HistogramConfig = field(default_factory=HistogramConfig)

    def __post_init__(self) -> None:
        """Reject single values out of range, then what excludes each other. Raises ConfigError."""
        check_name("name", self.name)
        _check_word("batch_norm", self.batch_norm, BatchNorm)
        _check_word("weighting", self.weighting, Weighting)
        _check_range("rounds", self.rounds, 1, 10_000)
        _check_range("local_epochs", self.local_epochs, 1, 1000)
        _check_range("min_sites", self.min_sites, 1, 10_000)
        _check_range("retries", self.retries, 0, 1000)
        _check_above("round_timeout", self.round_timeout, 0)
        if not 0 < self.fraction <= 1:
            msg = f"fraction must be above 0 and at most 1, got {self.fraction}"
            raise ConfigError(msg)
        combinations.check(self)

    @property
    def epochs(self) -> int:
        """Passes over the data in all rounds together: what a schedule of the learning rate runs over."""
        return self.rounds * self.local_epochs

    @property
    def clipping_norm(self) -> float | None:
        """L2 norm that a site shortens its update to, or None where the server checks it instead."""
        if self.privacy.enabled:
            return min(self.privacy.clipping_norm, self.limits.max_norm)
        return self.limits.max_norm if self.secure_aggregation.enabled else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all settings, experiment included, in hexadecimal: by it a site knows what it agreed to."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def least_sites(self) -> int:
        """Sites that a round needs."""
        secure = self.secure_aggregation
        return max(self.min_sites, secure.shares if secure.enabled else 1)

    def check_sites(self, sites: int) -> None:
        """Raise ConfigError where fewer sites are expected than a round needs."""
        if sites < self.least_sites:
            needed = f"a round needs {self.least_sites}"
            msg = f"{sites} sites are expected, but {needed}. Add sites, or lower min_sites or shares"
            raise ConfigError(msg)

    def to_json(self) -> dict[str, Any]:
        """Plain values, resolved; of a file of initial weights the name alone, for it travels."""
        return {**dataclasses.asdict(self), "experiment": self.experiment.to_json()}

    def to_local_json(self) -> dict[str, Any]:
        """As ``to_json``, with the whole path of initial weights: for this machine, where the server reads them."""
        record = self.to_json()
        record["experiment"]["run"]["init"] = self.experiment.run.init
        return record


def read_federation(path: Path, changes: Sequence[str] = ()) -> Federation:
    """Read a federation file, with ``key=value`` changes (values as in TOML) on top.

    ``path`` may be the bare name of a federation that the package ships. ``experiment`` names an experiment file,
    relative to the federation file, or an experiment that ships; the table ``changes`` changes its keys.

    Raises:
        ConfigError: either file is not TOML, a key is unknown or missing, a value of the wrong type or range, or two
            choices exclude each other.
    """
    path = find_file(path)
    data = read_tables(path, changes, kind="federation")
    named, altered = data.pop("experiment", None), data.pop("changes", {})
    if not isinstance(named, str):
        msg = f'{path.name}: experiment must name an experiment, such as "default", or its file, got {named!r}'
        raise ConfigError(msg)
    if not isinstance(altered, Mapping):
        msg = f"{path.name}: changes must be a table of keys of the experiment, got {altered!r}"
        raise ConfigError(msg)
    tables = read_tables(find_file(Path(named), folder=path.parent))
    for key, value in _flat(altered):
        set_key(tables, key, value, where=f"{path.name}: changes")
    return parse_federation({**data, "experiment": tables}, where=path.name)


def parse_federation(data: Mapping[str, Any] | str, *, where: str = "federation") -> Federation:
    """The record from plain values, or from their JSON text. Raises ConfigError as ``read_federation`` does."""
    record: Any = data
    if isinstance(data, str):
        try:
            record = json.loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"{where}: not a federation's JSON ({type(error).__name__}). Send what Federation.to_json gives"
            raise ConfigError(msg) from error
    return build_record(Federation, record, where=where)


def _flat(tables: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Keys with their sections, from tables in tables and from quoted dotted keys alike."""
    found: list[tuple[str, Any]] = []
    for key, value in tables.items():
        found += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(before + key, value)]
    return found


def _check_word(name: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        msg = f"{name} must be one of {', '.join(get_args(kind))}, got {value}"
        raise ConfigError(msg)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # not a number is in no range
        msg = f"{name} must be {least:g} to {most:g}, got {value}"
        raise ConfigError(msg)


def _check_below(name: str, value: float, least: float, limit: float) -> None:
    if not least <= value < limit:
        msg = f"{name} must be at least {least:g} and below {limit:g}, got {value}"
        raise ConfigError(msg)


def _check_above(name: str, value: float, limit: float) -> None:
    if not limit < value < math.inf:
        msg = f"{name} must be a number above {limit:g}, got {value}"
        raise ConfigError(msg)
