"""A federation file: what sites train together, and how. TOML in, one frozen record out; unknown keys are errors.

The record travels to the sites as JSON within each message, so it is read there as strictly as here: what a site runs
is decided by a record that passed the same checks, never by code or paths that a server sent.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hemoscope.errors import ConfigError
from hemoscope.federated.settings.combinations import check_combinations
from hemoscope.federated.settings.federation_sections import (
    BatchNorm,
    HistogramConfig,
    LimitsConfig,
    PrivacyConfig,
    SecureAggregationConfig,
    StrategyConfig,
    Weighting,
    check_above,
    check_range,
    check_word,
)
from hemoscope.federated.settings.names import check_name
from hemoscope.training.experiment import Experiment, build_record, find_file, read_tables, set_key


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
        check_word("batch_norm", self.batch_norm, BatchNorm)
        check_word("weighting", self.weighting, Weighting)
        check_range("rounds", self.rounds, 1, 10_000)
        check_range("local_epochs", self.local_epochs, 1, 1000)
        check_range("min_sites", self.min_sites, 1, 10_000)
        check_range("retries", self.retries, 0, 1000)
        check_above("round_timeout", self.round_timeout, 0)
        if not 0 < self.fraction <= 1:
            msg = f"fraction must be above 0 and at most 1, got {self.fraction}"
            raise ConfigError(msg)
        check_combinations(self)

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
