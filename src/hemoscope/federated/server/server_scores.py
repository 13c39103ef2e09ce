"""The sites' scores at the server: histograms asked for, checked, pooled and written; no row is ever here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.histograms import ScoreHistograms, parse_histograms
from hemoscope.federated.exchange.messages import (
    EVALUATE,
    SLICES,
    STUDIES,
    VALIDATION_SLICES,
    VALIDATION_STUDIES,
    Request,
    parse_scores,
    refusal_of,
    request_records,
)
from hemoscope.federated.exchange.pooled import pool
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.training.run_folder import write_json

HISTOGRAMS = "histograms.json"
_SETS = {"score": (SLICES, STUDIES), "validation": (VALIDATION_SLICES, VALIDATION_STUDIES)}
_LEVELS = {SLICES: "slice", STUDIES: "patient", VALIDATION_SLICES: "slice", VALIDATION_STUDIES: "patient"}

SiteScores = dict[str, ScoreHistograms]


def ask_scores(
    grid: Grid, nodes: Sequence[int], request: Request, *, timeout: float
) -> tuple[dict[int, SiteScores], dict[int, str]]:
    """Have sites score what they hold out.

    Returns:
        Histograms by node id and what they are of; and, of sites that sent none, the reason as far as it is known.
    """
    content = request_records(request)
    group = str(request.number)
    messages = [
        Message(content, dst_node_id=node, message_type=EVALUATE, group_id=group, ttl=timeout) for node in nodes
    ]
    found: dict[int, SiteScores] = {}
    refused: dict[int, str] = dict.fromkeys(nodes, "no answer in time")
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node = reply.metadata.src_node_id
        if node not in refused:
            continue
        if reply.has_error():
            refused[node] = refusal_of(reply) or refused[node]
            continue
        try:
            found[node] = _checked(parse_scores(reply.content))
            del refused[node]
        except FederationError as error:
            refused[node] = str(error)
    return found, refused


def write_histograms(path: Path, sites: Sequence[SiteScores]) -> None:
    """Write every site's histograms: ``score`` and ``validation``, in each a list of ``slices`` and ``studies``."""
    record: dict[str, list[dict[str, Any]]] = {}
    for name, (slices, studies) in _SETS.items():
        reported = [site for site in sites if slices in site and studies in site]
        record[name] = [
            {SLICES: json.loads(site[slices].to_json()), STUDIES: json.loads(site[studies].to_json())}
            for site in reported
        ]
    write_json(path, record)


def pooled_auroc(sites: Sequence[SiteScores]) -> dict[str, dict[str, Any]]:
    """Each label's pooled AUROC with its exact bounds, of slices and of studies, as the log of rounds has them."""
    found: dict[str, dict[str, Any]] = {}
    for name in (SLICES, STUDIES):
        reported = [site[name] for site in sites if name in site]
        if reported:
            pooled = pool(reported)
            bounds = {label.value: pooled.auroc(label) for label in LABELS}
            found[name] = {
                label: {"value": round(bound.value, 4), "low": round(bound.low, 4), "high": round(bound.high, 4)}
                for label, bound in bounds.items()
                if bound is not None
            }
    return found


def below_chance(sites: Mapping[int, SiteScores]) -> dict[int, tuple[str, ...]]:
    """Sites whose slices the model ranks worse than chance, beyond what chance explains, in words by site number.

    It is the sign of flipped labels that secure aggregation leaves: a site's histograms are in the clear.
    """
    found: dict[int, tuple[str, ...]] = {}
    for site, scores in sites.items():
        interval = pool([scores[SLICES]]).interval(Hemorrhage.ANY) if SLICES in scores else None
        if interval is not None and interval.high < 0.5:
            bound = f"AUROC {interval.value:.2f}, at most {interval.high:.2f}"
            found[site] = (f"the model is below chance there ({bound}): are its labels flipped?",)
    return found


def _checked(texts: Mapping[str, str]) -> SiteScores:
    """Histograms of the levels that they are named for. Raises FederationError for any other."""
    found = {name: parse_histograms(text) for name, text in texts.items()}
    wrong = [name for name, histograms in found.items() if histograms.level != _LEVELS[name]]
    if wrong:
        msg = f"a site sent {wrong[0]} of the level {found[wrong[0]].level}. Update hemoscope there"
        raise FederationError(msg)
    return found
