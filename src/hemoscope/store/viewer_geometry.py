"""The geometry of a study for the page, built in two steps: after decoding, and with the result.

The page shows axial slices in the radiological convention: the patient's right at the left, the front at the top.
"""

from itertools import chain

from hemoscope.dicom.archive import DecodedSeries
from hemoscope.inference.card import ModelCard
from hemoscope.inference.predictor import StudyReading
from hemoscope.inference.preprocess import Box
from hemoscope.labels import LABELS
from hemoscope.reports.report import GEOMETRY_ASSUMED
from hemoscope.store.values import Geometry, HeatMapBox


def geometry_of(decoded: DecodedSeries) -> Geometry:
    """Return the geometry once the slices are decoded."""
    volume = decoded.volume.canonical
    slices, rows, columns = volume.hounsfield.shape
    notes = chain(decoded.quality, *decoded.slice_quality)
    return {
        "slices": slices,
        "rows": rows,
        "columns": columns,
        "spacing_mm": list(volume.spacing_mm),
        "orientation": None if volume.orientation is None else list(volume.orientation),
        "positions_mm": list(volume.positions_mm),
        "origins_mm": None if volume.origins_mm is None else list(volume.origins_mm),
        "assumed": any(note.code == GEOMETRY_ASSUMED for note in notes),
        "labels": list(LABELS),
        "sop_instance_uids": [header.sop_instance_uid for header in decoded.slices],
        "frames": [header.frame for header in decoded.slices],
        "boxes": [],
        "heatmap_shape": None,
        "probabilities": [],
        "thresholds": {},
        "key_slices": {},
    }


def with_result(geometry: Geometry, reading: StudyReading, card: ModelCard) -> Geometry:
    """Add the boxes of the heat maps, probabilities, thresholds and key slices."""
    shown = reading.canonical
    return {
        **geometry,
        "boxes": [_box(shown.box(index)) for index in range(len(shown.volume))],
        "heatmap_shape": None if reading.maps is None else list(reading.maps.shape[2:]),
        "probabilities": reading.probabilities.slice_probabilities.tolist(),
        "thresholds": {label.value: card.operating_points.slice[label].threshold for label in LABELS},
        "key_slices": {label.value: [ref.index for ref in refs] for label, refs in reading.findings.key_slices.items()},
    }


def _box(box: Box) -> HeatMapBox:
    found: HeatMapBox = {"top": box.top, "left": box.left, "side": box.side}
    return found if box.width is None else {**found, "width": box.width}
