"""Replies of a round without secure aggregation: refused, clipped, and checked for anomalies."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Error, Message, RecordDict

from hemoscope.errors import FederationError
from hemoscope.federated.exchange import messages
from hemoscope.federated.exchange.update_checks import (
    UpdateFacts,
    agreement,
    check_statistics,
    check_update,
    clipped,
    suspicion,
)
from hemoscope.federated.exchange.weights import Arrays
from hemoscope.federated.flower_internals import ErrorCode
from hemoscope.federated.server.checkpoints import RoundState
from hemoscope.federated.settings.federation import Federation

_GONE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
_OURS = (ErrorCode.MOD_FAILED_PRECONDITION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)  # codes that our client replies with
_LONGEST_SENTENCE = 300
_CLIPPING_SLACK = 1.01  # a site that clips, in float32, is not reported for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientUpdate:
    """What a site sent and passed the checks.

    Attributes:
        site: its number.
        trained: its weights after the round.
        statistics: its batch statistics, where they are shared.
        facts: of its update; the weight is 1 where all count alike.
    """

    site: int
    trained: Arrays
    statistics: Arrays
    facts: UpdateFacts


def sort_replies(
    federation: Federation, state: RoundState, nodes: Mapping[int, int], replies: Iterable[Message]
) -> tuple[list[ClientUpdate], dict[int, str]]:
    """Updates that may be averaged, by site number, and sites that were refused, with the reason.

    Whom nobody asked, and second replies, do not count. Who is gone (Flower says so in its stead) is in neither.

    Args:
        federation: its limits and weighting.
        state: that the round began with.
        nodes: site numbers by Flower's node id.
        replies: as they came.
    """
    updates: dict[int, ClientUpdate] = {}
    refused: dict[int, str] = {}
    for reply in replies:
        site = nodes.get(reply.metadata.src_node_id)
        if site is None or site in updates or site in refused:
            continue
        if reply.has_error():
            if reply.error.code not in _GONE:
                refused[site] = _sentence(reply.error)
            continue
        try:
            updates[site] = _accept(federation, state, site, reply.content)
        except FederationError as error:
            refused[site] = str(error)
    return [updates[site] for site in sorted(updates)], refused


def find_anomalies(
    federation: Federation, state: RoundState, updates: Sequence[ClientUpdate], *, last: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    """Anomalies of accepted updates by site number: see ``updates.suspicion``; and who did not clip.

    Args:
        federation: its clipping norm.
        state: that the round began with.
        updates: of all sites.
        last: names of the last layer, whose updates are compared.
    """
    steps = [{name: update.trained[name] - state.trained[name] for name in last} for update in updates]
    cosines = agreement(steps)
    anomalies = suspicion(
        {update.site: replace(update.facts, cosine=cosine) for update, cosine in zip(updates, cosines, strict=True)}
    )
    norm = federation.clipping_norm
    for update in updates:
        if norm is not None and update.facts.norm > norm * _CLIPPING_SLACK:
            reason = f"it did not clip: norm {update.facts.norm:.4g} above {norm:g}, shortened at the server"
            anomalies[update.site] = (*anomalies.get(update.site, ()), reason)
    return anomalies


def clip_updates(federation: Federation, state: RoundState, updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
    """Updates that are no longer than privacy counts on, whatever the sites did."""
    norm = federation.clipping_norm
    if norm is None:
        return list(updates)
    return [replace(update, trained=clipped(update.trained, state.trained, norm)) for update in updates]


def _accept(federation: Federation, state: RoundState, site: int, content: RecordDict) -> ClientUpdate:
    """One site's update. Raises FederationError where it must not be averaged."""
    reply, limits = messages.parse_train(content), federation.limits
    facts = check_update(
        reply.trained,
        state.trained,
        # With privacy every site counts, and a long update is shortened.
        max_norm=math.inf if federation.privacy.enabled else limits.max_norm,
        weight=reply.weight,
        max_weight=limits.max_weight,
    )
    check_statistics(reply.statistics, state.statistics)
    weight = 1.0 if federation.weighting == "uniform" else facts.weight
    facts = replace(facts, weight=weight, loss=reply.loss)
    # In the server's order: Flower's strategies go by the place of an array, not by its name.
    trained = {name: reply.trained[name] for name in state.trained}
    statistics = {name: reply.statistics[name] for name in state.statistics}
    return ClientUpdate(site=site, trained=trained, statistics=statistics, facts=facts)


def _sentence(error: Error) -> str:
    """Why a site took no part. Our own client sends fixed sentences; what Flower says of others may name a path."""
    if error.code not in _OURS or not error.reason:
        return f"the site could not take part (code {error.code}). Its own log says why"
    return "".join(letter if letter.isprintable() else "?" for letter in error.reason[:_LONGEST_SENTENCE])
