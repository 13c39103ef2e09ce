"""What the thresholds of a study mean: how often they are right, and on whom that was measured, in sentences."""

from collections.abc import Iterator, Mapping
from typing import Any

from hemoscope.labels import LABELS, Hemorrhage

_METHODS = {
    "cross_fitted": "each decided by thresholds fitted on the other patients",
    "test_set": "the test set",
}


def threshold_words(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each established label, one for the urgent threshold, and one on unsure studies.

    Args:
        card: the model card's document (``card.json``).
    """
    return tuple(_sentences(card))


def _sentences(card: Mapping[str, Any]) -> Iterator[str]:
    points = card["operating_points"]
    for label in LABELS:
        if card["established"][label.value]:
            yield _sentence(label.display, points["study"][label.value])
    yield _sentence(f"Immediate ({Hemorrhage.ANY.display.lower()})", points["urgent"])
    if rule := card.get("unsure"):
        yield _unsure(next(one for one in rule["sets"] if one["alpha"] == rule["alpha"]))


def _unsure(sets: Mapping[str, Any]) -> str:
    name = Hemorrhage.ANY.display.lower()
    start = f"Unsure ({name}), from {sets['low']:.2f} to {sets['high']:.2f}"
    found = sets.get("performance")
    if not found:
        return f"{start}: the model card does not state how often"
    unsure, not_low, not_high = (_share(found[name]) for name in ("unsure", "not_low", "not_high"))
    return (
        f"{start}: {unsure} of the studies. Of those with hemorrhage, {not_low} lie in this range or above; of those "
        f"without, {not_high} in it or below; {_METHODS[found['method']]}"
    )


def _sentence(name: str, point: Mapping[str, Any]) -> str:
    start = f"{name}, threshold {point['threshold']:.2f}: "
    measured = point.get("performance")
    if measured and measured["sensitivity"] and measured["specificity"]:
        sensitivity, specificity = measured["sensitivity"], measured["specificity"]
        people = f"{sensitivity['patients']} patients with and {specificity['patients']} without"
        return (
            f"{start}sensitivity {_share(sensitivity)}, specificity {_share(specificity)}, "
            f"measured on {people}, {_METHODS[measured['method']]}"
        )
    if point.get("sensitivity") is None or point.get("specificity") is None:
        return f"{start}the model card states neither sensitivity nor specificity"
    rates = f"sensitivity {point['sensitivity']:.0%}, specificity {point['specificity']:.0%}"
    return f"{start}{rates}, in sample: expect lower values"


def _share(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.0%} (95% interval {found['low']:.0%} to {found['high']:.0%})"
