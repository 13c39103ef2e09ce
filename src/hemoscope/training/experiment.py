"""An experiment file: TOML in, one frozen record out. Unknown keys are errors."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.dataset import SamplingConfig
from hemoscope.training.losses import LossConfig
from hemoscope.training.models.network import NetworkConfig
from hemoscope.training.models.sequence import SequenceConfig
from hemoscope.training.module import OptimizerConfig
from hemoscope.training.run_config import FREE_TO_CHANGE, NAMED_INITS, RunConfig
from hemoscope.training.toml_config import build_record, read_tables, set_key

__all__ = [
    "Experiment",
    "ReadingConfig",
    "RunConfig",
    "build_record",
    "parse_experiment",
    "read_experiment",
    "read_tables",
    "set_key",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """How the trained network reads: what scores are taken of and what the bundle says.

    Attributes:
        size: side of the input in pixels; None reads at the size of training. Networks of this kind read better a
            little larger than they were trained, since augmentation enlarges what they see (Touvron et al. 2019).
        extent_mm: length along the head that the study rule averages over.
    """

    size: int | None = None
    extent_mm: float = 15.0

    def __post_init__(self) -> None:
        """Reject a size that the network cannot take."""
        if self.size is not None and (self.size % 32 or not 32 <= self.size <= 2048):
            msg = f"reading.size must be a multiple of 32 up to 2048, got {self.size}"
            raise ConfigError(msg)
        if not 0 < self.extent_mm <= 300:
            msg = f"reading.extent_mm must be above 0 and at most 300, got {self.extent_mm}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """Everything that decides a training but the data; without ``sequence`` slices are read one by one."""

    name: str
    description: str = ""
    run: RunConfig = field(default_factory=RunConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    sequence: SequenceConfig | None = None

    def __post_init__(self) -> None:
        """Reject inputs that the network cannot take."""
        if self.preprocessing.size % 32:
            msg = f"preprocessing: size must be a multiple of 32, got {self.preprocessing.size}"
            raise ConfigError(msg)

    @property
    def reading_preprocessing(self) -> Preprocessing:
        """The preprocessing of training, at the size of reading."""
        return replace(self.preprocessing, size=self.reading.size or self.preprocessing.size)

    def to_json(self) -> dict[str, Any]:
        """The whole record, resolved, as it is written beside the run."""
        record = dataclasses.asdict(self)
        record["preprocessing"] = self.preprocessing.to_json()
        if self.run.init not in NAMED_INITS:
            record["run"]["init"] = PurePath(self.run.init).name  # a record goes round; where files lay does not
        return record

    def same_training(self, other: "Experiment") -> bool:
        """Whether both come to the same weights: what may be changed when a run goes on does not count."""
        return self._for_comparison() == other._for_comparison()

    def _for_comparison(self) -> "Experiment":
        free = {name: getattr(RunConfig(), name) for name in FREE_TO_CHANGE}
        init = self.run.init if self.run.init in NAMED_INITS else PurePath(self.run.init).name
        return replace(self, run=replace(self.run, **free, init=init))


def read_experiment(path: Path, changes: Sequence[str] = ()) -> Experiment:
    """Read an experiment file, with ``section.key=value`` changes (values as in TOML) on top.

    Raises:
        ConfigError: not TOML, an unknown or missing key, or a value of the wrong type or range.
    """
    return parse_experiment(read_tables(path, changes), where=path.name)


def parse_experiment(data: Mapping[str, Any], *, where: str) -> Experiment:
    """The record from plain values. Raises ConfigError as ``read_experiment`` does."""
    return build_record(Experiment, data, where=where)
