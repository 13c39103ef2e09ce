"""The colours of heat maps, perceptually ordered from near black over red to pale yellow, also in grey print."""

import numpy as np
from numpy.typing import NDArray

# Nine anchors of the "inferno" map (van der Walt and Smith, CC0), evenly spaced from 0 to 1; red, green, blue.
_ANCHORS = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float32,
)

# Below the first value nothing is painted, so normal brain keeps its own look; from the second on, most is heat.
_FAINT, _STRONG, _MOST = 0.08, 0.6, 0.8


def heat_colours(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values in [0, 1], any shape, to red, green and blue in [0, 255], with one axis more."""
    places = np.linspace(0.0, 1.0, len(_ANCHORS))
    channels = [np.interp(values, places, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def heat_opacity(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values in [0, 1] to the share of heat in the mixture, in [0, 0.8]: the more heat, the less of the slice."""
    rise = np.clip((values - _FAINT) / (_STRONG - _FAINT), 0.0, 1.0)
    return np.asarray(_MOST * rise, dtype=np.float32)


def heat_over(grey: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Paint heat over a grey picture.

    Args:
        grey: the slice through a window, in [0, 1], shape (rows, columns).
        values: heat in [0, 1], of the same shape.

    Returns:
        Red, green and blue, uint8, shape (rows, columns, 3).

    """
    share = heat_opacity(values)[..., np.newaxis]
    mixed = (1.0 - share) * grey[..., np.newaxis] * 255.0 + share * heat_colours(values)
    return np.asarray(np.round(mixed), dtype=np.uint8)
