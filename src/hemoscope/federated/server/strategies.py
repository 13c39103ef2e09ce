"""One round at the server: who is asked, which replies count, and how they become one model, by Flower's strategies.

Trained parameters go through Flower's message strategies (``flwr.serverapp.strategy``): FedAvg, FedProx, FedAdam,
FedTrimmedAvg or FedMedian, with noise around the first two where there is privacy. Batch statistics never do: they are
averaged by a FedAvg of their own beside FedAvg, FedProx and FedAdam; under
trimmed mean and median they go through the same class, so that a poisoned site moves neither.

A robust strategy needs three replies at least, and trimmed mean leaves out at least one at each end (Flower's would
round a share of 0.25 among three sites to nobody, and be a plain mean).
"""

import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, RdpAccountant
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, FedProx, FedTrimmedAvg

from hemoscope.errors import FederationError
from hemoscope.federated.exchange import messages
from hemoscope.federated.exchange.update_checks import last_layer
from hemoscope.federated.exchange.weights import Arrays, Exchange
from hemoscope.federated.server import privacy
from hemoscope.federated.server.checkpoints import RoundReport, RoundState, numbered
from hemoscope.federated.server.chosen_nodes import ChosenNodes
from hemoscope.federated.server.client_replies import ClientUpdate, clip_updates, find_anomalies, sort_replies
from hemoscope.federated.settings.federation import Federation

__all__ = ["ROBUST_LEAST", "RoundReport", "RoundStrategy", "make_strategy"]

ROBUST_LEAST = 3  # replies: of two, neither is the outlier
_KEYS: dict[str, Any] = {"weighted_by_key": messages.WEIGHT, "arrayrecord_key": messages.ARRAYS}
_MOMENTS = ("m_t", "v_t")  # Flower's names of what FedAdam remembers


def make_strategy(federation: Federation, exchange: Exchange, *, sites: int | None = None) -> "RoundStrategy":
    """A federation's rounds at the server.

    Args:
        federation: its settings.
        exchange: what travels.
        sites: how many there are: differential privacy counts on all of them in every round. None takes as many as
            took part before or, in the first round, as are connected.
    """
    return RoundStrategy(federation, exchange, sites=sites)


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A round that is under way."""

    nodes: dict[int, int]  # site numbers by node id
    strategy: Any
    flower: FedAvg
    accountant: RdpAccountant | None = None
    began: float = field(default_factory=time.monotonic)


class RoundStrategy:
    """Rounds of one part: ``configure``, send and wait, ``aggregate``. All that lasts is in the ``RoundState``."""

    def __init__(self, federation: Federation, exchange: Exchange, *, sites: int | None) -> None:
        """See ``make_strategy``."""
        self._federation = federation
        self._exchange = exchange
        self._sites = sites
        self._numbers: dict[str, int] = {}
        self._asked: _Asked | None = None
        self._tries: dict[int, int] = {}

    def configure(self, number: int, state: RoundState, config: ConfigRecord, grid: Grid) -> list[Message]:
        """Choose the sites of a round and make their messages.

        Which sites is decided by the federation's name, the experiment's seed, the round's number and how often it was
        tried, among the nodes that are connected, so a resumed server asks the same.

        Args:
            number: of the round, from 1.
            state: after the round before.
            config: for the sites; Flower adds ``server-round`` and what its strategy has to say.
            grid: asked for its nodes.

        Returns:
            One message a site, valid as long as the round may take; none where too few sites are connected, and then
            ``aggregate`` finds the round void.

        Raises:
            BudgetSpentError: the round would exceed the highest epsilon.
            FederationError: ``state`` cannot be carried on.
        """
        chosen = self._choose(number, state, grid)
        flower = self._flower(state, len(chosen))
        self._asked = asked = _Asked(nodes=chosen, strategy=flower, flower=flower)
        if not chosen:
            return []
        if self._federation.privacy.enabled:
            asked.accountant = privacy.open_accountant(self._federation, sites=len(chosen), state=state.accountant)
            asked.strategy = privacy.noisy(flower, self._federation, asked.accountant, sites=len(chosen))
        arrays, nodes = messages.pack_each(state.trained), ChosenNodes(grid, chosen)
        try:
            made = asked.strategy.configure_train(number, arrays, ConfigRecord(dict(config)), nodes)
        except privacy.PrivacyBudgetExhausted as error:
            assert asked.accountant is not None
            raise privacy.budget_spent(self._federation, asked.accountant) from error
        packed = {
            messages.ARRAYS: messages.pack(state.trained),
            messages.STATISTICS: messages.pack(state.statistics),
            messages.FIXED: messages.pack(state.fixed),
        }
        return [self._complete(message, packed) for message in made]

    def aggregate(self, number: int, state: RoundState, replies: Iterable[Message]) -> tuple[RoundState, RoundReport]:
        """Make the next state of the replies, or none: a void round returns ``state`` itself.

        Args:
            number: of the round that was configured last.
            state: that it was configured with.
            replies: what came back in time; who did not answer is lost.

        Raises:
            FederationError: no round was configured.
        """
        if self._asked is None:
            msg = f"round {number} was not configured. Call configure first, once for each aggregate"
            raise FederationError(msg)
        asked, self._asked = self._asked, None
        updates, refused = sort_replies(self._federation, state, asked.nodes, replies)
        anomalies = find_anomalies(self._federation, state, updates, last=last_layer(self._exchange.trained))
        report = RoundReport(
            number=number,
            asked=tuple(sorted(asked.nodes.values())),
            refused=refused,
            lost=tuple(sorted(set(asked.nodes.values()) - {update.site for update in updates} - refused.keys())),
            suspicious=anomalies,
            losses={update.site: update.facts.loss for update in updates if update.facts.loss is not None},
            norms={update.site: update.facts.norm for update in updates},
        )
        updates = clip_updates(self._federation, state, updates)
        reason = self._too_few(asked, updates)
        trained = None if reason else self._mean(number, asked, updates)
        if trained is None:
            reason = reason or "Flower's strategy made nothing of the updates"
        elif not all(np.isfinite(value).all() for value in trained.values()):
            reason = "the new weights are not finite. Lower strategy.server_learning_rate or the learning rate"
        spent = None if asked.accountant is None else privacy.spent_epsilon(asked.accountant)
        report = replace(report, seconds=round(time.monotonic() - asked.began, 3), epsilon=spent)
        if reason or trained is None:
            return state, replace(report, void=True, reason=reason)
        used = tuple(update.site for update in updates)
        return self._next(number, state, asked, trained, updates), replace(report, used=used)

    def _choose(self, number: int, state: RoundState, grid: Grid) -> dict[int, int]:
        """Site numbers of those to ask, by node id; none where they are too few."""
        connected = list(grid.get_node_ids())
        self._numbers = numbered({**self._numbers, **state.sites}, connected)
        nodes = sorted((self._numbers[str(node)], node) for node in connected)
        least = self._federation.min_sites
        if self._federation.privacy.enabled:
            count = self._sites or _accounted(state) or max(len(state.sites), least, len(nodes))
        else:
            count = max(math.ceil(self._federation.fraction * len(nodes) - 1e-9), least)
        if len(nodes) < max(count, least):
            return {}
        self._tries[number] = self._tries.get(number, 0) + 1
        words = (self._federation.name, self._federation.experiment.run.seed, number, self._tries[number])
        drawn = random.Random("/".join(map(str, words))).sample(nodes, count)  # noqa: S311  (no secret)
        if self._federation.privacy.enabled:
            drawn = nodes[:count]  # nobody by chance, and those that were there first
        return {node: site for site, node in sorted(drawn)}

    def _flower(self, state: RoundState, sites: int) -> FedAvg:
        """Flower's strategy as the round before left it; it asks everybody that ``ChosenNodes`` shows it."""
        chosen = self._federation.strategy
        every: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1, **_KEYS}
        if chosen.name == "fedprox":
            return FedProx(**every, proximal_mu=chosen.proximal)
        if chosen.name == "median":
            return FedMedian(**every)
        if chosen.name == "trimmed-mean":
            return FedTrimmedAvg(**every, beta=_trim(chosen.trim, sites))
        if chosen.name == "fedavg":
            return FedAvg(**every)
        adam = FedAdam(
            **every,
            eta=chosen.server_learning_rate,
            beta_1=chosen.beta_1,
            beta_2=chosen.beta_2,
            tau=chosen.tau,
        )
        adam.m_t, adam.v_t = (state.strategy.get(name) for name in _MOMENTS)
        return adam

    def _complete(self, message: Message, packed: Mapping[str, ArrayRecord]) -> Message:
        for name, values in packed.items():
            message.content[name] = values
        message.metadata.ttl = self._federation.round_timeout  # nobody trains for a round that is over
        return message

    def _too_few(self, asked: _Asked, updates: Sequence[ClientUpdate]) -> str:
        """Why no mean can be made; empty where one can."""
        needed = max(self._federation.min_sites, ROBUST_LEAST if self._federation.strategy.robust else 1)
        if asked.accountant is not None:
            needed = len(asked.nodes)  # epsilon counts on all of them
        if not asked.nodes:
            return "fewer sites are connected than a round needs"
        if len(updates) < needed:
            return f"{len(updates)} usable replies, and {needed} are needed"
        if not sum(update.facts.weight for update in updates) > 0:
            return f"all sites have the weight 0. Choose another weighting than {self._federation.weighting}"
        return ""

    def _mean(self, number: int, asked: _Asked, updates: Sequence[ClientUpdate]) -> Arrays | None:
        """Flower's aggregate of the trained parameters, with noise where there is privacy."""
        if isinstance(asked.flower, FedTrimmedAvg):
            asked.flower.beta = _trim(self._federation.strategy.trim, len(updates))
        if asked.accountant is not None:
            privacy.seed_noise()
        found, _ = asked.strategy.aggregate_train(number, [_message(update, update.trained) for update in updates])
        return None if found is None else _unpacked(found)

    def _next(
        self, number: int, state: RoundState, asked: _Asked, trained: Arrays, updates: Sequence[ClientUpdate]
    ) -> RoundState:
        moments = {name: getattr(asked.flower, name, None) for name in _MOMENTS}
        return replace(
            state,
            number=number,
            trained={name: trained[name] for name in self._exchange.trained},
            statistics=self._mean_statistics(number, asked, updates),
            strategy={name: value for name, value in moments.items() if value is not None},
            accountant=None if asked.accountant is None else asked.accountant.state_dict(),
            sites=dict(self._numbers),
        )

    def _mean_statistics(self, number: int, asked: _Asked, updates: Sequence[ClientUpdate]) -> Arrays:
        if not self._exchange.statistics:
            return {}
        robust = self._federation.strategy.robust
        strategy = asked.flower if robust else FedAvg(**_KEYS)
        found, _ = strategy.aggregate_train(number, [_message(update, update.statistics) for update in updates])
        assert found is not None, "of the same updates"
        return _unpacked(found)


def _trim(share: float, sites: int) -> float:
    """The share to leave out at each end, so that it is one site at least, of three or more."""
    return share if sites < ROBUST_LEAST else max(share, (1 + 1e-9) / sites)


def _accounted(state: RoundState) -> int:
    """How many sites the epsilon that was spent so far is counted for; 0 before the first release."""
    return int((state.accountant or {}).get("config", {}).get("population_size", 0))


def _message(update: ClientUpdate, arrays: Arrays) -> Message:
    """An answer as Flower's strategies take it: one record of arrays, one of the weight."""
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
        messages.ARRAYS: messages.pack_each(arrays),
        messages.METRICS: MetricRecord({messages.WEIGHT: update.facts.weight}),
    }
    return Message(RecordDict(records), dst_node_id=0, message_type="train")


def _unpacked(record: ArrayRecord) -> Arrays:
    """As float32: Flower's arithmetic may widen (FedAdam's factor is a float64). Too large becomes infinite."""
    with np.errstate(over="ignore"):
        return {name: array.numpy().astype(np.float32) for name, array in record.items()}
