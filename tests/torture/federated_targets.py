"""What a federation's server and a site read from each other, as targets of fuzzing; they need Flower.

A message is damaged as it is on the wire (protobuf), or inside: records that are gone, renamed or of another kind,
values of another kind, and the bytes and header of the arrays. What Flower itself refuses to read ends there.
"""

import functools
import importlib
import json
import random
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import mutation
from .target import Target

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.clientapp import ClientApp

    from hemoscope.federated.server.checkpoints import RoundState
    from hemoscope.federated.settings.federation import Federation

_ARRAYS = {"conv.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(6, np.float32)}
_STATISTICS = {"norm.running_mean": np.zeros(2, np.float32), "norm.running_var": np.ones(2, np.float32)}
_NODE = 11
_LONGEST_TEXT = 1 << 14  # that is damaged once more: some damage repeats it
_BOTH_SIDES = (
    "hemoscope.federated.server.client_replies",
    "hemoscope.federated.server.secure_replies",
    "hemoscope.federated.server.server_scores",
    "hemoscope.federated.site.client_app",
    "hemoscope.federated.site.site_task",
)
_OF_ANOTHER_KIND = (b"\x93NUMPY", [1.0], [], ["a", "\x00"], True, 1.5, -1, "")


@functools.cache
def _import_flower() -> None:
    """Import it without the warnings of what it imports: here any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("flwr.app", "flwr.common.serde", "flwr.clientapp", *_BOTH_SIDES):
            importlib.import_module(name)


def _wire(content: "RecordDict") -> bytes:
    from flwr.common.serde import recorddict_to_proto

    return bytes(recorddict_to_proto(content).SerializeToString())


def _read(data: bytes) -> "RecordDict | None":
    """The records of a message; None where Flower refuses them before anything of ours sees them."""
    from flwr.common.serde import recorddict_from_proto
    from flwr.proto.recorddict_pb2 import RecordDict as Wire

    try:
        return recorddict_from_proto(Wire.FromString(data))
    except Exception:  # noqa: BLE001  whatever Flower raises
        return None


@functools.cache
def _federation() -> "Federation":
    from hemoscope.federated.settings.federation import parse_federation

    run = {"init": "none", "split": "patient", "validation": 0.25, "test": 0.25}
    network = {"backbone": "test_efficientnet", "width": 8, "pooled": 4}
    experiment = {"name": "tiny", "run": run, "network": network, "optimizer": {"ema": 0.0}}
    return parse_federation({"name": "tiny", "rounds": 3, "experiment": experiment}, where="the target")


def _state() -> "RoundState":
    from hemoscope.federated.server.checkpoints import RoundState

    return RoundState(trained=_ARRAYS, statistics=_STATISTICS, fixed={})


def _request_seeds(_folder: Path) -> list[bytes]:
    _import_flower()
    from flwr.app import ConfigRecord, RecordDict

    from hemoscope.federated.exchange.messages import Request, request_records
    from hemoscope.federated.flower_internals import RECORD_KEY_CONFIGS, Key, Stage

    request = Request(
        trained=_ARRAYS,
        statistics=_STATISTICS,
        fixed={},
        federation=json.dumps(_federation().to_json()),
        part="split",
        number=1,
        rounds=3,
        sites=3,
    )
    setup = {
        Key.STAGE: Stage.SETUP,
        Key.SAMPLE_NUMBER: 5,
        Key.SHARE_NUMBER: 3,
        Key.THRESHOLD: 2,
        Key.TARGET_RANGE: 1 << 22,
        Key.MOD_RANGE: 1 << 32,
    }
    unmask = {Key.STAGE: Stage.UNMASK, Key.ACTIVE_NODE_ID_LIST: [1, 11], Key.DEAD_NODE_ID_LIST: [3]}
    secure = [RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(stage)}) for stage in (setup, unmask)]
    return [_wire(content) for content in (request_records(request), *secure)]


def _request(data: bytes, folder: Path) -> None:
    """Whatever a server sends, a site replies, and an error says one of its own sentences."""
    _import_flower()
    from hemoscope.federated.flower_internals import ErrorCode
    from hemoscope.federated.site.client_app import FAILED, SENTENCES, UNWRITTEN

    content = _read(data)
    if content is None:
        return
    for kind in ("train", "evaluate"):
        reply = _site(folder)(_asked(content, kind), _context())
        if reply.has_error() and reply.error.code != ErrorCode.MOD_FAILED_PRECONDITION:
            assert reply.error.reason in {FAILED, UNWRITTEN, *(text for _, text in SENTENCES)}, reply.error.reason
        assert str(folder) not in (str(reply.error.reason) if reply.has_error() else "")


def _site(folder: Path) -> "ClientApp":
    """A site without data: a message that passes all checks ends there."""
    from hemoscope.federated.settings.site import Policy, Site
    from hemoscope.federated.site.client_app import make_client_app

    site = Site(name="riverside", data=folder / "absent", work=folder / "work", policy=Policy(min_sites=3))
    return make_client_app(lambda _context: site)


def _context() -> Any:
    from flwr.app import Context, RecordDict

    return Context(7, _NODE, {}, RecordDict(), {})


def _asked(content: "RecordDict", kind: str) -> "Message":
    from flwr.app import Message
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    return Message(content, dst_node_id=_NODE, message_type=kind)


def _reply_seeds(folder: Path) -> list[bytes]:
    _import_flower()
    from hemoscope.federated.exchange.messages import TrainReply, score_records, train_records

    from .model_targets import TARGETS as MODEL_TARGETS

    trained = TrainReply(trained=_ARRAYS, statistics=_STATISTICS, weight=12.0, loss=0.5)
    (histograms,) = MODEL_TARGETS["federated histograms"].seeds(folder)
    scores = score_records({"slices": histograms.decode(), "studies": histograms.decode()})
    return [_wire(train_records(trained)), _wire(train_records(replace(trained, loss=None))), _wire(scores)]


class _OneReply:
    """A grid on which every message has the same answer."""

    def __init__(self, content: "RecordDict") -> None:
        self._content = content

    def send_and_receive(self, messages: list["Message"], *, timeout: float | None = None) -> list["Message"]:
        """The same content, from the node that was asked."""
        from flwr.app import Message

        del timeout
        return [Message(self._content, reply_to=message) for message in messages]


def _reply(data: bytes, _folder: Path) -> None:
    """Whatever a site sends, the server takes it, or refuses the site and says why: no reply ends the round."""
    _import_flower()
    from hemoscope.federated.exchange.messages import Request
    from hemoscope.federated.server.client_replies import sort_replies
    from hemoscope.federated.server.secure_replies import fault
    from hemoscope.federated.server.server_scores import ask_scores, pooled_auroc

    content = _read(data)
    if content is None:
        return
    state = _state()
    grid = _OneReply(content)
    updates, refused = sort_replies(
        _federation(), state, {_NODE: 1}, grid.send_and_receive([_asked(_empty(), "train")])
    )
    assert len(updates) + len(refused) == 1
    assert all(np.isfinite(one).all() for update in updates for one in update.trained.values())
    request = Request(
        trained={}, statistics={}, fixed={}, federation="{}", part="split", number=1, rounds=1, sites=1, final=True
    )
    scores, _ = ask_scores(grid, [_NODE], request, timeout=1.0)  # type: ignore[arg-type]  # all that is asked of it
    pooled_auroc(list(scores.values()))
    for stage in _stages():
        fault(stage, content, {_NODE}, 10)


def _stages() -> list[str]:
    from hemoscope.federated.flower_internals import Stage

    return [Stage.SETUP, Stage.SHARE_KEYS, Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK]


def _empty() -> "RecordDict":
    from flwr.app import RecordDict

    return RecordDict()


def mutate_records(data: bytes, random_: random.Random) -> bytes:
    """Damage a message on the wire, or one of its records."""
    _import_flower()
    content = None if random_.random() < 0.3 else _read(data)
    if content is None:
        return mutation.mutate_bytes(data, random_)
    for _ in range(random_.choice((1, 1, 2, 4))):
        name = random_.choice(list(content))
        match random_.randrange(8):
            case 0:
                del content[name]
            case 1:
                content[random_.choice(list(content))] = content[name]
            case _:
                _damage(content[name], random_)
        if not content:
            break
    try:
        return _wire(content)
    except ValueError:  # a number that no wire carries
        return mutation.mutate_bytes(data, random_)


def _damage(record: Any, random_: random.Random) -> None:
    """Change one entry of a record."""
    from flwr.app import Array, ArrayRecord

    if not record:
        return
    name = random_.choice(list(record))
    if random_.random() < 0.1:
        del record[name]
        return
    value = record[name]
    try:
        if isinstance(record, ArrayRecord):
            damaged = _array_bytes(value.data, random_)
            stype = value.stype if random_.random() < 0.9 else "numpy.ndarray"
            record[name] = Array("uint8", (len(damaged),), stype, damaged)
        elif isinstance(value, str) and len(value) < _LONGEST_TEXT and random_.random() < 0.8:
            whole = mutation.mutate_json if value.startswith("{") else mutation.mutate_text
            record[name] = whole(value.encode(), random_).decode("utf-8", "replace")
        else:
            record[name] = random_.choice((*mutation.STRANGE_NUMBERS, *_OF_ANOTHER_KIND))
    except (TypeError, ValueError, RecursionError, MemoryError):  # no JSON any more, or what no record holds
        record.pop(name, None)


def _array_bytes(data: bytes, random_: random.Random) -> bytes:
    """Safetensors with damaged bytes, or with a damaged header of the right length."""
    length = int.from_bytes(data[:8], "little")
    if random_.random() < 0.5 or length > len(data):
        return mutation.mutate_bytes(data, random_)
    header = mutation.mutate_json(data[8 : 8 + length], random_)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


TARGETS = (
    {
        "federated requests": Target(seeds=_request_seeds, run=_request, mutate=mutate_records, guided=False),
        "federated replies": Target(seeds=_reply_seeds, run=_reply, mutate=mutate_records, guided=False),
    }
    if find_spec("flwr")
    else {}
)
