"""Exports a trained network to ONNX: raw scores and maps, for any batch size."""

import io

import onnx
import torch
from torch import Tensor, nn

from hemoscope.errors import TrainingError
from hemoscope.training.models.network import HemorrhageNetwork, reading_network

OPSET = 18


def onnx_graph(network: HemorrhageNetwork, *, channels: int, size: int, mirror: bool, embedding: bool = False) -> bytes:
    """Return the graph for serving.

    Input ``image`` (N, C, S, S); outputs ``logits`` (N, 6), ``maps`` (N, 6, h, w) and, on request, ``embedding``
    (N, E). N is free, S is ``size``. With ``mirror``, outputs are means over the image and its mirror image.

    Raises:
        TrainingError: the network's head does not accept this size.
    """
    if network.config.head == "flatten" and size != network.size:
        msg = f"the head flatten accepts only the training size {network.size}, got {size}. Remove reading.size"
        raise TrainingError(msg)
    names = ["logits", "maps", *(["embedding"] if embedding else [])]
    proto = traced(
        _Outputs(reading_network(network, mirror=mirror), count=len(names)).eval(),
        (torch.zeros(2, channels, size, size),),
        inputs=["image"],
        outputs=names,
        free={"image": {0: torch.export.Dim("batch")}},
    )
    stream = io.BytesIO()
    onnx.save_model(proto, stream)
    return stream.getvalue()


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
