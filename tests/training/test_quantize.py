"""A graph in int8 has the ports of the one in float32, scores nearly the same, and keeps the head in float."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hemoscope.errors import MissingExtraError, TrainingError
from hemoscope.inference.bundle import write_bundle
from hemoscope.inference.card import ModelCard
from hemoscope.inference.engine import Engine
from hemoscope.inference.precision import Precision
from hemoscope.inference.preprocess import Preprocessing
from hemoscope.training.models.export import onnx_graph
from hemoscope.training.models.network import HemorrhageNetwork, NetworkConfig
from hemoscope.training.quantize import quantized

SIZE = 64


@pytest.fixture(scope="module")
def graph() -> bytes:
    torch.manual_seed(0)
    config = NetworkConfig(backbone="test_efficientnet", width=8, pooled=4)
    network = HemorrhageNetwork(config, channels=3, size=SIZE).eval()
    return onnx_graph(network, channels=3, size=SIZE, mirror=False)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.random((12, 3, SIZE, SIZE), dtype=np.float32))


def test_it_scores_nearly_the_same_through_the_engine(
    graph: bytes, images: list[np.ndarray], tmp_path: Path, make_card: Callable[..., ModelCard]
) -> None:
    pytest.importorskip("nncf", reason="needs the extra: pip install 'hemoscope[quantize]'")
    int8 = quantized(graph, images)
    bundle = write_bundle(tmp_path / "b", make_card(preprocessing=Preprocessing(size=SIZE)), graph, int8=int8)
    exact = Engine(bundle, threads=1, precision=Precision.FLOAT32).run(images).logits
    reduced = Engine(bundle, threads=1, precision=Precision.INT8).run(images).logits
    assert (reduced != exact).any()
    assert reduced == pytest.approx(exact, abs=0.2)
    quantizing = [node for node in onnx.load_model_from_string(int8).graph.node if node.op_type == "QuantizeLinear"]
    assert quantizing
    assert not [node for node in quantizing if ".head." in node.input[0]]


def test_without_slices_it_says_what_to_give(graph: bytes) -> None:
    with pytest.raises(TrainingError, match="no slice to calibrate on"):
        quantized(graph, [])


def test_without_nncf_the_extra_is_named(
    graph: bytes, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match="quantize"):
        quantized(graph, images)
