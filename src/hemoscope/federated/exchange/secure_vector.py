"""The one row of numbers that secure aggregation sums: what training changed, then what batch norm's statistics did.

Every value lies within one clipping range, the clipping norm of the update, for the protocol counts in equal steps.
Changes of statistics come in their own scale (``updates.scaled_statistics``) and are clipped to the range.
"""

import math

import numpy as np
from numpy.typing import NDArray

from hemoscope.errors import FederationError
from hemoscope.federated.exchange.messages import Arrays
from hemoscope.federated.exchange.update_checks import scaled_statistics, unscaled_statistics

Floats = NDArray[np.float64]

# The mean of clipped updates is no longer than the longest of them, but for the rounding of the protocol.
_SLACK = 1.01


def secure_vector(trained: Arrays, before: Arrays, statistics: Arrays, old: Arrays, *, clipping_range: float) -> Floats:
    """A site's changes in one row, float64 (n,): names in order, then each array in C order.

    Args:
        trained: after the round; their change from ``before`` is not longer than ``clipping_range``.
        before: as the round began.
        statistics: of batch norm after the round; none unless they are shared.
        old: as the round began.
        clipping_range: of every value.
    """
    update = [np.subtract(trained[name], before[name], dtype=np.float64).ravel() for name in sorted(before)]
    scaled = scaled_statistics(statistics, old)
    row = np.concatenate([*update, *(scaled[name].ravel().astype(np.float64) for name in sorted(old)), np.empty(0)])
    return np.clip(row, -clipping_range, clipping_range)


def length_of(before: Arrays, old: Arrays) -> int:
    """Numbers in a row."""
    return sum(array.size for array in (*before.values(), *old.values()))


def from_mean(mean: Floats, before: Arrays, old: Arrays, *, clipping_range: float) -> tuple[Arrays, Arrays]:
    """What trained weights and statistics become by a mean of rows: the inverse of ``secure_vector``.

    Raises:
        FederationError: the mean is longer than any mean of clipped updates, so a share or a vector was false.
    """
    changes = _cut(mean, before)
    trained = {name: (before[name] + change).astype(np.float32) for name, change in changes.items()}
    norm = math.sqrt(sum(float(np.vdot(change, change)) for change in changes.values()))
    if not norm <= clipping_range * _SLACK:
        msg = (
            f"the unmasked mean has the norm {norm:.4g}, above {clipping_range:g}: a site sent a false share. Try again"
        )
        raise FederationError(msg)
    scaled = _cut(mean[length_of(before, {}) :], old)
    return trained, unscaled_statistics({name: value.astype(np.float32) for name, value in scaled.items()}, old)


def _cut(row: Floats, like: Arrays) -> dict[str, Floats]:
    arrays, place = {}, 0
    for name in sorted(like):
        arrays[name] = row[place : place + like[name].size].reshape(like[name].shape)
        place += like[name].size
    return arrays
