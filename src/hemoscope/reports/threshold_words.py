"""What the thresholds of a study mean: how often they are right, and on whom that was measured, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.messages.catalogue import Catalogue, english

_ANY = f"label-within.{Hemorrhage.ANY.value}"


def threshold_words(card: Mapping[str, Any], catalogue: Catalogue | None = None) -> tuple[str, ...]:
    """Return a sentence for each established label, one for the urgent threshold, and one on unsure studies.

    Args:
        card: the model card's document (``card.json``).
        catalogue: of the texts; without one, that which ships.
    """
    return tuple(_sentences(card, catalogue or english()))


def _sentences(card: Mapping[str, Any], texts: Catalogue) -> Iterator[str]:
    points = card["operating_points"]
    for label in LABELS:
        if card["established"][label.value]:
            yield _sentence(texts, texts.text(f"label.{label.value}"), points["study"][label.value])
    yield _sentence(texts, texts.text("report.immediate", label=texts.text(_ANY)), points["urgent"])
    if rule := card.get("unsure"):
        yield _unsure(texts, next(one for one in rule["sets"] if one["alpha"] == rule["alpha"]))


def _unsure(texts: Catalogue, sets: Mapping[str, Any]) -> str:
    where = {"label": texts.text(_ANY), "low": f"{sets['low']:.2f}", "high": f"{sets['high']:.2f}"}
    found = sets.get("performance")
    if not found:
        return texts.text("report.unsure-not-stated", **where)
    shares = {name: _share(texts, found[name]) for name in ("unsure", "not_low", "not_high")}
    return texts.text(f"report.unsure-{found['method']}", **where, **shares)


def _sentence(texts: Catalogue, name: str, point: Mapping[str, Any]) -> str:
    start = {"name": name, "threshold": f"{point['threshold']:.2f}"}
    measured = point.get("performance")
    if measured and measured["sensitivity"] and measured["specificity"]:
        sensitivity, specificity = measured["sensitivity"], measured["specificity"]
        return texts.text(
            f"report.threshold-{measured['method']}",
            **start,
            sensitivity=_share(texts, sensitivity),
            specificity=_share(texts, specificity),
            positive=sensitivity["patients"],
            negative=specificity["patients"],
        )
    if point.get("sensitivity") is None or point.get("specificity") is None:
        return texts.text("report.threshold-not-stated", **start)
    rates = {name: _percent(texts, point[name]) for name in ("sensitivity", "specificity")}
    return texts.text("report.threshold-in-sample", **start, **rates)


def _share(texts: Catalogue, found: Mapping[str, Any]) -> str:
    shown = {name: _percent(texts, found[name]) for name in ("value", "low", "high")}
    return texts.text("meaning.interval", number=shown["value"], low=shown["low"], high=shown["high"])


def _percent(texts: Catalogue, share: float) -> str:
    return texts.text("meaning.percent", value=f"{100 * share:.0f}")
