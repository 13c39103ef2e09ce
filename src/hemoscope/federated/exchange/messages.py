"""What server and sites say to each other, as records of Flower's Message API, checked before it is believed.

Down, for TRAIN and EVALUATE: ``arrays`` (what is trained), ``statistics`` (of batch norm, where shared) and ``fixed``
(what goes from the server to the sites alone), float32 arrays by name, and ``config``. Up: ``arrays``, ``statistics``
and ``metrics`` of TRAIN; ``scores`` of EVALUATE, histograms as JSON. Either side may be run by somebody else than it
says: a record that is absent, of another kind, too large or not what it claims is refused before it is used.

All arrays of a record travel as one, in the format of safetensors: Flower asks for each array by two requests, three
times on its way, and a network has hundreds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from hemoscope.errors import FederationError
from hemoscope.federated.flower_internals import ErrorCode

Arrays = dict[str, NDArray[np.float32]]
Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)

TRAIN, EVALUATE = "train", "evaluate"  # Flower's types of message
ARRAYS, STATISTICS, FIXED, CONFIG = "arrays", "statistics", "fixed", "config"
METRICS, SCORES = "metrics", "scores"
FEDERATION, PART, ROUND, ROUNDS, SITES, FINAL = "federation", "part", "server-round", "rounds", "sites", "final"
WEIGHT, LOSS = "num-examples", "loss"
SLICES, STUDIES = "slices", "studies"
VALIDATION_SLICES, VALIDATION_STUDIES = "validation-slices", "validation-studies"
_SCORE_NAMES = (SLICES, STUDIES, VALIDATION_SLICES, VALIDATION_STUDIES)

_FORMAT = "safetensors"  # the one entry of a record of arrays, and its way of serialisation
_FOREIGN = "a message holds arrays that are not in the format of safetensors. Do both sides run the same version?"
_MOST_BYTES = 1 << 30  # of one record
_MOST_HEADER = 4 << 20  # of them, for names and shapes
_MOST_ARRAYS = 10_000
_MOST_TEXT = 1 << 20
_MOST_REASON = 200  # characters
_GONE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a server asks of a site.

    Attributes:
        trained: network state that goes through the strategy, by name.
        statistics: batch norm's running means and variances, where sites share them.
        fixed: state that the server alone decides.
        federation: the settings of the federation, as JSON text.
        part: of the experiment.
        number: of the round, from 1.
        rounds: that there will be.
        sites: that were asked with this one.
        final: whether this is the last evaluation.
    """

    trained: Arrays
    statistics: Arrays
    fixed: Arrays
    federation: str
    part: str
    number: int
    rounds: int
    sites: int
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReply:
    """What a site replies to TRAIN; ``loss`` is None where the site keeps it."""

    trained: Arrays
    statistics: Arrays
    weight: float
    loss: float | None


def request_config(*, federation: str, part: str, number: int, rounds: int, sites: int, final: bool) -> ConfigRecord:
    """The ``config`` record of a request; see ``Request``."""
    return ConfigRecord({FEDERATION: federation, PART: part, ROUND: number, ROUNDS: rounds, SITES: sites, FINAL: final})


def request_records(request: Request) -> RecordDict:
    """A request as records."""
    return RecordDict(
        {
            ARRAYS: pack(request.trained),
            STATISTICS: pack(request.statistics),
            FIXED: pack(request.fixed),
            CONFIG: request_config(
                federation=request.federation,
                part=request.part,
                number=request.number,
                rounds=request.rounds,
                sites=request.sites,
                final=request.final,
            ),
        }
    )


def parse_request(content: RecordDict) -> Request:
    """What a message from the server asks. Raises FederationError where it is not a whole, possible request."""
    config = record_of(content, CONFIG, ConfigRecord)
    number, rounds, sites = (_integer(config, name, least=1) for name in (ROUND, ROUNDS, SITES))
    if number > rounds:
        msg = f"round {number} of {rounds} was asked for. Rounds are numbered from 1"
        raise FederationError(msg)
    return Request(
        trained=unpack(record_of(content, ARRAYS, ArrayRecord)),
        statistics=unpack(record_of(content, STATISTICS, ArrayRecord)),
        fixed=unpack(record_of(content, FIXED, ArrayRecord)),
        federation=_text(config, FEDERATION),
        part=_text(config, PART),
        number=number,
        rounds=rounds,
        sites=sites,
        final=_value(config, FINAL, bool, "true or false"),
    )


def train_records(reply: TrainReply) -> RecordDict:
    """The answer to TRAIN as records."""
    metrics = MetricRecord({WEIGHT: float(reply.weight)})
    if reply.loss is not None:
        metrics[LOSS] = float(reply.loss)
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {ARRAYS: pack(reply.trained), METRICS: metrics}
    if reply.statistics:
        records[STATISTICS] = pack(reply.statistics)
    return RecordDict(records)


def parse_train(content: RecordDict) -> TrainReply:
    """What a site answered to TRAIN. Raises FederationError where it is not such an answer.

    Names, shapes and sizes against the network are ``updates.check_update``'s.
    """
    metrics = record_of(content, METRICS, MetricRecord)
    statistics = content.get(STATISTICS)
    return TrainReply(
        trained=unpack(record_of(content, ARRAYS, ArrayRecord)),
        statistics={} if statistics is None else unpack(record_of(content, STATISTICS, ArrayRecord)),
        weight=_number(metrics, WEIGHT, least=0.0),
        loss=_number(metrics, LOSS, least=-math.inf) if LOSS in metrics else None,
    )


def score_records(texts: Mapping[str, str]) -> RecordDict:
    """The answer to EVALUATE as records: histograms as JSON by what they are of. Of nothing else a name is known."""
    unknown = sorted(set(texts) - set(_SCORE_NAMES))
    if unknown:
        msg = f"no such scores: {', '.join(unknown)}. Known are {', '.join(_SCORE_NAMES)}"
        raise FederationError(msg)
    return RecordDict({SCORES: ConfigRecord(dict(texts))})


def parse_scores(content: RecordDict) -> dict[str, str]:
    """What a site answered to EVALUATE, as texts for ``parse_histograms``. Raises FederationError for anything else."""
    scores = record_of(content, SCORES, ConfigRecord)
    if unknown := set(scores) - set(_SCORE_NAMES):
        msg = f"a site sent {len(unknown)} kinds of scores that nobody asked for. Update hemoscope there"
        raise FederationError(msg)
    return {name: _text(scores, name) for name in scores}


def refusal_of(reply: Message) -> str:
    """Why a site says that it did not do what it was asked; empty where it was not there to say anything.

    A site may say anything: no more than a line of it is kept, without characters that a terminal would obey.
    """
    if reply.error.code in _GONE:
        return ""
    said = "".join(letter for letter in str(reply.error.reason) if letter.isprintable())
    return said[:_MOST_REASON] or "no reason given"


def pack(arrays: Arrays) -> ArrayRecord:
    """Arrays by name as Flower's record, float32 in C order, all in one."""
    whole = save({name: np.asarray(value, dtype=np.float32, order="C") for name, value in arrays.items()})
    return ArrayRecord({_FORMAT: Array("uint8", (len(whole),), _FORMAT, whole)})


def pack_each(arrays: Arrays) -> ArrayRecord:
    """Arrays by name as Flower's strategies calculate with them; such a record never leaves the server."""
    return ArrayRecord({name: Array(np.asarray(value, dtype=np.float32, order="C")) for name, value in arrays.items()})


def unpack(record: ArrayRecord) -> Arrays:
    """Arrays by name out of a record of ``pack``, sorted and read-only, without trusting the sizes that it claims.

    Raises:
        FederationError: too many arrays or bytes, or one that is not plain float32.
    """
    array = record.get(_FORMAT)
    if array is None or len(record) != 1 or array.stype != _FORMAT:
        raise FederationError(_FOREIGN)
    _check_size(array.data)
    try:
        found: list[tuple[str, dict[str, Any]]] = deserialize(array.data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise FederationError(_FOREIGN) from error
    if len(found) > _MOST_ARRAYS:
        msg = f"a message holds {len(found)} arrays, more than the {_MOST_ARRAYS} of any network here"
        raise FederationError(msg)
    return {name: _array(described) for name, described in sorted(found, key=lambda one: one[0])}


def _check_size(whole: bytes) -> None:
    """Refuse a record that is too large, or whose header is; it begins with its own length, in 8 bytes."""
    header = int.from_bytes(whole[:8], "little")
    if len(whole) > _MOST_BYTES or header > _MOST_HEADER:
        msg = f"a message holds arrays of {len(whole)} bytes, {header} of them names. At most {_MOST_BYTES} are read"
        raise FederationError(msg)


def record_of(content: RecordDict, name: str, kind: type[Record]) -> Record:
    """A record of a message. Raises FederationError if it is missing or of another kind."""
    found = content.get(name)
    if not isinstance(found, kind):
        msg = f"a message lacks its {name} ({kind.__name__}). Do server and sites run the same version of hemoscope?"
        raise FederationError(msg)
    return found


def _array(described: Mapping[str, Any]) -> NDArray[np.float32]:
    """One array of safetensors, which has checked its bytes against its type and shape."""
    kind, shape = described["dtype"], described["shape"]
    msg = f"a message holds an array of {kind} with {len(shape)} dimensions. Expected float32 of a network"
    if kind != "F32":
        raise FederationError(msg)
    try:
        values: NDArray[np.float32] = np.frombuffer(described["data"], dtype="<f4").reshape(shape)
    except ValueError as error:  # more dimensions, or larger ones, than NumPy has
        raise FederationError(msg) from error
    values.flags.writeable = False
    return values


def _value(record: Mapping[str, Any], name: str, kind: type[Any], wanted: str) -> Any:
    found = record.get(name)
    if type(found) is not kind:
        msg = f"a message's {name} must be {wanted}, got {type(found).__name__}"
        raise FederationError(msg)
    return found


def _text(record: Mapping[str, Any], name: str) -> str:
    text: str = _value(record, name, str, "text")
    if len(text) > _MOST_TEXT:
        msg = f"a message's {name} has {len(text)} characters, more than {_MOST_TEXT}"
        raise FederationError(msg)
    return text


def _integer(record: Mapping[str, Any], name: str, *, least: int) -> int:
    number: int = _value(record, name, int, "a whole number")
    if number < least:
        msg = f"a message's {name} must be at least {least}, got {number}"
        raise FederationError(msg)
    return number


def _number(record: Mapping[str, Any], name: str, *, least: float) -> float:
    number: float = _value(record, name, float, "a number")
    if not math.isfinite(number) or number < least:
        msg = f"a message's {name} must be finite and at least {least:g}, got {number}"
        raise FederationError(msg)
    return number
