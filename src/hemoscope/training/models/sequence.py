"""The sequence network: scores all slices of a series together. A simple form of the RSNA 2019 winners' method.

The slice network sees one slice (and its neighbours). A bidirectional GRU (Cho et al. 2014) then runs over its outputs
for all slices, so that each slice is scored in the context of the others; a weighted mean of the slices gives the study
score. The winners of the RSNA 2019 challenge worked this way.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hemoscope.errors import ConfigError
from hemoscope.labels import LABELS
from hemoscope.training.models.export import OPSET

Kind = Literal["gru"]
StudyScores = Literal["sequence", "study_rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceConfig:
    """Architecture of the sequence network, and its training on the embeddings of a finished slice network.

    Attributes:
        kind: ``gru``, the only one.
        hidden: width of the GRU in each direction.
        layers: of the GRU.
        dropout: dropout rate of the embedding and of the GRU's output in training.
        study: source of the study scores: ``sequence`` (the network's own weighted mean) or ``study_rule`` (the card's
            rule over the refined slices).
        epochs: passes over the series.
        batch_series: series per step.
        learning_rate: maximum of the one-cycle schedule, with AdamW.
        weight_decay: of AdamW.
        views: augmented views of every series, besides the served view and its two components.
        reverse: probability that a series is reversed (head to feet) in training.
    """

    kind: Kind = "gru"
    hidden: int = 96
    layers: int = 1
    dropout: float = 0.3
    study: StudyScores = "sequence"
    epochs: int = 30
    batch_series: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    views: int = 2
    reverse: float = 0.5

    def __post_init__(self) -> None:
        """Reject settings that cannot be built or trained."""
        _check(self.kind in get_args(Kind), f"kind must be {' or '.join(get_args(Kind))}, got {self.kind}")
        _check(
            self.study in get_args(StudyScores), f"study must be {' or '.join(get_args(StudyScores))}, got {self.study}"
        )
        counts = (self.hidden, self.layers, self.epochs, self.batch_series)
        _check(min(counts) >= 1, f"hidden, layers, epochs and batch_series must be at least 1, got {counts}")
        shares = (self.dropout, self.reverse)
        valid = 0 <= self.dropout < 1 and 0 <= self.reverse <= 1
        _check(valid, f"dropout must be at least 0 and below 1, reverse at most 1, got {shares}")
        _check(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        _check(
            self.weight_decay >= 0 and self.views >= 0,
            f"weight_decay and views must not be negative, got {self.weight_decay} and {self.views}",
        )


class SequenceOutput(NamedTuple):
    """Refined slice scores (N, T, 6) and study scores (N, 6), raw, in label order."""

    logits: Tensor
    study_logits: Tensor


class SequenceNetwork(nn.Module):
    """Embeddings (N, T, D) and slice logits (N, T, 6) of series, slices from feet to head; see ``SequenceOutput``.

    The slice scores are the given ones plus a correction whose last layer is initialised to zero, so training starts
    from the slice network's scores. The study score of a label is a mean of its refined slice scores, weighted by the
    softmax of these scores plus a learned attention (initially zero): a smooth maximum that neither grows with the
    number of slices nor leaves their range. The result depends little on the direction of the slices, because training
    reverses series at random.
    """

    def __init__(self, config: SequenceConfig, *, embedding_size: int) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = config
        self.embedding_size = embedding_size
        hidden = config.hidden
        # Layer norm, not batch norm: a series' scores must not depend on the rest of its batch.
        self.norm = nn.LayerNorm(embedding_size)
        self.project = nn.Linear(embedding_size + len(LABELS), hidden)
        self.gru = nn.GRU(hidden, hidden, config.layers, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.correction = nn.Linear(2 * hidden, len(LABELS))
        self.attention = nn.Linear(2 * hidden, len(LABELS))
        for layer in (self.correction, self.attention):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, embeddings: Tensor, logits: Tensor, lengths: Tensor | None = None) -> SequenceOutput:
        """Score padded series.

        Args:
            embeddings: (N, T, D).
            logits: (N, T, 6).
            lengths: (N,) of int64, at least 1: slices of each series; the rest is padding, which affects no slice and
                whose refined scores are meaningless. None: no padding.
        """
        joined = torch.cat([self.dropout(self.norm(embeddings)), logits], dim=2)
        context = self.dropout(self._context(torch.relu(self.project(joined)), lengths))
        refined = logits + self.correction(context)
        weights = refined + self.attention(context)
        if lengths is not None:
            padding = torch.arange(weights.shape[1], device=weights.device) >= lengths.to(weights.device)[:, None]
            weights = weights.masked_fill(padding[:, :, None], float("-inf"))
        return SequenceOutput(refined, (torch.softmax(weights, dim=1) * refined).sum(dim=1))

    def _context(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        """Apply the GRU to (N, T, hidden); packing keeps the backward direction from starting in the padding."""
        if lengths is None:
            context: Tensor = self.gru(features)[0]
            return context
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=features.shape[1])[0]


def sequence_graph(sequence: SequenceNetwork) -> bytes:
    """Return the ONNX graph for serving.

    Inputs ``embeddings`` (1, T, D) and ``logits`` (1, T, 6), outputs ``refined_logits`` (1, T, 6) and ``study_logits``
    (1, 6), T free. Built node by node: PyTorch's exporter takes ten seconds to trace a GRU and emits warnings.
    """
    weights = _Weights()
    nodes = [
        helper.make_node(
            "LayerNormalization",
            ["embeddings", *weights.add("norm", sequence.norm.weight, sequence.norm.bias)],
            ["normal"],
            axis=-1,
            epsilon=sequence.norm.eps,
        ),
        helper.make_node("Concat", ["normal", "logits"], ["joined"], axis=2),
        *_linear(weights, "project", sequence.project, "joined", "projected"),
        helper.make_node("Relu", ["projected"], ["features"]),
        helper.make_node("Transpose", ["features"], ["context_0"], perm=[1, 0, 2]),
        *(node for layer in range(sequence.config.layers) for node in _gru(weights, sequence.gru, layer)),
        helper.make_node("Transpose", [f"context_{sequence.config.layers}"], ["context"], perm=[1, 0, 2]),
        *_linear(weights, "correction", sequence.correction, "context", "corrected"),
        helper.make_node("Add", ["logits", "corrected"], ["refined_logits"]),
        *_linear(weights, "attention", sequence.attention, "context", "attended"),
        helper.make_node("Add", ["refined_logits", "attended"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=1),
        helper.make_node("Mul", ["weights", "refined_logits"], ["parts"]),
        helper.make_node("ReduceSum", ["parts", *weights.add_whole("axis", [1])], ["study_logits"], keepdims=0),
    ]
    inputs = [_port("embeddings", [1, "slices", sequence.embedding_size]), _port("logits", [1, "slices", len(LABELS)])]
    outputs = [_port("refined_logits", [1, "slices", len(LABELS)]), _port("study_logits", [1, len(LABELS)])]
    graph = helper.make_graph(nodes, "sequence", inputs, outputs, weights.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Weights:
    """The tensors of a graph under construction."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []

    def add(self, name: str, *tensors: Tensor) -> list[str]:
        return [self._append(f"{name}_{i}", t.detach().cpu().float().numpy()) for i, t in enumerate(tensors)]

    def add_whole(self, name: str, values: list[int]) -> list[str]:
        return [self._append(name, np.array(values, dtype=np.int64))]

    def _append(self, name: str, array: NDArray[np.float32] | NDArray[np.int64]) -> str:
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def _linear(weights: _Weights, name: str, layer: nn.Linear, source: str, target: str) -> list[onnx.NodeProto]:
    weight, bias = weights.add(name, layer.weight.T, layer.bias)
    return [
        helper.make_node("MatMul", [source, weight], [f"{name}_product"]),
        helper.make_node("Add", [f"{name}_product", bias], [target]),
    ]


def _gru(weights: _Weights, gru: nn.GRU, layer: int) -> list[onnx.NodeProto]:
    """One bidirectional layer: (T, N, in) to (T, N, 2 x hidden), named ``context_`` and the layer's number."""
    ways = [f"l{layer}", f"l{layer}_reverse"]
    given, state = (torch.stack([_gates(getattr(gru, f"weight_{part}_{way}")) for way in ways]) for part in _PARTS)
    biases = [torch.cat([_gates(getattr(gru, f"bias_{part}_{way}")) for part in _PARTS]) for way in ways]
    named = weights.add(f"gru_{layer}", given, state, torch.stack(biases))
    shape = weights.add_whole(f"shape_{layer}", [0, 0, -1])
    return [
        helper.make_node(
            "GRU",
            [f"context_{layer}", *named],
            [f"both_{layer}"],
            direction="bidirectional",
            hidden_size=gru.hidden_size,
            linear_before_reset=1,
        ),
        helper.make_node("Transpose", [f"both_{layer}"], [f"beside_{layer}"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"beside_{layer}", *shape], [f"context_{layer + 1}"]),
    ]


_PARTS = ("ih", "hh")


def _gates(stacked: Tensor) -> Tensor:
    """Reorder the gates: PyTorch stacks reset, update, new; ONNX expects update, reset, new."""
    reset, update, new = stacked.chunk(3)
    return torch.cat([update, reset, new])


def _port(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _check(fine: bool, reason: str) -> None:
    if not fine:
        msg = f"sequence: {reason}"
        raise ConfigError(msg)
