"""The tiny model of the tests: six linear functions of three window means, as a graph, a card and a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hemoscope.inference.bundle import ModelBundle
    from hemoscope.inference.card import ModelCard

# It sees windows as three means (brain, subdural, bone): one row a label, one column a channel, then bias.
TINY_WEIGHTS = np.array(
    [
        [6.0, 4.0, -8.0, -1.0],
        [1.0, 7.0, -3.0, -2.0],
        [5.0, 1.0, -6.0, -1.5],
        [2.0, 2.0, 2.0, -3.0],
        [-1.0, 6.0, 1.0, -2.5],
        [3.0, -2.0, 4.0, -0.5],
    ],
    dtype=np.float32,
)
TINY_SIZE = 32


def tiny_graph(
    *,
    weights: np.ndarray = TINY_WEIGHTS,
    input_name: str = "image",
    logits_name: str = "logits",
    maps_name: str = "maps",
) -> bytes:
    """The tiny model in ONNX. Maps are a 1x1 convolution of 8-pixel means; logits are their means."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    channels, labels = weights.shape[1] - 1, weights.shape[0]
    kernel = numpy_helper.from_array(np.ascontiguousarray(weights[:, :-1, None, None]), "kernel")
    bias = numpy_helper.from_array(np.ascontiguousarray(weights[:, -1]), "bias")
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        helper.make_node("AveragePool", [input_name], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["means", "kernel", "bias"], [maps_name]),
        helper.make_node("ReduceMean", [maps_name, "axes"], [logits_name], keepdims=0),
    ]
    image = helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["n", channels, None, None])
    outputs = [
        helper.make_tensor_value_info(logits_name, TensorProto.FLOAT, ["n", labels]),
        helper.make_tensor_value_info(maps_name, TensorProto.FLOAT, ["n", labels, None, None]),
    ]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, [kernel, bias, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tiny_card(**changes: Any) -> "ModelCard":
    """A valid card for the tiny model, with the fields given replaced."""
    from hemoscope.inference.calibration import Calibration, OperatingPoint, StudyRule
    from hemoscope.inference.card import (
        CalibrationTable,
        Estimate,
        LabelScore,
        ModelCard,
        OperatingPointTable,
        ScoreTable,
        TrainingData,
    )
    from hemoscope.inference.preprocess import Preprocessing
    from hemoscope.labels import PerLabel

    calibration = PerLabel.build(lambda label: Calibration(scale=1.5, bias=-0.25))
    point = PerLabel.build(lambda label: OperatingPoint(threshold=0.5, rule="fixed"))
    score = LabelScore(
        auroc=Estimate(value=0.9, low=0.8, high=0.95),
        average_precision=None,
        ece=None,
        n_positive=3,
        n_positive_patients=2,
        reason="too few positives for an average precision",
    )
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0",
        "preprocessing": Preprocessing(size=TINY_SIZE),
        "calibration": CalibrationTable(slice=calibration, study=calibration),
        "study_rule": StudyRule(),
        "operating_points": OperatingPointTable(
            slice=point, study=point, urgent=OperatingPoint(threshold=0.9, rule="specificity 0.99")
        ),
        "established": PerLabel.build(lambda label: True),
        "training_data": (
            TrainingData(
                name="phantoms", version="1", doi="none", license="Apache-2.0", attribution="us", changes="none"
            ),
        ),
        "scores": (
            ScoreTable(
                name="phantoms",
                description="made up",
                level="slice",
                n_images=10,
                n_patients=5,
                labels=PerLabel.build(lambda label: score),
            ),
        ),
        "limits_of_use": ("For tests alone.",),
        "description": "Six linear functions of three window means.",
        "disclaimer": "Not a medical device.",
        "files": {},
    }
    return ModelCard(**{**fields, **changes})


def write_tiny_bundle(folder: Path) -> "ModelBundle":
    """Write the tiny model as a bundle."""
    from hemoscope.inference.bundle import write_bundle

    return write_bundle(folder, tiny_card(), tiny_graph())
