"""What the page needs to draw a study in the right place and proportion: a plain document, made in two steps.

Keys: ``slices``, ``rows``, ``columns``; ``spacing_mm`` (between slices, rows, columns; null where unknown);
``orientation`` (six direction cosines or null); ``positions_mm`` by slice; ``assumed`` (the files did not say where
slices lie: show no millimetres); ``labels`` in label order; ``sop_instance_uids`` and
``frames`` by slice. With the result come
``boxes`` (the square of each slice that its heat map covers), ``heatmap_shape``, ``probabilities`` (six by slice),
``thresholds`` (by label, for slices) and ``key_slices`` (indices by label); before it they are empty.
"""

from itertools import chain
from typing import Any

from hemoscope.dicom.archive import DecodedSeries
from hemoscope.inference.card import ModelCard
from hemoscope.inference.predictor import StudyReading
from hemoscope.labels import LABELS
from hemoscope.reports.report import GEOMETRY_ASSUMED


def geometry_of(decoded: DecodedSeries) -> dict[str, Any]:
    """What is known once the slices are decoded."""
    volume = decoded.volume
    slices, rows, columns = volume.hounsfield.shape
    notes = chain(decoded.quality, *decoded.slice_quality)
    return {
        "slices": slices,
        "rows": rows,
        "columns": columns,
        "spacing_mm": list(volume.spacing_mm),
        "orientation": None if volume.orientation is None else list(volume.orientation),
        "positions_mm": list(volume.positions_mm),
        "assumed": any(note.code == GEOMETRY_ASSUMED for note in notes),
        "labels": [label.value for label in LABELS],
        "sop_instance_uids": [header.sop_instance_uid for header in decoded.slices],
        "frames": [header.frame for header in decoded.slices],
        "boxes": [],
        "heatmap_shape": None,
        "probabilities": [],
        "thresholds": {},
        "key_slices": {},
    }


def with_result(geometry: dict[str, Any], reading: StudyReading, card: ModelCard) -> dict[str, Any]:
    """Add what the model says of each slice, and where."""
    boxes = [reading.box(index) for index in range(len(reading.volume))]
    return geometry | {
        "boxes": [{"top": box.top, "left": box.left, "side": box.side} for box in boxes],
        "heatmap_shape": None if reading.maps is None else list(reading.maps.shape[2:]),
        "probabilities": reading.probabilities.slice_probabilities.tolist(),
        "thresholds": {label.value: card.operating_points.slice[label].threshold for label in LABELS},
        "key_slices": {label.value: [ref.index for ref in refs] for label, refs in reading.findings.key_slices.items()},
    }
