"""Settings of the node that are each allowed and contradict each other, or those of the reading room."""

from collections import Counter
from collections.abc import Iterator

from hemoscope.store.node_settings import NodeSettings
from hemoscope.store.settings import Settings


def contradictions(node: NodeSettings, site: Settings) -> Iterator[str]:
    """Yield what contradicts, and what follows from it."""
    missed = missed_urgencies(node)
    if missed is not None:
        yield missed
    yield from _of_times(node)
    yield from _of_places(node, site)
    days = site.retention_days
    if days is None:
        return
    for one in node.destinations:
        if one.keep_days > days:
            yield (
                f"keep_days of {one.name} is {one.keep_days:g}, and studies are deleted after {days} days: "
                "results that were not delivered are kept longer than their study, with identity"
            )
    if node.destinations and node.results.resend_days > days:
        yield (
            f"resend_days is {node.results.resend_days:g}, and studies are deleted after {days} days: "
            "results are kept longer than their study, with identity"
        )


def missed_urgencies(node: NodeSettings) -> str | None:
    """Return what a webhook misses that lists ``prompt`` without ``unsure``, with a model that can be unsure.

    A rule for unsure studies takes some of those that were prompt before.
    """
    listed = () if node.webhook is None else node.webhook.urgencies
    if "prompt" not in listed or "unsure" in listed:
        return None
    return (
        "urgencies of [webhook] has prompt and lacks unsure: a model with a rule for unsure studies, such as the "
        'default one, calls some of them unsure that were prompt. Add "unsure", or the webhook is not notified of them'
    )


def _of_times(node: NodeSettings) -> Iterator[str]:
    late_s = 60 * node.node.late_minutes
    if late_s <= node.node.quiet_seconds:
        yield "late_minutes is no longer than quiet_seconds: images that come late are read as a study of their own"
    if node.destinations and node.results.hold_incomplete_seconds > late_s:
        yield "hold_incomplete_seconds is longer than late_minutes: results wait for images that are not awaited"


def _of_places(node: NodeSettings, site: Settings) -> Iterator[str]:
    if node.destinations and site.deidentify:
        yield "deidentify forbids destinations: hemoscope serve does not start with this file"
    places = Counter((one.ae_title, one.host, one.port) for one in node.destinations)
    for (title, host, port), count in places.items():
        if count > 1:
            yield f"{count} destinations are {title} at {host}, port {port}: it gets each object {count} times"
