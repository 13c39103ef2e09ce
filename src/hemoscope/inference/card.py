"""The card of a model bundle: what is needed to run a model correctly and to assess its results.

``card.json`` is parsed strictly against the dataclasses below, which define its format: a missing or unknown key, a
value of another type or a number that is not finite is refused with its location in the file. Field names are the keys
of the file.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import partial
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from hemoscope.inference.calibration import (
    AnyCalibration,
    OperatingPoint,
    SliceRule,
    StrataTable,
    StudyRule,
    ThinSeriesRule,
    UnsureRule,
)
from hemoscope.inference.card_statements import CardError, Statements
from hemoscope.inference.precision import PrecisionTest
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.labels import LABELS, PerLabel, check_label_order

FORMAT = "hemoscope.bundle/1"

_LARGEST = 1e300  # refuses NaN, infinity and integers too large for a float

D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """One calibration per label, for slices and for studies."""

    slice: PerLabel[AnyCalibration]
    study: PerLabel[AnyCalibration]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPointTable:
    """Operating points; ``urgent`` is a second, stricter point on the study's ``any``."""

    slice: PerLabel[OperatingPoint]
    study: PerLabel[OperatingPoint]
    urgent: OperatingPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """A dataset that the weights were trained on, with the attribution that its licence requires."""

    name: str
    version: str
    doi: str
    license: str
    attribution: str
    changes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A score with its patient-level 95% interval; without an interval both ends are None."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScore:
    """Scores of one label; if a score is None, ``reason`` says why. Cards of earlier versions lack the last keys.

    Attributes:
        auroc: interval in closed form (``evaluation.intervals``).
        average_precision: interval by bootstrap.
        ece: calibration error in bins, above 0 even for calibrated probabilities: compare ``ece_if_calibrated``.
        n_positive: rows with the label.
        n_positive_patients: patients with such a row.
        reason: why a score is None.
        n_negative: rows without the label.
        n_negative_patients: patients with such a row.
        slope: of calibration, as ``intercept`` and ``observed_expected``: ``evaluation.calibration_scores``.
        intercept: of calibration in the large.
        observed_expected: positives to the sum of probabilities.
        ece_if_calibrated: mean ``ece`` of so many calibrated probabilities.
    """

    auroc: Estimate | None
    average_precision: Estimate | None
    ece: Estimate | None
    n_positive: int
    n_positive_patients: int
    reason: str | None = None
    n_negative: int | None = None
    n_negative_patients: int | None = None
    slope: Estimate | None = None
    intercept: Estimate | None = None
    observed_expected: Estimate | None = None
    ece_if_calibrated: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """One evaluation: dataset, level, and the scores of each label."""

    name: str
    description: str
    level: Literal["slice", "patient"]
    n_images: int
    n_patients: int
    labels: PerLabel[LabelScore]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """The split of a dataset for this model, so that an evaluation can find its test images.

    Attributes:
        dataset: name of the dataset.
        by: ``patient``; or ``slice``, as in the paper, which leaks between slices of one patient.
        seed: of the split.
        validation: share of the validation set (of patients; none by slice).
        test: share of the test set.
        images_sha256: hash of all split image ids; another set of images splits differently.
    """

    dataset: str
    by: Literal["patient", "slice"]
    seed: int
    validation: float
    test: float
    images_sha256: str


def images_sha256(image_ids: Iterable[str]) -> str:
    """Return the hash of a set of image ids in hex, independent of their order."""
    return hashlib.sha256("\n".join(sorted(image_ids)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceRule:
    """Settings of the bundle's sequence graph.

    Thin slices are grouped to about the study rule's ``nominal_spacing_mm``: see
    ``probabilities.sequence_places``.

    Attributes:
        embedding_size: length of the slice embedding that the first graph outputs.
        study_scores: ``sequence`` uses the sequence graph's study scores; ``study_rule`` applies the study rule to its
            refined slice scores.
    """

    embedding_size: int
    study_scores: Literal["sequence", "study_rule"]

    def __post_init__(self) -> None:
        """Reject an invalid embedding size."""
        if not 1 <= self.embedding_size <= 65536:
            msg = f"embedding_size must be 1 to 65536, got {self.embedding_size}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationRecord:
    """Record of federated training by several sites, each on its own images.

    Attributes:
        sites: number of participating sites.
        rounds: number of aggregation rounds.
        local_epochs: epochs of local training per round.
        strategy: of aggregation, such as ``fedavg``.
        batch_norm: ``shared``, ``local`` or ``fixed``.
        weighting: of the sites: ``slices``, ``positives`` or ``uniform``.
        secure_aggregation: whether the server saw only aggregated updates.
        epsilon: of site-level differential privacy; None if no noise was added.
        delta: to ``epsilon``.
        patients: of all sites, if known.
        slices: of all sites, if known.
        personalised: whether one site fine-tuned the model on its own patients afterwards.
    """

    sites: int
    rounds: int
    local_epochs: int
    strategy: str
    batch_norm: Literal["shared", "local", "fixed"]
    weighting: Literal["slices", "positives", "uniform"]
    secure_aggregation: bool
    epsilon: float | None = None
    delta: float | None = None
    patients: int | None = None
    slices: int | None = None
    personalised: bool

    def __post_init__(self) -> None:
        """Reject invalid numbers."""
        for name in ("sites", "rounds", "local_epochs", "patients", "slices"):
            number = getattr(self, name)
            if number is not None and number < 1:
                msg = f"{name} of a federation must be at least 1, got {number}"
                raise ValueError(msg)
        private = self.epsilon is not None and self.delta is not None and self.epsilon > 0 and 0 < self.delta < 1
        if not private and (self.epsilon, self.delta) != (None, None):
            found = f"{self.epsilon} and {self.delta}"
            msg = f"a federation has an epsilon above 0 and a delta between 0 and 1, or neither of them, got {found}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """All information about a graph. ``files`` maps each file of the bundle to its SHA-256 in hex.

    ``established`` is False for a label that validation does not support: it raises no finding alone. ``sequence`` is
    set if and only if the bundle has a sequence graph. ``split`` is None if the weights were trained on every patient
    of ``training_data``, or on all except those that ``limits_of_use`` names. ``federation`` is set if several sites
    trained the weights. Without ``thin_series`` every slice is scored; without ``slice_rule`` none is smoothed.
    Without ``unsure`` no study is called unsure. ``strata`` are of slices. ``precision`` holds the tests in reduced
    precision, if there are any. ``statements`` are in words, and ``errors`` the worst ones of ``strata``'s dataset.
    """

    format: Literal["hemoscope.bundle/1"] = "hemoscope.bundle/1"
    name: str
    version: str
    labels: tuple[str, ...] = tuple(label.value for label in LABELS)
    preprocessing: Preprocessing
    calibration: CalibrationTable
    study_rule: StudyRule
    operating_points: OperatingPointTable
    established: PerLabel[bool]
    training_data: tuple[TrainingData, ...]
    scores: tuple[ScoreTable, ...]
    limits_of_use: tuple[str, ...]
    description: str
    disclaimer: str
    files: Mapping[str, str]
    split: SplitRecord | None = None
    sequence: SequenceRule | None = None
    federation: FederationRecord | None = None
    thin_series: ThinSeriesRule | None = None
    slice_rule: SliceRule | None = None
    unsure: UnsureRule | None = None
    strata: tuple[StrataTable, ...] | None = None
    precision: tuple[PrecisionTest, ...] | None = None
    statements: Statements | None = None
    errors: tuple[CardError, ...] | None = None

    def __post_init__(self) -> None:
        """Check the label order, and make the table of files read-only."""
        check_label_order(self.labels, where="labels")
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``card.json``."""
        return dict(to_plain(self))

    @classmethod
    def from_json(cls, data: object) -> "ModelCard":
        """Parse the result of ``json.load``. Raises ValueError with the location of any difference from the format."""
        if isinstance(data, dict) and data.get("format") != FORMAT:
            # Another format may differ in every key, so check it first.
            msg = f"card.format: expected {FORMAT!r}, got {data.get('format')!r:.60}"
            raise ValueError(msg)
        return parse_dataclass(cls, data, where="card")


def to_plain(value: Any) -> Any:
    """Convert a card value to JSON types."""
    if isinstance(value, Preprocessing):
        return value.to_json()
    if isinstance(value, PerLabel):
        return {label: to_plain(item) for label, item in value.as_dict().items()}
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def parse_dataclass(kind: type[D], value: object, *, where: str) -> D:
    """Read a JSON object as a dataclass with exactly these keys. Raises ValueError with the location of a difference.

    A key may be missing only if the field's default is None.
    """
    known = fields(kind)  # type: ignore[arg-type]  # callers pass dataclasses
    data = _typed(dict, value, where=where)
    required = {field.name for field in known if field.default is not None}
    _check_keys(data, required=required, allowed={field.name for field in known}, where=where)
    hints = get_type_hints(kind)
    parsed = {name: _parse(hints[name], item, where=f"{where}.{name}") for name, item in data.items()}
    return _construct(lambda: kind(**parsed), where=where)


def _parse(kind: Any, value: object, *, where: str) -> Any:
    """Read one value by its annotation."""
    origin = get_origin(kind)
    if origin is not None:
        return _GENERIC[origin](get_args(kind), value, where)
    if kind is Preprocessing:
        return _preprocessing(value, where=where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _construct(partial(kind, _typed(str, value, where=where)), where=where)
    if is_dataclass(kind):
        return parse_dataclass(cast("type[Any]", kind), value, where=where)
    return _number(value, where=where) if kind is float else _typed(kind, value, where=where)


def _parse_per_label(inner: tuple[Any, ...], value: object, where: str) -> PerLabel[Any]:
    data = _typed(dict, value, where=where)
    _check_keys(data, required=set(LABELS), allowed=set(LABELS), where=where)
    return PerLabel.build(lambda label: _parse(inner[0], data[label], where=f"{where}.{label}"))


def _parse_union(inner: tuple[Any, ...], value: object, where: str) -> Any:
    """Read an optional value, or one of several dataclasses by its keys (by default the first)."""
    if value is None and NoneType in inner:
        return None
    kinds = [kind for kind in inner if kind is not NoneType]
    keys = set(value) if len(kinds) > 1 and isinstance(value, dict) else set()
    kind = next((kind for kind in kinds if keys and keys == {field.name for field in fields(kind)}), kinds[0])
    return _parse(kind, value, where=where)


def _parse_tuple(inner: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    items = _typed(list, value, where=where)
    return tuple(_parse(inner[0], item, where=f"{where}[{index}]") for index, item in enumerate(items))


def _parse_mapping(inner: tuple[Any, ...], value: object, where: str) -> dict[str, Any]:
    data = _typed(dict, value, where=where)
    return {key: _parse(inner[1], item, where=f"{where}.{key}") for key, item in data.items()}


def _parse_literal(inner: tuple[Any, ...], value: object, where: str) -> object:
    if value not in inner:
        msg = f"{where}: expected {' or '.join(map(str, inner))}, got {value!r:.60}"
        raise ValueError(msg)
    return value


_GENERIC: dict[Any, Callable[[tuple[Any, ...], object, str], Any]] = {
    PerLabel: _parse_per_label,
    UnionType: _parse_union,
    Union: _parse_union,  # of a generic class and None
    tuple: _parse_tuple,
    Mapping: _parse_mapping,
    Literal: _parse_literal,
}


def _preprocessing(value: object, *, where: str) -> Preprocessing:
    data = _typed(dict, value, where=where)
    parsed = _construct(lambda: Preprocessing.from_json(data), where=where)
    for name in ("size", "neighbours"):
        _typed(int, data[name], where=f"{where}.{name}")
    return parsed


def _construct(make: Callable[[], D], *, where: str) -> D:
    """Run a constructor that checks its values, and add the location to its errors."""
    try:
        return make()
    except (ValueError, TypeError) as error:
        msg = f"{where}: {error}"
        raise ValueError(msg) from error


def _typed(kind: type[D], value: object, *, where: str) -> D:
    """Accept exactly this JSON type: True is not an integer."""
    if type(value) is not kind:
        msg = f"{where}: expected {_JSON_NAMES[kind]}, got {value!r:.60}"
        raise ValueError(msg)
    return value


_JSON_NAMES: dict[Any, str] = dict(
    zip((dict, list, str, int, bool), ("an object", "a list", "a text", "a whole number", "true or false"), strict=True)
)


def _number(value: object, *, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        msg = f"{where}: expected a finite number, got {value!r:.60}"
        raise ValueError(msg)
    return float(value)


def _check_keys(data: Mapping[str, Any], *, required: set[Any], allowed: set[Any], where: str) -> None:
    missing, unknown = sorted(required - set(data)), sorted(set(data) - allowed)
    if missing or unknown:
        names = [f"{text} {', '.join(keys)}" for text, keys in (("missing", missing), ("unknown", unknown)) if keys]
        msg = f"{where}: keys {'; '.join(names)}"
        raise ValueError(msg)
