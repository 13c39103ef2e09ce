"""An experiment file: TOML in, one frozen record out. Unknown keys are errors."""

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, TypeVar

from hemoscope.errors import ConfigError
from hemoscope.models.network import NetworkConfig
from hemoscope.models.sequence import SequenceConfig
from hemoscope.preprocess import Preprocessing
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.dataset import SamplingConfig
from hemoscope.training.losses import LossConfig
from hemoscope.training.module import OptimizerConfig
from hemoscope.training.run_config import FREE_TO_CHANGE, NAMED_INITS, RunConfig

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

Record = TypeVar("Record")


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


def read_tables(path: Path, changes: Sequence[str] = (), *, kind: str = "experiment") -> dict[str, Any]:
    """The plain tables of a TOML file with changes on top; ``kind`` is what the file is called in an error.

    Raises:
        ConfigError: no such file, not TOML, or a change that is none.
    """
    if not path.is_file():
        msg = f"{path.name}: no such {kind} file. Give its path, such as experiments/paper.toml of a clone"
        raise ConfigError(msg)
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # TOML that is none, and bytes that are no text
        reason = error.strerror if isinstance(error, OSError) else error
        msg = f"{path.name}: not a readable {kind} file ({reason})"
        raise ConfigError(msg) from error
    for change in changes:
        _apply(data, change)
    return data


def parse_experiment(data: Mapping[str, Any], *, where: str) -> Experiment:
    """The record from plain values. Raises ConfigError as ``read_experiment`` does."""
    return build_record(Experiment, data, where=where)


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        msg = f"--set needs key=value, got {change!r}"
        raise ConfigError(msg)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    set_key(data, key.strip(), value, where=f"--set {change}")


def set_key(data: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set ``section.key`` in plain tables. Raises ConfigError where a section is no table."""
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            msg = f"{where}: {section} is no table"
            raise ConfigError(msg)
    data[name] = value


def build_record(kind: type[Record], data: Mapping[str, Any], *, where: str) -> Record:
    """A record, a dataclass of dataclasses, from plain values; ``where`` begins every error.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range.
    """
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping):
        msg = f"{where} must be a table, got {data!r}"
        raise ConfigError(msg)
    unknown = sorted(set(data) - set(fields))
    if unknown:
        msg = f"{where}: unknown key {', '.join(unknown)}. Known here: {', '.join(fields)}"
        raise ConfigError(msg)
    hints = typing.get_type_hints(kind)
    try:
        if kind is Preprocessing:
            return typing.cast("Record", Preprocessing.from_json({**Preprocessing().to_json(), **data}))
        return kind(**{name: _value(hints[name], value, where=f"{where}: {name}") for name, value in data.items()})
    except (TypeError, ValueError) as error:
        msg = f"{where}: {error}"
        raise ConfigError(msg) from error


def _value(hint: Any, value: Any, *, where: str) -> Any:
    """A plain value as its field wants it; a field of several kinds takes the first kind that fits."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for kind in kinds:
        if _fits(kind, value):
            return _converted(kind, value, where=where)
    msg = f"{where} must be {' or '.join(_named(kind) for kind in kinds if kind is not type(None))}, got {value!r}"
    raise ConfigError(msg)


def _fits(kind: Any, value: Any) -> bool:
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return isinstance(value, list | tuple)
    if kind is Path:
        return isinstance(value, str)
    if origin is typing.Literal:  # the record itself says which words there are
        return isinstance(value, str)
    return type(value) is kind or (kind is float and type(value) is int)


def _converted(kind: Any, value: Any, *, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build_record(typing.cast("type[Any]", kind), value, where=where)
    if typing.get_origin(kind) is tuple:
        return tuple(_value(typing.get_args(kind)[0], item, where=where) for item in value)
    return kind(value) if kind in (float, Path) else value


def _named(kind: Any) -> str:
    if dataclasses.is_dataclass(kind):
        return "a table"
    if typing.get_origin(kind) is tuple:
        return "a list"
    if kind is Path:
        return "a path"
    return "a word" if typing.get_origin(kind) is typing.Literal else str(kind.__name__)
