"""A trained network out as ONNX: raw scores and maps of the mirrored network, any batch size."""

import io

import onnx
import torch

from hemoscope.models.network import HemorrhageNetwork, MirroredNetwork

OPSET = 18


def onnx_graph(network: HemorrhageNetwork, *, channels: int, size: int) -> bytes:
    """The graph of serving: input ``image`` (N, C, S, S), outputs ``logits`` (N, 6) and ``maps`` (N, 6, h, w)."""
    model = MirroredNetwork(network).eval()
    example = torch.zeros(2, channels, size, size)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits", "maps"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    assert program is not None
    program.optimize()
    proto = program.model_proto
    _strip_notes(proto)
    stream = io.BytesIO()
    onnx.save_model(proto, stream)
    return stream.getvalue()


def _strip_notes(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold stack traces with the paths of the machine that trained."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
