"""A graph that keeps tensors in another file is refused wherever they are: no hash covers that file."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hemoscope.errors import BundleError
from hemoscope.inference.bundle import ModelCard, load_bundle, write_bundle
from hemoscope.inference.external_data import _FIELDS, external_tensors

MESSAGES = {
    "model": "ModelProto",
    "training": "TrainingInfoProto",
    "function": "FunctionProto",
    "graph": "GraphProto",
    "node": "NodeProto",
    "attribute": "AttributeProto",
    "sparse": "SparseTensorProto",
    "tensor": "TensorProto",
}


def outside(name: str = "kernel") -> TensorProto:
    """A tensor of which only the place is in the graph."""
    tensor = numpy_helper.from_array(np.zeros(2, dtype=np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def place(model: ModelProto, where: str) -> None:
    """Put a tensor with external data into a model."""
    graph, node = model.graph, helper.make_node("Identity", ["image"], ["seen"])
    if where == "initializer":
        graph.initializer.append(outside())
    elif where == "sparse":
        graph.sparse_initializer.append(onnx.SparseTensorProto(values=outside()))
    elif where == "indices":
        graph.sparse_initializer.append(onnx.SparseTensorProto(indices=outside()))
    elif where == "attribute":
        graph.node.append(helper.make_node("Constant", [], ["seen"], value=outside()))
    elif where == "tensors":
        graph.node.append(helper.make_node("Other", [], ["seen"], value=[outside(), outside()]))
    elif where == "sub-graph":
        graph.node.append(helper.make_node("If", ["yes"], ["seen"], then_branch=sub_graph(), else_branch=sub_graph()))
    elif where == "function":
        constant = helper.make_node("Constant", [], ["seen"], value=outside())
        model.functions.append(helper.make_function("own", "F", [], ["seen"], [constant], []))
    elif where == "default":
        function = helper.make_function("own", "F", [], ["seen"], [node], [])
        function.attribute_proto.append(helper.make_attribute("value", outside()))
        model.functions.append(function)
    else:
        model.training_info.add().algorithm.CopyFrom(sub_graph())


def sub_graph() -> onnx.GraphProto:
    inner = helper.make_graph([], "inner", [], [], [outside()])
    return helper.make_graph([helper.make_node("Loop", ["n"], ["seen"], body=inner)], "outer", [], [])


@pytest.mark.parametrize(
    "where",
    ["initializer", "sparse", "indices", "attribute", "tensors", "sub-graph", "function", "default", "training"],
)
def test_external_data_is_found_wherever_it_stands(
    where: str, make_graph: Callable[..., bytes], make_card: Callable[..., ModelCard], tmp_path: Path
) -> None:
    model = onnx.load_model_from_string(make_graph())
    assert list(external_tensors(model.SerializeToString())) == []
    place(model, where)
    with pytest.raises(BundleError, match=r"model.onnx: keeps the tensor 'kernel' in another file .*Export the model"):
        write_bundle(tmp_path / "bundle", make_card(), model.SerializeToString())


def test_one_hash_gives_one_answer_whatever_lies_in_the_current_directory(
    make_graph: Callable[..., bytes],
    make_card: Callable[..., ModelCard],
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = onnx.load_model_from_string(make_graph())
    kernel = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(kernel.raw_data)
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="weights.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"model.onnx: keeps the tensor 'kernel' in another file"):
        write_bundle(tmp_path / "bundle", make_card(), model.SerializeToString())


@pytest.mark.parametrize("place_too", [True, False])
def test_a_place_without_the_flag_and_a_flag_without_a_place_are_refused_too(place_too: bool) -> None:
    tensor = TensorProto(name="kernel", data_location=TensorProto.DEFAULT if place_too else TensorProto.EXTERNAL)
    if place_too:
        tensor.external_data.add(key="location", value="weights.bin")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    assert list(external_tensors(model.SerializeToString())) == ["kernel"]


def test_every_way_from_a_model_to_a_tensor_is_followed() -> None:
    for message, name in MESSAGES.items():
        found = {
            field.number: next(key for key, value in MESSAGES.items() if value == field.message_type.name)
            for field in getattr(onnx, name).DESCRIPTOR.fields
            if field.message_type is not None and field.message_type.name in MESSAGES.values()
        }
        assert _FIELDS[message] == found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no ONNX model"),
        (b"<?xml version='1.0'?><net/>", "type 4 of field 7"),  # OpenVINO's own format, which it tells by its content
        (b"\x08\x08", "no ONNX model"),
        (b"\x08\x08\x3a\x05", "cut short"),
        (b"\x08" + b"\xff" * 12, "cut short or no protocol buffer"),
    ],
)
def test_what_is_no_onnx_model_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        list(external_tensors(content))


def test_a_graph_nested_without_end_is_refused() -> None:
    def nested(tag: bytes, content: bytes) -> bytes:
        size = len(content)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        return tag + length + content

    graph = b""
    for _ in range(60):  # graph, node, attribute, graph
        graph = nested(b"\x32", graph)
        graph = nested(b"\x2a", graph)
        graph = nested(b"\x0a", graph)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        list(external_tensors(b"\x08\x08" + nested(b"\x3a", graph)))


@given(content=st.binary(max_size=200))
def test_bytes_without_sense_never_do_more_than_raise_a_value_error(content: bytes) -> None:
    with suppress(ValueError):
        list(external_tensors(content))


def test_the_default_model_is_whole() -> None:
    bundle = load_bundle()
    assert list(external_tensors(bundle.read_graph())) == []
