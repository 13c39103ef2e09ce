"""Decision curves of all labels for the report: cross-fitted probabilities, by image and by series or patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hemoscope.errors import DataError
from hemoscope.evaluation.intervals import FEWEST_PATIENTS
from hemoscope.evaluation.metrics import Booleans
from hemoscope.evaluation.net_benefit import THRESHOLDS, DecisionCurve, Strata, at_prevalence, decision_curve
from hemoscope.evaluation.plots import new_figure, png_bytes
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.evaluation.recalibration import Recalibrated
from hemoscope.labels import LABELS, Hemorrhage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecisionLevel:
    """Rows of one level, an image or a case each, with their cross-fitted probabilities."""

    name: str
    data: LabelledPredictions
    after: Recalibrated


def decision_document(levels: list[DecisionLevel], *, prevalence: float | None, rounds: int, seed: int) -> Document:
    """Return the decision curves of every level, and of the last one at another prevalence if that is given.

    Args:
        levels: images first, then series or patients.
        prevalence: share of series or patients with hemorrhage elsewhere; None for the observed share alone.
        rounds: bootstrap rounds.
        seed: of the bootstrap.

    Raises:
        DataError: a prevalence without a level of series or patients, or without a calibrated ``any``.
    """
    found = {level.name: _level(level, None, rounds=rounds, seed=seed) for level in levels}
    if prevalence is not None:
        cases = levels[-1]
        if len(levels) < 2:
            msg = "a prevalence is a share of series or patients: name their column with --series or --groups"
            raise DataError(msg)
        found[f"{cases.name}_at_prevalence"] = _level(cases, prevalence, rounds=rounds, seed=seed)
    return {"thresholds": list(THRESHOLDS), "shown": list(SHOWN_THRESHOLDS), "levels": found}


def _level(level: DecisionLevel, prevalence: float | None, *, rounds: int, seed: int) -> Document:
    observed = _observed(level) if prevalence is not None else None
    return {
        "n": len(level.data.image_ids),
        "prevalence": prevalence,
        "labels": {
            label.value: _label(level, label, _to(prevalence, observed), rounds=rounds, seed=seed) for label in LABELS
        },
    }


def _observed(level: DecisionLevel) -> float:
    """Return the observed share of rows with any hemorrhage."""
    known = level.data.labels[:, 0][np.isfinite(level.after.probabilities[:, 0]) & np.isfinite(level.data.labels[:, 0])]
    if not known.size or known.min() == known.max():
        msg = "net benefit at another prevalence needs rows with and without hemorrhage, with known labels of any"
        raise DataError(msg)
    return float(known.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    observed: float
    prevalence: float


def _to(prevalence: float | None, observed: float | None) -> _Move | None:
    return None if prevalence is None or observed is None else _Move(observed=observed, prevalence=prevalence)


def _label(level: DecisionLevel, label: Hemorrhage, move: _Move | None, *, rounds: int, seed: int) -> Document:
    """Return the curve and the shown points of one label, or the reason why there are none."""
    k = LABELS.index(label)
    known: Booleans = np.isfinite(level.data.labels[:, k]) & np.isfinite(level.after.probabilities[:, k])
    if move is not None:
        known &= np.isfinite(level.data.labels[:, 0]) & np.isfinite(level.after.probabilities[:, 0])
    rows = np.flatnonzero(known)
    truth = level.data.labels[rows, k]
    owners = np.array([(level.data.groups or level.data.image_ids)[int(row)] for row in rows], dtype=object)
    counts = {"n": len(rows), "n_positive": int(truth.sum())}
    unit = "images" if level.data.groups is None else "patients"
    reason = level.after.reasons[label] or _too_few(owners, truth == 1.0, unit)
    if reason is not None:
        return {**counts, "prevalence": None, "curve": None, "points": None, "reason": reason}
    probabilities, strata = level.after.probabilities[rows, k], None
    if move is not None:
        probabilities = at_prevalence(
            probabilities,
            level.after.probabilities[rows, 0],
            observed=move.observed,
            prevalence=move.prevalence,
        )
        strata = Strata(positive=level.data.labels[rows, 0] == 1.0, prevalence=move.prevalence)
    curve = decision_curve(probabilities, truth, owners, strata=strata, rounds=rounds, seed=seed)
    return {**counts, **_curve_document(curve), "reason": None}


def _too_few(owners: Any, positive: Booleans, unit: str) -> str | None:
    having, lacking = len(set(owners[positive])), len(set(owners[~positive]))
    if min(having, lacking) >= FEWEST_PATIENTS:
        return None
    return f"{unit} with the label {having}, without it {lacking}; a curve needs at least {FEWEST_PATIENTS} of each"


def _curve_document(curve: DecisionCurve) -> Document:
    def point(threshold: float) -> Document:
        k = THRESHOLDS.index(threshold)
        gain = curve.gain[k]
        return {
            "threshold": threshold,
            "model": {"value": float(curve.model[k]), "low": float(curve.low[k]), "high": float(curve.high[k])},
            "all": float(curve.treat_all[k]),
            "gain": None if gain is None else gain.as_dict(),
        }

    lines = {"model": curve.model, "low": curve.low, "high": curve.high, "all": curve.treat_all}
    return {
        "prevalence": curve.prevalence,
        "curve": {name: values.tolist() for name, values in lines.items()},
        "points": [point(threshold) for threshold in SHOWN_THRESHOLDS],
    }


def draw_decision_curves(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Return a PNG of six panels for each level of :func:`decision_document`, named ``decision_curve_LEVEL``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return {f"decision_curve_{name}": _figure(level) for name, level in document["levels"].items()}


def _figure(level: Mapping[str, Any]) -> bytes:
    figure = new_figure(10.5, 6.6)
    for k, label in enumerate(LABELS):
        axes = figure.add_subplot(2, 3, k + 1)
        _draw(axes, level["labels"][label.value])
        axes.set_title(label.display, fontsize=10)
        axes.set(xlabel="Threshold probability", ylabel="Net benefit", xlim=(0, THRESHOLDS[-1]))
        axes.grid(alpha=0.3)
    drawn = next((axes for axes in figure.axes if axes.lines), None)
    if drawn is not None:
        figure.legend(*drawn.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return png_bytes(figure)


def _draw(axes: "Axes", found: Mapping[str, Any]) -> None:
    curve = found["curve"]
    if curve is None:
        axes.text(0.5, 0.5, "too few positives\nor negatives", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    axes.fill_between(THRESHOLDS, curve["low"], curve["high"], color="#0072B2", alpha=0.15, linewidth=0)
    axes.plot(THRESHOLDS, curve["model"], color="#0072B2", linewidth=1.4, label="model, with 95% band")
    axes.plot(THRESHOLDS, curve["all"], color="#D55E00", linewidth=1.2, linestyle="--", label="all positive")
    axes.axhline(0.0, color="#000000", linewidth=1.0, linestyle=":", label="none positive")
    # Calling all positive falls far below 0: only what can be of use is shown.
    top = max(*curve["high"], found["prevalence"])
    axes.set_ylim(-0.15 * top, 1.1 * top)
