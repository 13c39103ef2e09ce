"""What a site sends is looked at before it is averaged: refused if it cannot be right, flagged if it is an anomaly.

An update is what a site's training changed: its weights less those that the round began with.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.weights import Arrays, check_array, check_names

# Flags only: they never decide what is averaged.
FAR_NORM, FAR_LOSS, FAR_WEIGHT = 3.0, 1.75, 10.0  # times the median of the other sites
# Cosine of the last layers' updates. Measured on CT-ICH in four sites (64 pixels, 3 rounds of one epoch): 0.69 to 0.95
# between honest sites; -0.83 to -0.36 for a site with flipped labels, beside which the others kept 0.41 to 0.73. Its
# loss was 2.0 to 2.4 times theirs. Over all layers all are near 0: deep features have many ways to become better.
AGAINST = -0.1
# A refusal: means that moved by more than so many deviations, or variances by so many times themselves. Honest ones of
# an ImageNet network that first sees CT moved by less than 10.
MOST_STATISTICS_CHANGE = 1e3
_LEAST_VARIANCE = 1e-3  # channels that are always off have variances near 0, and any change of them would look vast
_NOWHERE = 1e-6  # length of a mean of unit vectors that cancel each other


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFacts:
    """What is known of a site's update.

    Attributes:
        norm: L2 norm over all trained parameters.
        weight: that the site claims.
        loss: of its training, where it says so.
        cosine: of the angle between its last layer's update and the mean direction of the others'; see ``agreement``.
    """

    norm: float
    weight: float
    loss: float | None = None
    cosine: float | None = None


def check_update(
    new: Mapping[str, NDArray[np.float32]], before: Arrays, *, max_norm: float, weight: float, max_weight: float
) -> UpdateFacts:
    """Refuse what must not be averaged.

    Args:
        new: a site's trained parameters after its round.
        before: the same as the round began.
        max_norm: highest L2 norm of the difference.
        weight: that the site claims for the mean.
        max_weight: highest that it may claim.

    Raises:
        FederationError: names, shapes or kinds differ from ``before``, a value is not finite, the difference is longer
            than ``max_norm``, or the weight is not 0 to ``max_weight``.
    """
    _check_arrays(new, before)
    if not (math.isfinite(weight) and 0 <= weight <= max_weight):
        msg = f"the weight is {weight:g}, not 0 to {max_weight:g}. Raise limits.max_weight if the site is that large"
        raise FederationError(msg)
    norm = l2_norm(_difference(new, before))
    if not norm <= max_norm:  # nor not a number
        msg = f"the update's norm is {norm:.4g}, above {max_norm:g}. If it is honest, raise limits.max_norm"
        raise FederationError(msg)
    return UpdateFacts(norm=norm, weight=weight)


def check_statistics(new: Mapping[str, NDArray[np.float32]], before: Arrays) -> None:
    """Refuse batch statistics that must not be averaged.

    Raises:
        FederationError: as ``check_update``, a variance is negative, or a change is out of all proportion.
    """
    _check_arrays(new, before)
    for name, change in scaled_statistics(new, before).items():
        furthest = float(np.abs(change).max(initial=0.0))
        if furthest > MOST_STATISTICS_CHANGE:
            msg = f"{name} moved by {furthest:.3g} times its scale. Is that site's input scaled as here?"
            raise FederationError(msg)


def l2_norm(update: Mapping[str, NDArray[np.floating]] | Iterator[NDArray[np.floating]]) -> float:
    """L2 norm over all arrays together, in double precision."""
    arrays = update.values() if isinstance(update, Mapping) else update
    return math.sqrt(sum(_dot(array, array) for array in arrays))


def clipped(new: Mapping[str, NDArray[np.float32]], before: Arrays, norm: float) -> Arrays:
    """Weights whose difference from ``before`` is ``new``'s, shortened to the norm where it is longer.

    The bound holds for the float32 numbers that are returned: where rounding would break it (an update that is tiny
    beside its weights), the difference is shortened further, at last to nothing.
    """
    scale = 1.0
    for _ in range(8):
        shortened = {name: _toward(before[name], new[name], scale) for name in new}
        found = l2_norm(_difference(shortened, before))
        if found <= norm:
            return shortened
        scale *= norm / found * (1 - 1e-6)
    return {name: before[name].copy() for name in new}


def last_layer(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the layer that gives the scores: the last in a state dict's order. Flipped labels turn its update."""
    layer = names[-1].rpartition(".")[0]
    return tuple(name for name in names if name.rpartition(".")[0] == layer)


def agreement(updates: Sequence[Mapping[str, NDArray[np.floating]]]) -> tuple[float | None, ...]:
    """Cosine of each update with the mean direction of the others, in their order.

    Each of the others counts alike whatever its length, or one huge update would put all the rest in the wrong. None
    where an update has no direction, or there are no others.
    """
    products = np.array([[_inner(one, other) for other in updates] for one in updates], dtype=np.float64)
    products = products.reshape(len(updates), len(updates))
    lengths = np.sqrt(np.diag(products))
    moved = lengths > 0
    cosines = products / np.where(moved[:, None] & moved, np.outer(lengths, lengths), np.inf)
    return tuple(_with_others(cosines, moved, site) for site in range(len(updates)))


def suspicion(facts: Mapping[int, UpdateFacts]) -> dict[int, tuple[str, ...]]:
    """Reasons to suspect a site's update, by site; sites without any are left out.

    These are signs, no proof: a site with other patients is flagged too, and who knows the rules can stay below them.
    """
    found = {site: tuple(_anomalies(site, facts)) for site in facts}
    return {site: reasons for site, reasons in found.items() if reasons}


def scaled_statistics(new: Mapping[str, NDArray[np.float32]], before: Arrays) -> Arrays:
    """Changes of batch statistics on one scale: of means in deviations, of variances in variances (of ``before``)."""
    units = _units(before)
    return {name: ((new[name] - before[name]) / units[name]).astype(np.float32) for name in new}


def unscaled_statistics(scaled: Mapping[str, NDArray[np.float32]], before: Arrays) -> Arrays:
    """The statistics that ``scaled_statistics`` came from; variances not below 0, whatever rounding made of them."""
    units = _units(before)
    found = {name: (before[name] + change * units[name]).astype(np.float32) for name, change in scaled.items()}
    return {name: np.maximum(value, 0) if _is_variance(name) else value for name, value in found.items()}


def _units(statistics: Arrays) -> Arrays:
    """Of each mean the deviation, of each variance itself; both from a variance that is not near 0."""
    variances = {name.rpartition(".")[0]: value for name, value in statistics.items() if _is_variance(name)}
    floors = {layer: np.maximum(value, np.float32(_LEAST_VARIANCE)) for layer, value in variances.items()}
    return {
        name: floors[name.rpartition(".")[0]] if _is_variance(name) else np.sqrt(floors[name.rpartition(".")[0]])
        for name in statistics
    }


def _is_variance(name: str) -> bool:
    return name.endswith("running_var")


def _check_arrays(new: Mapping[str, NDArray[np.float32]], before: Arrays) -> None:
    check_names(new, before)
    for name, array in new.items():
        check_array(name, array, before[name].shape)


def _difference(new: Mapping[str, NDArray[np.float32]], before: Arrays) -> Iterator[NDArray[np.float64]]:
    return (np.subtract(new[name], before[name], dtype=np.float64) for name in new)


def _toward(before: NDArray[np.float32], new: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    if scale == 1:
        return np.array(new, order="C")
    moved: NDArray[np.float64] = before + scale * np.subtract(new, before, dtype=np.float64)
    return moved.astype(np.float32)


def _dot(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    return float(np.vdot(one.astype(np.float64), other.astype(np.float64)))


def _inner(one: Mapping[str, NDArray[np.floating]], other: Mapping[str, NDArray[np.floating]]) -> float:
    return sum(_dot(one[name], other[name]) for name in one)


def _with_others(cosines: NDArray[np.float64], moved: NDArray[np.bool_], site: int) -> float | None:
    others = moved.copy()
    others[site] = False
    length = math.sqrt(max(float(cosines[np.ix_(others, others)].sum()), 0.0))
    if not moved[site] or length < _NOWHERE:
        return None
    return float(cosines[site, others].sum()) / length


def _anomalies(site: int, facts: Mapping[int, UpdateFacts]) -> Iterator[str]:
    own, others = facts[site], [fact for name, fact in facts.items() if name != site]
    yield from _far("update's norm", own.norm, [fact.norm for fact in others], FAR_NORM)
    yield from _far("weight", own.weight, [fact.weight for fact in others], FAR_WEIGHT, below=False)
    losses = [fact.loss for fact in others if fact.loss is not None]
    if own.loss is not None and losses:
        yield from _far("loss", own.loss, losses, FAR_LOSS, below=False)
    if own.cosine is not None and own.cosine < AGAINST:
        yield f"its last layer learns against the others' (cosine {own.cosine:.2f}): are its labels flipped?"


def _far(what: str, own: float, others: Sequence[float], times: float, *, below: bool = True) -> Iterator[str]:
    if len(others) < 2:  # of two sites, neither is the outlier
        return
    median = float(np.median(others))
    if own > times * median or (below and own * times < median):
        yield f"the {what} is {own:.3g}, the others' median {median:.3g}"
