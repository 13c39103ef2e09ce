"""Secure aggregation at the server: Flower's SecAgg+ workflow, driven for one sum at a time.

Flower 1.41 offers SecAgg+ beside its older workflow API alone. So the round of ``server_app`` borrows the workflow for
as long as the protocol runs: a strategy of the older kind hands over which sites take part and takes the mean out, and
a grid around Flower's own puts our request into the one stage that trains, looks at each reply before the workflow
believes it, and notices who left. The server learns the weighted mean of the sites' vectors and nothing of one site but
that it took part.

A site that leaves after its keys were shared does not break the sum. One that leaves before would (its shares are in
nobody's hands, but the workflow asks for them), so then the protocol begins again with the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, FitRes, Parameters, Scalar, parameters_to_ndarrays
from flwr.serverapp import Grid
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.messages import refusal_of
from hemoscope.federated.exchange.secure_masks import strengthen_masks
from hemoscope.federated.flower_internals import (
    MAIN_CONFIGS_RECORD,
    MAIN_PARAMS_RECORD,
    RECORD_KEY_CONFIGS,
    ClientManager,
    ClientProxy,
    GridClientProxy,
    Key,
    LegacyContext,
    LegacyStrategy,
    SecAggPlusWorkflow,
    SimpleClientManager,
    Stage,
    WorkflowKey,
)
from hemoscope.federated.server.chosen_nodes import ChosenNodes
from hemoscope.federated.server.secure_replies import fault
from hemoscope.federated.settings.site_policy import MODULUS, STEPS

Floats = NDArray[np.float64]

_SHORT_STAGES = (Stage.SETUP, Stage.SHARE_KEYS)  # no training: who does not answer these soon is away
_SHORT = 300.0  # seconds
# What combining shares and loading keys of them raise where a site sent others than it was given.
_FALSE_SHARES = (ValueError, KeyError, TypeError, IndexError, AssertionError, OverflowError)
_FITINS = ("fitins.parameters", "fitins.config")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedMean:
    """What one run of the protocol gave.

    Attributes:
        mean: of the sites' vectors by their hidden weights, float64 (n,); None where too few stayed to unmask it.
        metrics: that each site in the mean sent in the clear, by node id.
        lost: node ids that left or refused, with their sentence where they gave one.
    """

    mean: Floats | None
    metrics: dict[int, dict[str, float]]
    lost: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings:
    """Numbers of the protocol.

    Attributes:
        shares: that each site's keys are split into.
        threshold: of shares that bring a key back.
        clipping_range: values are within plus and minus this.
        length: of each site's vector.
        max_weight: highest weight of a site.
        timeout: seconds for a stage that trains.
    """

    shares: int
    threshold: int
    clipping_range: float
    length: int
    max_weight: float
    timeout: float


def masked_mean(
    grid: Grid, context: Context, nodes: Sequence[int], request: RecordDict, settings: MaskSettings, *, number: int
) -> MaskedMean:
    """The weighted mean of vectors that no one but their sites sees.

    Args:
        grid: Flower's.
        context: of the server's run.
        nodes: node ids of the sites that are asked.
        request: what each of them is asked to train on.
        settings: of the protocol.
        number: of the round.
    """
    strengthen_masks()
    lost: dict[int, str] = {}
    left = list(nodes)
    while len(left) >= max(settings.shares, 2):
        staged = _StagedGrid(grid, request, settings, left)
        try:
            outcome = _run_protocol(staged, context, left, settings, number)
        except _LeftEarlyError:
            lost |= staged.lost
            left = [node for node in left if node not in lost]
            continue
        return MaskedMean(mean=outcome.mean, metrics=outcome.metrics, lost=lost | staged.lost)
    return MaskedMean(mean=None, metrics={}, lost=lost)


def _run_protocol(
    grid: "_StagedGrid", context: Context, nodes: Sequence[int], settings: MaskSettings, number: int
) -> "_MeanCollector":
    collector = _MeanCollector(nodes=tuple(nodes))
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(GridClientProxy(node_id=node, grid=grid, run_id=context.run_id))
    legacy = LegacyContext(context=context, strategy=collector, client_manager=manager)
    legacy.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: number})
    legacy.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
    workflow = SecAggPlusWorkflow(
        settings.shares,
        settings.threshold,
        max_weight=settings.max_weight,
        clipping_range=settings.clipping_range,
        quantization_range=STEPS,
        modulus_range=MODULUS,
        timeout=settings.timeout,
    )
    try:
        # The weights may sum to nothing; the mean is then not finite, and is not taken.
        with np.errstate(divide="ignore", invalid="ignore"):
            workflow(grid, legacy)
    except _FALSE_SHARES:
        collector.mean = None
    return collector


@dataclass(slots=True, kw_only=True)
class _MeanCollector(LegacyStrategy):
    """A strategy of Flower's older kind that only names the sites and takes the mean out."""

    nodes: tuple[int, ...]
    mean: Floats | None = None
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        del client_manager
        return None

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        del server_round, parameters
        proxies = client_manager.all()
        return [(proxies[str(node)], FitIns(Parameters([], "numpy.ndarray"), {})) for node in self.nodes]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        del server_round, failures
        if results:
            (mean,) = parameters_to_ndarrays(results[0][1].parameters)  # the same in each result
            self.mean = np.asarray(mean, dtype=np.float64) if np.isfinite(mean).all() else None
        self.metrics = {
            int(proxy.cid): {name: float(value) for name, value in result.metrics.items()} for proxy, result in results
        }
        return None, {}

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, Any]]:
        del server_round, parameters, client_manager
        return []

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> tuple[None, dict[str, Scalar]]:
        del server_round, results, failures
        return None, {}

    def evaluate(self, server_round: int, parameters: Parameters) -> None:
        del server_round, parameters


class _LeftEarlyError(FederationError):
    """A site left before all shares were handed out."""


class _StagedGrid(ChosenNodes):
    """Flower's grid for the workflow: our request in the stage that trains, and no reply unchecked."""

    def __init__(self, grid: Grid, request: RecordDict, settings: MaskSettings, nodes: Iterable[int]) -> None:
        super().__init__(grid, nodes)
        self._request = request
        self._settings = settings
        self.lost: dict[int, str] = {}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's, with whoever did not answer well left out."""
        del timeout  # the workflow knows one for all stages
        asked = list(messages)
        if not asked:
            return []
        stage = str(asked[0].content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
        limit = min(self._settings.timeout, _SHORT if stage in _SHORT_STAGES else self._settings.timeout)
        for message in asked:
            message.metadata.ttl = limit  # who comes back later must not find work of a round that is over
            if stage == Stage.COLLECT_MASKED_VECTORS:
                self._fill(message.content)
        nodes = {message.metadata.dst_node_id for message in asked}
        good = {}
        for reply in self._grid.send_and_receive(asked, timeout=limit):
            node = reply.metadata.src_node_id
            if node not in nodes:
                continue
            if reply.has_error():
                self.lost[node] = refusal_of(reply)
            elif reason := fault(stage, reply.content, set(self._nodes), self._settings.length):
                self.lost[node] = reason
            else:
                good[node] = reply
        for node in nodes - good.keys():
            self.lost.setdefault(node, "")
        if stage in _SHORT_STAGES and len(good) < len(nodes):
            msg = f"{len(nodes) - len(good)} of {len(nodes)} sites left before all keys were shared"
            raise _LeftEarlyError(msg)
        return list(good.values())

    def _fill(self, content: RecordDict) -> None:
        for name in _FITINS:
            del content[name]
        for name, record in self._request.items():
            content[name] = record
