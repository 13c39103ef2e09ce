"""Messages come back as they were sent, and nothing that was tampered with is believed."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("flwr", reason="needs the extra: make setup-federated")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import save

from hemoscope.errors import FederationError
from hemoscope.federated.exchange import messages
from hemoscope.federated.exchange.messages import (
    Request,
    TrainReply,
    pack,
    pack_each,
    parse_request,
    parse_scores,
    parse_train,
    refusal_of,
    request_records,
    score_records,
    train_records,
    unpack,
)

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.float32)}
REQUEST = Request(
    trained=ARRAYS,
    statistics={},
    fixed={"c": np.ones(2, np.float32)},
    federation="{}",
    part="split",
    number=2,
    rounds=3,
    sites=4,
)

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
floats = hnp.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False))


@given(st.dictionaries(st.text(min_size=1, max_size=30), floats, max_size=4))
def test_arrays_come_back_as_they_were(arrays: dict[str, Any]) -> None:
    back = unpack(pack(arrays))
    assert list(back) == sorted(arrays)
    for name, value in arrays.items():
        assert back[name].dtype == np.float32
        assert back[name].shape == value.shape
        assert np.array_equal(back[name], value)


@pytest.mark.parametrize("array", [np.asfortranarray(np.ones((3, 2), np.float32)), np.ones((4, 4), np.float32)[::2].T])
def test_arrays_in_any_layout_travel_in_c_order(array: Any) -> None:
    assert np.array_equal(unpack(pack({"a": array}))["a"], array)


def test_a_request_comes_back_as_it_was() -> None:
    back = parse_request(request_records(REQUEST))
    assert replace(back, trained={}, statistics={}, fixed={}) == replace(REQUEST, trained={}, statistics={}, fixed={})
    assert back.trained.keys() == REQUEST.trained.keys()
    assert back.fixed.keys() == REQUEST.fixed.keys()
    assert np.array_equal(back.trained["a.weight"], ARRAYS["a.weight"])


@pytest.mark.parametrize("loss", [None, 0.25])
@pytest.mark.parametrize("statistics", [{}, {"n.running_mean": np.ones(2, np.float32)}])
def test_a_reply_comes_back_as_it_was(loss: float | None, statistics: dict[str, Any]) -> None:
    content = train_records(TrainReply(trained=ARRAYS, statistics=statistics, weight=12.0, loss=loss))
    assert ("statistics" in content) == bool(statistics)
    back = parse_train(content)
    assert (back.weight, back.loss, set(back.statistics)) == (12.0, loss, set(statistics))


def test_scores_come_back_as_they_were() -> None:
    texts = {"slices": "{}", "validation-studies": "[]"}
    assert parse_scores(score_records(texts)) == texts
    assert parse_scores(score_records({})) == {}


def test_scores_of_another_name_are_refused_at_both_ends() -> None:
    with pytest.raises(FederationError, match="no such scores: rows"):
        score_records({"rows": "{}"})
    with pytest.raises(FederationError, match="1 kinds of scores that nobody asked for"):
        parse_scores(RecordDict({"scores": ConfigRecord({"rows": "{}"})}))
    with pytest.raises(FederationError, match="must be text, got int"):
        parse_scores(RecordDict({"scores": ConfigRecord({"slices": 1})}))


def record_with(data: bytes, *, name: str = "safetensors", stype: str = "safetensors") -> ArrayRecord:
    return ArrayRecord({name: Array("uint8", (len(data),), stype, data)})


def described(header: Any, body: bytes = b"") -> bytes:
    """A file of safetensors whose header says what it likes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def one(dtype: str = "F32", shape: list[int] | None = None, size: int = 12) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": [3] if shape is None else shape, "data_offsets": [0, size]}}


WHOLE = save({"a": np.ones(3, np.float32)})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "format of safetensors"),
        (WHOLE[:-1], "format of safetensors"),
        (WHOLE + b"0", "format of safetensors"),
        (described(b"{" * 5000), "format of safetensors"),
        (described(one(shape=[9999]), bytes(12)), "format of safetensors"),
        (described(one(shape=[-3]), bytes(12)), "format of safetensors"),
        (described(one(shape=[2**40, 2**40], size=0)), "format of safetensors"),
        (save({"a": np.ones(3)}), "an array of F64 with 1 dimensions"),
        (save({"a": np.ones(3, np.int32)}), "an array of I32"),
        (described(one("F4", [2], 1), b"0"), "an array of F4"),
        (described(one(shape=[1] * 70, size=4), bytes(4)), "F32 with 70 dimensions"),
        (described(one(shape=[0, 2**63], size=0)), "F32 with 2 dimensions"),
        (described(one(shape=[0, 10**18, 10**18], size=0)), "F32 with 3 dimensions"),
        (described(b" " * (5 << 20)), "5242880 of them names"),
        (bytes([255] * 8), "format of safetensors|of them names"),
    ],
)
def test_arrays_that_are_not_what_they_claim_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(FederationError, match=reason):
        unpack(record_with(data))


@pytest.mark.parametrize(
    "record",
    [
        record_with(WHOLE, stype="pickle"),
        record_with(WHOLE, name="arrays"),
        pack_each(ARRAYS),
        ArrayRecord({}),
        ArrayRecord({**pack(ARRAYS), **pack_each(ARRAYS)}),
    ],
)
def test_a_record_of_another_kind_is_refused(record: ArrayRecord) -> None:
    with pytest.raises(FederationError, match="format of safetensors"):
        unpack(record)


def test_a_record_is_few_objects_however_many_arrays_it_has() -> None:
    record = pack({f"layer {number}": np.ones(3, np.float32) for number in range(500)})
    assert len(get_all_nested_objects(record)) == 3  # the record, its one array, and a chunk of bytes


def test_more_arrays_than_any_network_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_MOST_ARRAYS", 1)
    with pytest.raises(FederationError, match="2 arrays, more than the 1"):
        unpack(pack(ARRAYS))


def test_an_array_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_MOST_BYTES", 8)
    with pytest.raises(FederationError, match="At most 8 are read"):
        unpack(pack(ARRAYS))


@pytest.mark.parametrize("name", ["arrays", "statistics", "fixed", "config"])
def test_a_request_without_one_of_its_records_is_refused(name: str) -> None:
    content = request_records(REQUEST)
    del content[name]
    with pytest.raises(FederationError, match=f"lacks its {name}"):
        parse_request(content)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"server-round": 4}, "round 4 of 3"),
        ({"server-round": 0}, "server-round must be at least 1, got 0"),
        ({"server-round": 1.0}, "server-round must be a whole number, got float"),
        ({"sites": True}, "sites must be a whole number, got bool"),
        ({"part": b"split"}, "part must be text, got bytes"),
        ({"final": 1}, "final must be true or false, got int"),
        ({"federation": "x" * (1 << 21)}, "federation has 2097152 characters"),
    ],
)
def test_a_request_with_impossible_settings_is_refused(change: dict[str, Any], reason: str) -> None:
    content = request_records(REQUEST)
    content.config_records["config"].update(change)
    with pytest.raises(FederationError, match=reason):
        parse_request(content)


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"loss": 1.0}, "num-examples must be a number, got NoneType"),
        ({"num-examples": 3}, "num-examples must be a number, got int"),
        ({"num-examples": -1.0}, "at least 0, got -1"),
        ({"num-examples": float("nan")}, "finite"),
        ({"num-examples": float("inf")}, "finite"),
        ({"num-examples": 1.0, "loss": float("nan")}, "loss must be finite"),
        ({"num-examples": 1.0, "loss": [1.0]}, "loss must be a number, got list"),
    ],
)
def test_a_reply_with_impossible_numbers_is_refused(metrics: dict[str, Any], reason: str) -> None:
    content = RecordDict({"arrays": pack(ARRAYS), "metrics": MetricRecord(metrics)})
    with pytest.raises(FederationError, match=reason):
        parse_train(content)


def test_a_reply_whose_statistics_are_no_arrays_is_refused() -> None:
    content = train_records(TrainReply(trained=ARRAYS, statistics={}, weight=1.0, loss=None))
    content["statistics"] = ConfigRecord({})
    with pytest.raises(FederationError, match="lacks its statistics"):
        parse_train(content)


@pytest.mark.parametrize(
    ("code", "said", "kept"),
    [
        (2, "This site failed.", "This site failed."),
        (2, "\x1b[2Jred\nnext", "[2Jrednext"),
        (2, "x" * 1000, "x" * 200),
        (6, "", "no reason given"),
        (ErrorCode.NODE_UNAVAILABLE, "Error: Node Unavailable", ""),
    ],
)
def test_of_a_sites_reason_one_plain_line_is_kept(code: int, said: str, kept: str) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1
    asked = Message(RecordDict(), dst_node_id=11, message_type="train")
    assert refusal_of(Message(Error(code, said), reply_to=asked)) == kept
