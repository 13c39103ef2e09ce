"""The sequence network: the slices of a whole series, read together. What won RSNA 2019, made simple.

The slice network sees one slice (and its neighbours). A bidirectional GRU (Cho et al. 2014) then runs over what it said
of every slice, so that each slice is judged beside all the others, and a weighted mean of the slices is the study. The
first places of the RSNA 2019 challenge were won this way.
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
    """What the sequence network is made of, and how it is trained on the embeddings of a finished slice network.

    Attributes:
        kind: ``gru``, the only one.
        hidden: width of the GRU, each way.
        layers: of the GRU.
        dropout: part of the embedding and of the GRU's output that is dropped in training.
        study: where the study's scores come from: ``sequence`` (the network's own weighted mean) or ``study_rule``
            (the card's rule over the refined slices).
        epochs: passes over the series.
        batch_series: series a step.
        learning_rate: highest of one cycle, with AdamW.
        weight_decay: of AdamW.
        views: augmented copies of every series, beside the plain one and its two mirrored halves.
        reverse: probability that a series is read from head to feet in training.
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
        """Reject what no network could be built from or trained with."""
        _check(self.kind in get_args(Kind), f"kind must be {' or '.join(get_args(Kind))}, got {self.kind}")
        _check(
            self.study in get_args(StudyScores), f"study must be {' or '.join(get_args(StudyScores))}, got {self.study}"
        )
        counts = (self.hidden, self.layers, self.epochs, self.batch_series)
        _check(min(counts) >= 1, f"hidden, layers, epochs and batch_series must be at least 1, got {counts}")
        shares = (self.dropout, self.reverse)
        _check(
            0 <= self.dropout < 1 and 0 <= self.reverse <= 1, f"dropout and reverse must be parts of one, got {shares}"
        )
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

    The slice scores are the given ones plus a correction, whose last layer starts at zero: training starts at the
    slice network and cannot begin worse. The study's score of a label is a mean of its refined slice scores, weighted
    by the softmax of these scores plus a learned attention (zero at first): a smooth maximum that neither grows with
    the number of slices nor leaves their range. Another direction of the slices is another input, but training turns
    series round at random, so that the result changes little.
    """

    def __init__(self, config: SequenceConfig, *, embedding_size: int) -> None:
        """Build with random weights."""
        super().__init__()
        self.config = config
        self.embedding_size = embedding_size
        hidden = config.hidden
        # Layer norm, not batch norm: what a series scores must not depend on its batch mates.
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
        """Read padded series.

        Args:
            embeddings: (N, T, D).
            logits: (N, T, 6).
            lengths: (N,) of int64, at least 1: slices of each series, the rest is padding, which changes nothing and
                whose refined scores mean nothing. None: no padding.
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
        """The GRU over (N, T, hidden); packing keeps the backward pass from starting in the padding."""
        if lengths is None:
            context: Tensor = self.gru(features)[0]
            return context
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=features.shape[1])[0]


def sequence_graph(sequence: SequenceNetwork) -> bytes:
    """The graph of serving, in ONNX.

    Inputs ``embeddings`` (1, T, D) and ``logits`` (1, T, 6), outputs ``refined_logits`` (1, T, 6) and ``study_logits``
    (1, 6), T free. Written node by node: PyTorch's exporter traces a GRU for ten seconds and warns all the while.
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
    """The tensors of a graph as it grows."""

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
    """One layer, both ways: (T, N, in) to (T, N, 2 x hidden), named ``context_`` and the layer's number."""
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
    """PyTorch stacks reset, update and new gates; ONNX wants update, reset, new."""
    reset, update, new = stacked.chunk(3)
    return torch.cat([update, reset, new])


def _port(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _check(fine: bool, reason: str) -> None:
    if not fine:
        msg = f"sequence: {reason}"
        raise ConfigError(msg)
