"""Counts of patients and images on their way from the inputs to the scores, for a flow diagram (STARD)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hemoscope.dicom.slices import Rejected
from hemoscope.evaluation.metrics import Booleans
from hemoscope.evaluation.prediction_files import LabelledPredictions
from hemoscope.labels import LABELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Inputs that left the evaluation: how many of what, and why; ``patients`` that left with them, if known."""

    count: int
    unit: str
    reason: str
    patients: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Where the scored images came from.

    Attributes:
        inputs: number of images, or of inputs, at the start.
        unit: of ``inputs``, such as "images in the dataset".
        left: those that left, in order.
    """

    inputs: int
    unit: str
    left: tuple[Step, ...] = ()


def counted(count: int, unit: str) -> str:
    """Return a number with its unit, such as ``1 slice`` or ``1,200 slices``; ``unit`` is a plural."""
    return f"{count:,} {unit if count != 1 or unit == 'series' else unit.removesuffix('s')}"


def rejected_steps(rejected: Iterable[Rejected]) -> tuple[Step, ...]:
    """Return refused inputs, counted by the code of their refusal, the most frequent first."""
    counts = Counter(one.code for one in rejected)
    return tuple(Step(count=count, unit="inputs", reason=f"refused: {code}") for code, count in counts.most_common())


def flow_document(flow: Flow | None, data: LabelledPredictions, series: LabelledPredictions | None) -> dict[str, Any]:
    """Return all counts for ``report.json``: ``flow`` if known, then what was scored, and the reference standard.

    Args:
        flow: of the inputs; None if only images with predictions are known.
        data: one row an image, also those without a label.
        series: one row a series, or None.
    """
    labelled: Booleans = np.asarray(np.isfinite(data.labels).any(axis=1))
    start = flow or Flow(inputs=len(data.image_ids), unit="images with predictions")
    everybody = None if data.groups is None else len(set(data.groups))
    scored = None if data.groups is None else len(set(_chosen(data.groups, labelled)))
    without = Step(
        count=int((~labelled).sum()),
        unit="images",
        reason="no known label",
        patients=None if everybody is None or scored is None else everybody - scored,
    )
    return {
        "inputs": start.inputs,
        "unit": start.unit,
        "left": [asdict(step) for step in start.left],
        "images": len(data.image_ids),
        "patients": everybody,
        "unlabelled": asdict(without),
        "scored_images": int(labelled.sum()),
        "scored_series": None if series is None else int(np.isfinite(series.labels).any(axis=1).sum()),
        "scored_patients": scored,
        "labels": {label.value: _standard(data, labelled, k) for k, label in enumerate(LABELS)},
    }


def _standard(data: LabelledPredictions, labelled: Booleans, k: int) -> dict[str, Any]:
    """Return scored images and patients with and without a label, by the reference standard."""
    truth = data.labels[:, k]
    counts: dict[str, Any] = {
        "positive": int((truth == 1.0).sum()),
        "negative": int((truth == 0.0).sum()),
        "unknown": int(np.isnan(truth[labelled]).sum()),
    }
    patients = None
    if data.groups is not None:
        known, having = (set(_chosen(data.groups, rows)) for rows in (np.isfinite(truth), truth == 1.0))
        patients = {"positive": len(having), "negative": len(known - having)}
    return {**counts, "patients": patients}


def _chosen(groups: Sequence[str], rows: Any) -> list[str]:
    return [group for group, chosen in zip(groups, rows, strict=True) if chosen]
