"""A wrong decision as one small picture: the slice in the window that suits the label, and its heat map beside it."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import resized
from hemoscope.inference.windows import BRAIN, SUBDURAL, Window
from hemoscope.labels import Hemorrhage
from hemoscope.reports.colours import heat_over

_SIDE = 288
_GAP = 4
_QUALITY = 82
# Blood beside the skull drowns in the brain window's white.
_BESIDE_BONE = frozenset({Hemorrhage.EPIDURAL, Hemorrhage.SUBDURAL})


def window_of(label: Hemorrhage) -> tuple[str, Window]:
    """The display window in which a label is looked for, with its name."""
    return ("subdural window", SUBDURAL) if label in _BESIDE_BONE else ("brain window", BRAIN)


def draw_error(hounsfield: NDArray[np.int16], heat: HeatMap, label: Hemorrhage) -> bytes:
    """Draw what the model saw of one slice, and where it saw the label, side by side.

    Args:
        hounsfield: HU of the slice, (rows, columns).
        heat: of the label, over the square of the slice that the model saw; the picture is cut to it.
        label: chooses the window.

    Returns:
        A JPEG.
    """
    grey = window_of(label)[1].apply(resized(hounsfield, heat.box, _SIDE))
    smooth = Image.fromarray(heat.values).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    plain = np.repeat(np.round(grey * 255.0).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    painted = heat_over(grey, np.asarray(smooth, dtype=np.float32))
    gap = np.zeros((_SIDE, _GAP, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.concatenate([plain, gap, painted], axis=1)).save(stream, format="JPEG", quality=_QUALITY)
    return stream.getvalue()
