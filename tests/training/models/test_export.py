"""The exported graph gives the same probabilities and maps in the serving engine as PyTorch, the reference."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from hemoscope.errors import TrainingError
from hemoscope.inference.bundle import ModelBundle, write_bundle
from hemoscope.inference.calibration import sigmoid
from hemoscope.inference.engine import Engine, RawScores
from hemoscope.inference.preprocess import Preprocessing, model_input
from hemoscope.labels import LABELS, SUBTYPES
from hemoscope.testing.phantom import make_phantom
from hemoscope.training.models.checkpoint import load_imagenet
from hemoscope.training.models.export import OPSET, onnx_graph, with_half_weights
from hemoscope.training.models.network import Head, HemorrhageNetwork, MirroredNetwork, NetworkConfig, Output

PREPROCESSING = Preprocessing(size=96)


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    """Slices as the model sees them: heads with and without bleeds, and air."""
    phantoms = [make_phantom(seed=s, shape=(3, 96, 96), bleeds=frozenset(SUBTYPES[:s])) for s in range(4)]
    inputs = [model_input(phantom.volume, index, PREPROCESSING) for phantom in phantoms for index in range(3)]
    return np.stack([*inputs, np.zeros_like(inputs[0]), np.ones_like(inputs[0])])


@pytest.fixture(scope="module")
def network(images: NDArray[np.float32]) -> HemorrhageNetwork:
    """The default network with ImageNet weights, and a head whose scores lie around 0 and spread by 2."""
    torch.manual_seed(4)
    network = HemorrhageNetwork(NetworkConfig(), channels=PREPROCESSING.channels, size=PREPROCESSING.size).eval()
    load_imagenet(network)
    last = network.head.maps
    with torch.no_grad():
        logits = network(torch.from_numpy(images)).logits
        factor = 2 / logits.std(dim=0)
        last.weight *= factor[:, None, None, None]
        last.bias.copy_((last.bias - logits.median(dim=0).values) * factor)  # type: ignore[union-attr, operator]
    return network


@pytest.fixture(scope="module")
def graph(network: HemorrhageNetwork) -> bytes:
    return onnx_graph(network, channels=PREPROCESSING.channels, size=PREPROCESSING.size, mirror=True)


@pytest.fixture(scope="module")
def bundle(graph: bytes, make_card: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    card = make_card(preprocessing=PREPROCESSING)
    return write_bundle(tmp_path_factory.mktemp("export") / "bundle", card, graph)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def served(bundle: ModelBundle, images: NDArray[np.float32]) -> RawScores:
    """What the engine says at its default precision."""
    return Engine(bundle, threads=1).run(images, maps=True)


@pytest.fixture(scope="module")
def trained(network: HemorrhageNetwork, images: NDArray[np.float32]) -> Output:
    """What PyTorch says."""
    with torch.inference_mode():
        output: Output = MirroredNetwork(network).eval()(torch.from_numpy(images))
    return output


def test_probabilities_agree_with_pytorch_within_a_ten_thousandth(served: RawScores, trained: Output) -> None:
    expected = torch.sigmoid(trained.logits.double()).numpy()
    assert expected.std() > 0.2  # else anything would agree
    assert abs(sigmoid(served.logits.astype(np.float64)) - expected).max() < 1e-4
    assert abs(served.logits - trained.logits.numpy()).max() < 1e-3


def test_heat_maps_agree_with_pytorch(served: RawScores, trained: Output) -> None:
    assert served.maps is not None
    assert served.maps.shape == (14, len(LABELS), 12, 12)
    assert abs(served.maps - trained.maps.numpy()).max() < 1e-3


def test_the_graph_gives_a_slice_and_its_mirror_image_equal_scores(
    bundle: ModelBundle, images: NDArray[np.float32], served: RawScores
) -> None:
    mirrored = Engine(bundle, threads=1).run(np.ascontiguousarray(images[..., ::-1]), maps=True)
    assert abs(mirrored.logits - served.logits).max() < 1e-4
    assert mirrored.maps is not None
    assert served.maps is not None
    assert abs(mirrored.maps[..., ::-1] - served.maps).max() < 1e-3


def test_a_score_is_pooled_from_the_map_of_its_label(served: RawScores) -> None:
    """The map of either look gives its score; the mean map of both can only come lower."""
    assert served.maps is not None
    highest = np.sort(served.maps.reshape(len(served.maps), len(LABELS), -1), axis=2)[:, :, -8:].mean(axis=2)
    assert (highest <= served.logits + 1e-4).all()
    assert np.corrcoef(highest.ravel(), served.logits.ravel())[0, 1] > 0.5


def test_the_graph_takes_any_number_of_slices_at_once(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        port.name: [dim.dim_param or dim.dim_value for dim in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": ["batch", 3, 96, 96], "logits": ["batch", 6], "maps": ["batch", 6, 12, 12]}
    assert [opset.version for opset in model.opset_import] == [OPSET]


def test_the_graph_names_no_file_of_the_machine_that_trained(graph: bytes) -> None:
    """The exporter notes a stack trace at every node."""
    assert not re.findall(rb"[\w./\\-]+\.py\b", graph)
    assert str(Path.cwd()).encode() not in graph
    assert b"stack_trace" not in graph


def test_exporting_leaves_the_network_in_evaluation_with_its_weights(network: HemorrhageNetwork, graph: bytes) -> None:
    assert not network.training
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("head", get_args(Head))
@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "convnext_atto", "efficientnet_b0")),
    ],
)
def test_every_head_answers_in_openvino_as_in_pytorch(
    head: Head, backbone: str, mirror: bool, make_card: Callable[..., object], tmp_path: Path
) -> None:
    torch.manual_seed(6)
    config = NetworkConfig(backbone=backbone, head=head, width=8, hidden=32, normalization="published")
    network = HemorrhageNetwork(config, channels=3, size=64)
    images = torch.rand(3, 3, 64, 64)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics of the one batch that follows, or features fade from layer to layer
    with torch.no_grad():
        both = torch.cat([images, images.flip(3)])
        network.train()(both)
        factor = 2 / network.eval()(both).maps.abs().amax((0, 2, 3))
        last = network.head.maps if head == "maps" else network.head.classifier
        last.weight *= factor.reshape(-1, *[1] * (last.weight.ndim - 1))
        expected = (MirroredNetwork(network) if mirror else network).eval()(images)
    card = make_card(preprocessing=Preprocessing(size=64))
    graph = onnx_graph(network, channels=3, size=64, mirror=mirror)
    bundle = write_bundle(tmp_path / "bundle", card, graph)  # type: ignore[arg-type]
    found = Engine(bundle, threads=1).run(images.numpy(), maps=True)
    assert found.maps is not None
    assert expected.maps.abs().max() > 0.5
    assert abs(found.logits - expected.logits.numpy()).max() < 1e-4
    assert abs(found.maps - expected.maps.numpy()).max() < 1e-4


def test_the_embedding_is_an_output_where_it_is_requested(graph: bytes) -> None:
    network = HemorrhageNetwork(NetworkConfig(backbone="test_resnet", head="pooled"), channels=3, size=64)
    model = onnx.load_from_string(onnx_graph(network, channels=3, size=64, mirror=True, embedding=True))
    outputs = {
        port.name: [dim.dim_param or dim.dim_value for dim in port.type.tensor_type.shape.dim]
        for port in model.graph.output
    }
    assert outputs == {"logits": ["batch", 6], "maps": ["batch", 6, 2, 2], "embedding": ["batch", 96]}
    assert [port.name for port in onnx.load_from_string(graph).graph.output] == ["logits", "maps"]


def test_the_flattened_head_reads_at_no_other_size_than_it_was_trained() -> None:
    network = HemorrhageNetwork(NetworkConfig(backbone="resnet18", head="flatten"), channels=3, size=64)
    with pytest.raises(TrainingError, match=r"accepts only the training size 64, got 96\. Remove reading\.size"):
        onnx_graph(network, channels=3, size=96, mirror=False)


def test_a_weight_that_float16_cannot_hold_is_refused_and_named() -> None:
    weights = numpy_helper.from_array(np.full((16, 32), 1e5, np.float32), "weights")
    graph = onnx.helper.make_graph([], "one", [], [], [weights])
    with pytest.raises(TrainingError, match="the weight weights holds 100000, too large for float16"):
        with_half_weights(onnx.helper.make_model(graph).SerializeToString())
