"""Curves as PNG: precision-recall, ROC, reliability and threshold sweeps, one line or panel per label.

matplotlib is part of the ``study`` extra and imported when a plot is drawn. Figures are separate objects,
not pyplot's global figure.
"""

import io
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hemoscope.errors import MissingExtraError
from hemoscope.evaluation.calibration_scores import calibration_curve
from hemoscope.evaluation.metrics import CALIBRATION_BINS, Floats
from hemoscope.evaluation.thresholds import Cuts
from hemoscope.labels import LABELS, Hemorrhage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can distinguish, in label order.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00")
_DOTS_PER_INCH = 110


def draw_plots(
    probabilities: Floats, labels: Floats, calibrated: Floats, groups: Sequence[Hashable] | None = None
) -> dict[str, bytes]:
    """Return every plot as PNG, by file name without extension.

    Args:
        probabilities: (images, 6) in label order.
        labels: (images, 6) of 0, 1 or NaN; a label with only one class has no curve.
        calibrated: (images, 6) cross-fitted probabilities; NaN columns could not be fitted.
        groups: the patient of each image, for the band of the calibration curves.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    curves = _curves(probabilities, labels)
    return {
        "precision_recall": _single("Recall", "Precision", lambda axes: _precision_recall(axes, curves)),
        "roc": _single("1 - specificity", "Sensitivity", lambda axes: _roc(axes, curves)),
        "reliability": _panels(
            lambda axes, label: _reliability(axes, (probabilities, calibrated), labels, groups, label)
        ),
        "sweep": _panels(lambda axes, label: _sweep(axes, curves.get(label))),
    }


def _curves(probabilities: Floats, labels: Floats) -> dict[Hemorrhage, Cuts]:
    known = [np.isfinite(column) for column in labels.T]
    return {
        label: Cuts.of(probabilities[known[k], k], labels[known[k], k])
        for k, label in enumerate(LABELS)
        if set(labels[known[k], k]) == {0.0, 1.0}
    }


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty off-screen figure; size in inches. Raises MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(package="matplotlib", extra="study") from error
    return Figure(figsize=(width, height), layout="constrained")


def png_bytes(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    # No software name or date, so that the same numbers give the same bytes.
    figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return stream.getvalue()


def _single(x: str, y: str, draw: Callable[["Axes"], None]) -> bytes:
    figure = new_figure(6.4, 5.2)
    axes = figure.add_subplot()
    draw(axes)
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="lower center" if x == "Recall" else "lower right", frameon=False)
    return png_bytes(figure)


def _panels(draw: Callable[["Axes", Hemorrhage], None]) -> bytes:
    figure = new_figure(10.5, 6.6)
    for k, label in enumerate(LABELS):
        axes = figure.add_subplot(2, 3, k + 1)
        draw(axes, label)
        axes.set_title(label.display, fontsize=10)
        axes.grid(alpha=0.3)
        if k == 0 and axes.lines:
            axes.legend(fontsize=8, frameon=False)
    return png_bytes(figure)


def _precision_recall(axes: "Axes", curves: dict[Hemorrhage, Cuts]) -> None:
    for label, cuts in curves.items():
        axes.plot(cuts.sensitivity[1:], cuts.precision[1:], color=COLOURS[LABELS.index(label)], label=label.display)


def _roc(axes: "Axes", curves: dict[Hemorrhage, Cuts]) -> None:
    for label, cuts in curves.items():
        axes.plot(1 - cuts.specificity, cuts.sensitivity, color=COLOURS[LABELS.index(label)], label=label.display)


def reliability_points(probabilities: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Return mean probability and observed share in each non-empty bin of 15 equal-width bins; (bins,) each."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = counts > 0
    expected = np.bincount(bins, weights=probabilities, minlength=CALIBRATION_BINS)[filled] / counts[filled]
    observed = np.bincount(bins, weights=labels, minlength=CALIBRATION_BINS)[filled] / counts[filled]
    return expected, observed


def _reliability(
    axes: "Axes",
    before_and_after: tuple[Floats, Floats],
    labels: Floats,
    groups: Sequence[Hashable] | None,
    label: Hemorrhage,
) -> None:
    """Draw the smooth curve with its band, and the binned points."""
    k = LABELS.index(label)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":", label="perfect")
    for name, values, marker, color in zip(
        ("as given", "cross-fitted"), before_and_after, ("o", "s"), ("#0072B2", "#D55E00"), strict=True
    ):
        rows = np.flatnonzero(np.isfinite(values[:, k]) & np.isfinite(labels[:, k]))
        if not rows.size:
            continue
        expected, observed = reliability_points(values[rows, k], labels[rows, k])
        axes.plot(expected, observed, marker, color=color, markersize=3, alpha=0.6, label=f"{name}, in bins")
        members = None if groups is None else [groups[int(row)] for row in rows]
        curve = calibration_curve(values[rows, k], labels[rows, k], members)
        if curve is not None:
            axes.plot(curve.probabilities, curve.observed, color=color, linewidth=1.2, label=f"{name}, smooth")
            axes.fill_between(curve.probabilities, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)
    axes.set(xlabel="Mean probability", ylabel="Observed share", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _sweep(axes: "Axes", cuts: Cuts | None) -> None:
    axes.set(xlabel="Threshold", xlim=(0, 1), ylim=(-0.02, 1.02))
    if cuts is None:
        axes.text(0.5, 0.5, "one class only", ha="center", va="center")
        return
    named = (("precision", cuts.precision), ("recall", cuts.sensitivity), ("F1", cuts.f_beta(1.0)))
    for name, values in named:
        axes.plot(cuts.scores[1:], values[1:], linewidth=1.2, label=name)
