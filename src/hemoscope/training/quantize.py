"""The graph of a network in int8: NNCF's quantization after training, calibrated on slices that it was trained on.

Convolutions that change scores most, or gain nothing, stay in float: the first one, which sees the windows' steps,
depthwise ones, which OpenVINO computes in float32 anyway, and the head, whose maps are the result.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.inference.engine import INPUT, refuse_telemetry
from hemoscope.inference.preprocess import Preprocessing, model_input

SLICES = 300
_HEAD = ".head."  # in the names of its weights


def quantized(graph: bytes, inputs: Collection[NDArray[np.float32]]) -> bytes:
    """Return a graph in int8 with the ports of ``graph``.

    Args:
        graph: ONNX in float32.
        inputs: model inputs to calibrate on, each (channels, size, size).

    Raises:
        MissingExtraError: NNCF is not installed.
        TrainingError: there is no input.
    """
    if not inputs:
        msg = "there is no slice to calibrate on. Give the cache that the run was trained on"
        raise TrainingError(msg)
    nncf = _nncf()
    model = onnx.load_model_from_string(graph)
    found: onnx.ModelProto = nncf.quantize(
        model,
        nncf.Dataset([{INPUT: image[np.newaxis]} for image in inputs]),
        subset_size=len(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        ignored_scope=nncf.IgnoredScope(names=list(_in_float(model.graph)), validate=False),
    )
    return bytes(found.SerializeToString())


def calibration_inputs(
    cache: Cache, image_ids: Collection[str], preprocessing: Preprocessing, *, slices: int = SLICES
) -> list[NDArray[np.float32]]:
    """Return model inputs of so many of the images, spread evenly over the series."""
    manifest = cache.manifest[cache.manifest["image_id"].isin(set(image_ids))].sort_values(["series_id", "index"])
    chosen = manifest.iloc[np.unique(np.linspace(0, len(manifest) - 1, min(slices, len(manifest))).astype(int))]
    found = list[NDArray[np.float32]]()
    for name, members in chosen.groupby("series_id", sort=True):
        volume = cache.read_series(str(name)).volume.canonical
        found += [model_input(volume, int(index), preprocessing) for index in members["index"]]
    return found


def _in_float(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of the convolutions that are not quantized."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        groups = next((one.i for one in node.attribute if one.name == "group"), 1)
        weight = node.input[1]
        first = groups == 1 and shapes[weight][1] == channels
        if first or groups > 1 or _HEAD in weight:
            yield node.name


def _nncf() -> Any:
    """Import NNCF, without the telemetry that it would send."""
    refuse_telemetry()
    try:
        import nncf
        import onnxruntime  # noqa: F401  # NNCF calibrates ONNX graphs with it
    except ModuleNotFoundError as error:
        raise MissingExtraError(package=error.name or "nncf", extra="quantize") from error
    return nncf
