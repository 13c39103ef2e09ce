"""Finds tensors of an ONNX graph whose values stand in another file, which no hash of the graph covers.

An engine reads such a file from wherever it happens to run. The base installation has no ONNX package, so the fields
are followed here: ONNX is a protocol buffer, whose wire format is a sequence of (field number, type, value)
(https://protobuf.dev/programming-guides/encoding/; the numbers are those of onnx.proto of ONNX IR 3 and later).
"""

from collections.abc import Iterator

# For each message, the fields that lead to tensors: field number to message.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_IR_VERSION, _GRAPH = 1, 7
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_DEEP = 100  # as in the parsers of protocol buffers


def external_tensors(graph: bytes) -> Iterator[str]:
    """Yield the name of each tensor, in the main graph, sub-graphs, attributes or functions, that keeps its values out.

    Raises:
        ValueError: the bytes are no ONNX model.
    """
    view = memoryview(graph)
    kinds = {(number, kind) for number, kind, _ in _fields(view)}
    if not {(_IR_VERSION, _VARINT), (_GRAPH, _BYTES)} <= kinds:
        msg = "it is no ONNX model"
        raise ValueError(msg)
    waiting = [("model", view, 0)]
    while waiting:
        message, content, depth = waiting.pop()
        if depth > _MOST_DEEP:
            msg = f"it is nested more than {_MOST_DEEP} deep"
            raise ValueError(msg)
        if message == "tensor":
            yield from _outside(content)
            continue
        for number, kind, value in _fields(content):
            if kind == _BYTES and (inner := _FIELDS[message].get(number)) is not None:
                waiting.append((inner, value, depth + 1))


def _outside(tensor: memoryview) -> Iterator[str]:
    """Yield the tensor's name if any of its fields points to another file, whatever the others say."""
    name, found = "without a name", False
    for number, kind, value in _fields(tensor):
        if number == _TENSOR_NAME and kind == _BYTES:
            name = bytes(value[:60]).decode("utf-8", "replace")
        found |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bytes(value) != b"\x00")
    if found:
        yield name


def _fields(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield number, type and value of each field; the value of a number is its bytes as encoded."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, end = _varint(content, place)
        elif kind == _BYTES:
            length, place = _varint(content, place)
            end = place + length
        elif kind in (_FIXED64, _FIXED32):
            end = place + (8 if kind == _FIXED64 else 4)
        else:
            msg = f"it is no protocol buffer (type {kind} of field {number})"
            raise ValueError(msg)
        if end > len(content):
            msg = "it is cut short"
            raise ValueError(msg)
        yield number, kind, content[place:end]
        place = end


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """Return a number of at most ten bytes, and the place after it."""
    found = 0
    for length, byte in enumerate(content[place : place + 10]):
        found |= (byte & 0x7F) << 7 * length
        if byte < 0x80:
            return found, place + length + 1
    msg = "it is cut short or no protocol buffer"
    raise ValueError(msg)
