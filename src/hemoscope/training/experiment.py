"""Reads an experiment file (TOML) into one frozen dataclass. Unknown keys are errors."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from hemoscope.errors import ConfigError
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.dataset import SamplingConfig
from hemoscope.training.lightning_module import OptimizerConfig
from hemoscope.training.losses import LossConfig
from hemoscope.training.models.network import NetworkConfig
from hemoscope.training.models.sequence import SequenceConfig
from hemoscope.training.run_config import FREE_TO_CHANGE, NAMED_INITS, RunConfig
from hemoscope.training.toml_config import build_record, find_file, read_tables, set_key

__all__ = [
    "Experiment",
    "ReadingConfig",
    "RunConfig",
    "build_record",
    "find_file",
    "parse_experiment",
    "read_experiment",
    "read_tables",
    "set_key",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """How the trained network is applied, for its scores and in the bundle.

    Attributes:
        size: side of the input in pixels; None is the training size. Such networks perform better at a slightly larger
            size than in training, because augmentation enlarges the training images (Touvron et al. 2019).
        extent_mm: length along the head over which the study rule averages.
        mirror: whether outputs are means over a slice and its mirror image, at twice the time; else of the slice alone.
    """

    size: int | None = None
    extent_mm: float = 15.0
    mirror: bool = True

    def __post_init__(self) -> None:
        """Reject a size that the network does not accept."""
        if self.size is not None and (self.size % 32 or not 32 <= self.size <= 2048):
            msg = f"reading.size must be a multiple of 32 up to 2048, got {self.size}"
            raise ConfigError(msg)
        if not 0 < self.extent_mm <= 300:
            msg = f"reading.extent_mm must be above 0 and at most 300, got {self.extent_mm}"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """All settings of a training except the data; without ``sequence``, slices are scored one by one."""

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
        """Reject an input size that the network does not accept, and an initialisation of missing neighbours."""
        if self.preprocessing.size % 32:
            msg = f"preprocessing: size must be a multiple of 32, got {self.preprocessing.size}"
            raise ConfigError(msg)
        if self.network.neighbour_init == "middle" and not self.preprocessing.neighbours:
            msg = "network: neighbour_init is for neighbours, and there are none. Set preprocessing.neighbours=1"
            raise ConfigError(msg)

    @property
    def reading_preprocessing(self) -> Preprocessing:
        """The preprocessing of training at the reading size."""
        return replace(self.preprocessing, size=self.reading.size or self.preprocessing.size)

    def to_json(self) -> dict[str, Any]:
        """The resolved record, as written into the run folder."""
        record = dataclasses.asdict(self)
        record["preprocessing"] = self.preprocessing.to_json()
        if self.run.init not in NAMED_INITS:
            record["run"]["init"] = PurePath(self.run.init).name  # records are shared; paths are not
        return record

    def same_training(self, other: "Experiment") -> bool:
        """Whether both give the same weights; settings that may change when a run resumes are ignored."""
        return self._for_comparison() == other._for_comparison()

    def _for_comparison(self) -> "Experiment":
        free = {name: getattr(RunConfig(), name) for name in FREE_TO_CHANGE}
        init = self.run.init if self.run.init in NAMED_INITS else PurePath(self.run.init).name
        return replace(self, run=replace(self.run, **free, init=init))


def read_experiment(path: Path, changes: Sequence[str] = ()) -> Experiment:
    """Read an experiment file and apply ``section.key=value`` changes (values as in TOML).

    Args:
        path: the file, or the bare name of one that the package ships, such as ``paper``.
        changes: ``section.key=value``, each.

    Raises:
        ConfigError: not TOML, an unknown or missing key, or a value of the wrong type or range.
    """
    path = find_file(path)
    return parse_experiment(read_tables(path, changes), where=path.name)


def parse_experiment(data: Mapping[str, Any], *, where: str) -> Experiment:
    """Build the record from plain values. Raises ConfigError as ``read_experiment`` does."""
    return build_record(Experiment, data, where=where)
