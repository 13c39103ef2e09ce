"""What sites answered to a round in the clear: who is refused and why, who is odd, and updates within their bounds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flwr.app import Error, Message, RecordDict

from hemoscope.errors import FederationError
from hemoscope.federated.exchange import messages
from hemoscope.federated.exchange.updates import (
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
_OURS = (ErrorCode.MOD_FAILED_PRECONDITION, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)  # codes that our client answers with
_LONGEST_SENTENCE = 300
_CLIPPING_SLACK = 1.01  # a site that clips, in float32, is not told off for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
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


def sort_answers(
    federation: Federation, state: RoundState, nodes: Mapping[int, int], replies: Iterable[Message]
) -> tuple[list[Answer], dict[int, str]]:
    """Answers that may be averaged, by site number, and sites that were refused, with the reason.

    Whom nobody asked, and second answers, do not count. Who is gone (Flower says so in its stead) is in neither.

    Args:
        federation: its limits and weighting.
        state: that the round began with.
        nodes: site numbers by Flower's node id.
        replies: as they came.
    """
    answers: dict[int, Answer] = {}
    refused: dict[int, str] = {}
    for reply in replies:
        site = nodes.get(reply.metadata.src_node_id)
        if site is None or site in answers or site in refused:
            continue
        if reply.has_error():
            if reply.error.code not in _GONE:
                refused[site] = _sentence(reply.error)
            continue
        try:
            answers[site] = _accept(federation, state, site, reply.content)
        except FederationError as error:
            refused[site] = str(error)
    return [answers[site] for site in sorted(answers)], refused


def oddities(
    federation: Federation, state: RoundState, answers: Sequence[Answer], *, last: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    """What is odd about answers that may be averaged, by site: see ``updates.suspicion``; and who did not clip.

    Args:
        federation: its clipping norm.
        state: that the round began with.
        answers: of all sites.
        last: names of the last layer, whose updates are compared.
    """
    steps = [{name: answer.trained[name] - state.trained[name] for name in last} for answer in answers]
    cosines = agreement(steps)
    odd = suspicion(
        {answer.site: replace(answer.facts, cosine=cosine) for answer, cosine in zip(answers, cosines, strict=True)}
    )
    norm = federation.clipping_norm
    for answer in answers:
        if norm is not None and answer.facts.norm > norm * _CLIPPING_SLACK:
            reason = f"it did not clip: norm {answer.facts.norm:.4g} above {norm:g}, shortened at the server"
            odd[answer.site] = (*odd.get(answer.site, ()), reason)
    return odd


def bounded(federation: Federation, state: RoundState, answers: Sequence[Answer]) -> list[Answer]:
    """Answers whose updates are no longer than privacy counts on, whatever the sites did."""
    norm = federation.clipping_norm
    if norm is None:
        return list(answers)
    return [replace(answer, trained=clipped(answer.trained, state.trained, norm)) for answer in answers]


def _accept(federation: Federation, state: RoundState, site: int, content: RecordDict) -> Answer:
    """One site's answer. Raises FederationError where it must not be averaged."""
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
    return Answer(site=site, trained=reply.trained, statistics=reply.statistics, facts=facts)


def _sentence(error: Error) -> str:
    """Why a site took no part. Our own client sends fixed sentences; what Flower says of others may name a path."""
    if error.code not in _OURS or not error.reason:
        return f"the site could not take part (code {error.code}). Its own log says why"
    return "".join(letter if letter.isprintable() else "?" for letter in error.reason[:_LONGEST_SENTENCE])
