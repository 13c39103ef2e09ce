"""One round at the server, in the clear through a strategy or as a masked sum; and again where it was void."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flwr.app import Context
from flwr.serverapp import Grid

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.messages import CONFIG, SITES, Request, request_config, request_records
from hemoscope.federated.exchange.secure_vector import from_mean, length_of
from hemoscope.federated.server.checkpoints import RoundReport, RoundState, numbered
from hemoscope.federated.server.privacy import aggregate_private, check_budget, open_accountant, spent_epsilon
from hemoscope.federated.server.secure import MaskedMean, MaskSettings, masked_mean
from hemoscope.federated.server.strategies import RoundStrategy
from hemoscope.federated.settings.federation import Federation


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What stays the same over all rounds of a part.

    Attributes:
        federation: the settings.
        text: of the federation, as sites read it.
        part: name of the part.
        strategy: of ``strategies.make_strategy``; not asked where sums are masked.
    """

    federation: Federation
    text: str
    part: str
    strategy: RoundStrategy

    def request(self, state: RoundState, *, number: int, sites: int, final: bool = False) -> Request:
        """What a site is asked with these weights."""
        return Request(
            trained=state.trained,
            statistics=state.statistics,
            fixed=state.fixed,
            federation=self.text,
            part=self.part,
            number=number,
            rounds=self.federation.rounds,
            sites=sites,
            final=final,
        )


def run_round(run: RunContext, state: RoundState, grid: Grid, context: Context) -> tuple[RoundState, RoundReport]:
    """The round after ``state``: its weights and what happened; the weights as they were where it is void.

    Raises:
        BudgetSpentError: one more round would exceed the privacy budget.
    """
    number = state.number + 1
    if run.federation.secure_aggregation.enabled:
        return _masked_round(run, state, grid, context, number)
    config = request_config(
        federation=run.text, part=run.part, number=number, rounds=run.federation.rounds, sites=0, final=False
    )
    messages = run.strategy.configure(number, state, config, grid)
    for message in messages:
        message.content.config_records[CONFIG][SITES] = len(messages)  # known when they are chosen
        message.metadata.group_id = str(number)  # Flower's strategies leave it out; sites write it down
    replies = list(grid.send_and_receive(messages, timeout=run.federation.round_timeout)) if messages else []
    return run.strategy.aggregate(number, state, replies)


def _masked_round(
    run: RunContext, state: RoundState, grid: Grid, context: Context, number: int
) -> tuple[RoundState, RoundReport]:
    federation, started = run.federation, time.monotonic()
    state, nodes = _masked_sites(federation, state, grid)
    accountant = None
    if federation.privacy.enabled:
        accountant = open_accountant(federation, sites=len(state.sites), state=state.accountant)
        check_budget(federation, accountant, sites=len(state.sites))
    records = request_records(run.request(state, number=number, sites=len(nodes)))
    outcome = masked_mean(grid, context, nodes, records, _settings(federation, state), number=number)
    following, reason = _with_mean(federation, state, outcome, number=number)
    if following is not None and accountant is not None:
        trained = aggregate_private(following.trained, federation, accountant, sites=len(outcome.metrics))
        following = replace(following, trained=trained, accountant=accountant.state_dict())
    report = _report(state, nodes, outcome, number=number, reason=reason)
    epsilon = None if accountant is None else spent_epsilon(accountant)
    report = replace(report, epsilon=epsilon, seconds=round(time.monotonic() - started, 3))
    return state if following is None else following, report


def _masked_sites(federation: Federation, state: RoundState, grid: Grid) -> tuple[RoundState, list[int]]:
    """Who is asked, and the state that numbers them. With noise: those of the first release."""
    nodes = sorted(grid.get_node_ids())
    if federation.privacy.enabled and state.accountant is not None:
        return state, [node for node in nodes if str(node) in state.sites]
    sites = numbered(state.sites, nodes)
    if federation.privacy.enabled:
        sites = {str(node): sites[str(node)] for node in nodes}
    return replace(state, sites=sites), nodes


def _settings(federation: Federation, state: RoundState) -> MaskSettings:
    secure, clipping_range = federation.secure_aggregation, federation.clipping_norm
    assert clipping_range is not None  # with secure aggregation there always is one
    return MaskSettings(
        shares=secure.shares,
        threshold=secure.threshold,
        clipping_range=clipping_range,
        length=length_of(state.trained, state.statistics),
        max_weight=1.0 if federation.weighting == "uniform" else float(federation.limits.max_weight),
        timeout=federation.round_timeout,
    )


def _with_mean(
    federation: Federation, state: RoundState, outcome: MaskedMean, *, number: int
) -> tuple[RoundState | None, str]:
    """The state with a masked mean in it; None, and why, where the round is void."""
    least = len(state.sites) if federation.privacy.enabled else federation.min_sites  # epsilon counts on all sites
    if outcome.mean is None or len(outcome.metrics) < least:
        stayed = len(outcome.metrics)
        return None, f"{stayed} sites stayed to the end, {len(outcome.lost)} did not: no sum could be unmasked and used"
    assert federation.clipping_norm is not None
    try:
        trained, statistics = from_mean(
            outcome.mean, state.trained, state.statistics, clipping_range=federation.clipping_norm
        )
    except FederationError as error:
        return None, str(error)
    return replace(state, number=number, trained=trained, statistics=statistics), ""


def _report(state: RoundState, nodes: Sequence[int], outcome: MaskedMean, *, number: int, reason: str) -> RoundReport:
    site = {node: state.sites[str(node)] for node in nodes}
    return RoundReport(
        number=number,
        asked=tuple(sorted(site.values())),
        used=() if reason else tuple(sorted(site[node] for node in outcome.metrics)),
        refused={site[node]: reason for node, reason in outcome.lost.items() if reason},
        lost=tuple(sorted(site[node] for node, reason in outcome.lost.items() if not reason)),
        losses={site[node]: metrics["loss"] for node, metrics in outcome.metrics.items() if "loss" in metrics},
        void=bool(reason),
        reason=reason,
    )
