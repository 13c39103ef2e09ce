"""The sequence network starts from the slice network, ignores the rest of its batch, and exports exactly."""

import sys
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hemoscope.errors import ConfigError
from hemoscope.training.models.sequence import SequenceConfig, SequenceNetwork, sequence_graph

SIZE = 20


def made_network(*, layers: int = 1, seed: int = 0, **settings: Any) -> SequenceNetwork:
    """A network whose last layers are not zero any more."""
    torch.manual_seed(seed)
    network = SequenceNetwork(SequenceConfig(hidden=8, layers=layers, **settings), embedding_size=SIZE).eval()
    for layer in (network.correction, network.attention):
        torch.nn.init.normal_(layer.weight, std=0.5)
        torch.nn.init.normal_(layer.bias)
    return network


def made_series(slices: int, *, seed: int = 0, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, slices, SIZE, generator=draw) * 3, torch.randn(count, slices, 6, generator=draw) * 4


def test_an_untrained_network_gives_the_slices_back_and_a_study_within_their_range() -> None:
    network = SequenceNetwork(SequenceConfig(hidden=8), embedding_size=SIZE).eval()
    embeddings, logits = made_series(9)
    output = network(embeddings, logits)
    assert torch.equal(output.logits, logits)
    weights = torch.softmax(logits, dim=1)
    assert torch.allclose(output.study_logits, (weights * logits).sum(1))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 100), st.integers(1, 2))
def test_a_series_scores_the_same_whatever_its_batch_mates(lengths: list[int], seed: int, layers: int) -> None:
    network = made_network(layers=layers)
    embeddings, logits = made_series(max(lengths), seed=seed, count=len(lengths))
    whole = network(embeddings, logits, torch.tensor(lengths))
    for row, slices in enumerate(lengths):
        alone = network(embeddings[row : row + 1, :slices], logits[row : row + 1, :slices])
        assert torch.allclose(whole.logits[row, :slices], alone.logits[0], atol=1e-5)
        assert torch.allclose(whole.study_logits[row], alone.study_logits[0], atol=1e-5)


def test_each_slice_is_scored_in_the_context_of_all_others_in_both_directions() -> None:
    network = made_network()
    embeddings, logits = made_series(7)
    before = network(embeddings, logits).logits
    embeddings[0, 3] += 5 * torch.randn(SIZE, generator=torch.Generator().manual_seed(9))
    changed = (network(embeddings, logits).logits - before).abs().amax(dim=2)[0]
    assert (changed > 1e-6).all()


def test_a_study_score_never_leaves_the_range_of_its_slices() -> None:
    network = made_network(seed=5)
    output = network(*made_series(30, seed=5))
    assert (output.study_logits <= output.logits.amax(dim=1) + 1e-5).all()
    assert (output.study_logits >= output.logits.amin(dim=1) - 1e-5).all()


@pytest.fixture(scope="module")
def openvino() -> Any:
    """OpenVINO as the engine loads it."""
    for name in ("openvino_telemetry", "openvino.tools.ovc"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    return pytest.importorskip("openvino")


@pytest.mark.parametrize("layers", [1, 2])
def test_the_exported_graph_agrees_with_pytorch_at_every_length(openvino: Any, layers: int) -> None:
    network = made_network(layers=layers)
    model = openvino.Core().read_model(sequence_graph(network), b"")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for slices in (1, 7, 40, 240):
        embeddings, logits = made_series(slices, seed=slices)
        found = compiled({"embeddings": embeddings.numpy(), "logits": logits.numpy()})
        with torch.inference_mode():
            expected = network(embeddings, logits)
        assert np.abs(found["refined_logits"] - expected.logits.numpy()).max() < 1e-4
        assert np.abs(found["study_logits"] - expected.study_logits.numpy()).max() < 1e-4


def test_the_graph_is_the_same_bytes_for_the_same_weights_and_holds_no_notes() -> None:
    graph = sequence_graph(made_network())
    assert graph == sequence_graph(made_network())
    model = onnx.load_from_string(graph)
    assert [port.name for port in model.graph.input] == ["embeddings", "logits"]
    assert [port.name for port in model.graph.output] == ["refined_logits", "study_logits"]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


def test_dropout_acts_in_training_alone() -> None:
    network = made_network(dropout=0.5)
    series = made_series(6)
    assert torch.equal(network(*series).logits, network(*series).logits)
    network.train()
    assert not torch.equal(network(*series).logits, network(*series).logits)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "lstm"}, "kind must be gru, got lstm"),
        ({"study": "mean"}, "study must be sequence or study_rule, got mean"),
        ({"hidden": 0}, "must be at least 1, got"),
        ({"layers": 0}, "must be at least 1, got"),
        ({"batch_series": 0}, "must be at least 1, got"),
        ({"epochs": 0}, "must be at least 1, got"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, reverse at most 1, got \(1.0, 0.5\)"),
        ({"reverse": -0.1}, "dropout must be at least 0 and below 1, reverse at most 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay and views must not be negative, got -1.0 and 2"),
        ({"views": -1}, "weight_decay and views must not be negative"),
    ],
)
def test_settings_that_no_network_could_follow_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"sequence: .*{words}"):
        SequenceConfig(**settings)
