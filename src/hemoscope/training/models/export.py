"""Exports a trained network to ONNX: raw scores and maps, for any batch size."""

import io
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hemoscope.errors import TrainingError
from hemoscope.training.models.network import AveragedNetworks, HemorrhageNetwork, reading_network

OPSET = 18

_FEW = 256  # smaller tensors, such as biases, stay float32


def onnx_graph(
    network: HemorrhageNetwork,
    *,
    channels: int,
    size: int,
    mirror: bool,
    embedding: bool = False,
    others: Sequence[HemorrhageNetwork] = (),
) -> bytes:
    """Return the graph for serving.

    Input ``image`` (N, C, S, S); outputs ``logits`` (N, 6), ``maps`` (N, 6, h, w) and, on request, ``embedding``
    (N, E). N is free, S is ``size``. With ``mirror``, outputs are means over the image and its mirror image. With
    ``others``, networks of the same architecture, they are means over all networks.

    Raises:
        TrainingError: the network's head does not accept this size.
    """
    if network.config.head == "flatten" and size != network.size:
        msg = f"the head flatten accepts only the training size {network.size}, got {size}. Remove reading.size"
        raise TrainingError(msg)
    whole = AveragedNetworks([network, *others]) if others else network
    names = ["logits", "maps", *(["embedding"] if embedding else [])]
    proto = traced(
        _Outputs(reading_network(whole, mirror=mirror), count=len(names)).eval(),
        (torch.zeros(2, channels, size, size),),
        inputs=["image"],
        outputs=names,
        free={"image": {0: torch.export.Dim("batch")}},
    )
    stream = io.BytesIO()
    onnx.save_model(proto, stream)
    return stream.getvalue()


def with_half_weights(graph: bytes) -> bytes:
    """Return a graph whose weights are stored as float16; it computes in float32.

    The engines convert the weights once, when they compile the graph.

    Raises:
        TrainingError: a weight is too large for float16.
    """
    proto = onnx.load_from_string(graph)
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _FEW:
            continue
        values = numpy_helper.to_array(tensor)
        if (largest := abs(values).max()) > np.finfo(np.float16).max:
            msg = f"the weight {tensor.name} holds {largest:g}, too large for float16. Export without --half-weights"
            raise TrainingError(msg)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return bytes(proto.SerializeToString())


def traced(
    model: nn.Module,
    example: tuple[Tensor, ...],
    *,
    inputs: list[str],
    outputs: list[str],
    free: dict[str, dict[int, torch.export.Dim]],
) -> onnx.ModelProto:
    """Trace a module into an ONNX graph without metadata; ``free`` names the axes of any length."""
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        opset_version=OPSET,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=free,
        verbose=False,
    )
    assert program is not None
    program.optimize()
    proto = program.model_proto
    _strip_notes(proto)
    return proto


class _Outputs(nn.Module):
    """A network's first ``count`` outputs; the others are not computed."""

    def __init__(self, network: nn.Module, *, count: int) -> None:
        super().__init__()
        self.network = network
        self.count = count

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(image))[: self.count]


def _strip_notes(proto: onnx.ModelProto) -> None:
    """Remove the exporter's metadata: its stack traces contain paths of the training machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
