"""Pictures of the reproduction page that the evaluation report lacks: images by type, and the three windows."""

from collections.abc import Iterable, Sequence

import numpy as np

from hemoscope.evaluation.plots import COLOURS, new_figure, png_bytes
from hemoscope.inference.windows import BONE, BRAIN, SUBDURAL
from hemoscope.labels import SUBTYPES

_HU = (-1000, 2200)


def draw_label_counts(labels: Iterable[Sequence[int | float | None]]) -> bytes:
    """Return figure 2 as PNG: the images that have each of the five types.

    Args:
        labels: six for each image in label order: 0, 1, or None or NaN (unknown).
    """
    positive = np.array([[value == 1 for value in six] for six in labels])
    counts = positive[:, 1:].sum(axis=0)
    figure = new_figure(6.8, 3.4)
    axes = figure.add_subplot()
    bars = axes.barh([label.display for label in SUBTYPES], counts, color=COLOURS[1:])
    axes.bar_label(bars, [f"{count:,} ({count / len(positive):.1%})" for count in counts], padding=3)
    axes.invert_yaxis()
    axes.set(xlabel=f"Images, of {len(positive):,}", xlim=(0, max(*counts, 1) * 1.35))
    axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)


def draw_windows() -> bytes:
    """Return the three windows as PNG: Hounsfield units to channel values in [0, 1]."""
    figure = new_figure(6.8, 3.4)
    axes = figure.add_subplot()
    hounsfield = np.arange(*_HU, 2, dtype=np.float32)
    for colour, name, window in zip(COLOURS[1:], ("Brain", "Subdural", "Bone"), (BRAIN, SUBDURAL, BONE), strict=False):
        label = f"{name}: level {window.center:g}, width {window.width:g}"
        axes.plot(hounsfield, window.apply(hounsfield), color=colour, label=label)
    axes.set(xlabel="Hounsfield units", ylabel="Value in the channel", xlim=_HU)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    return png_bytes(figure)
