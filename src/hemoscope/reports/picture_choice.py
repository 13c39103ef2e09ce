"""The pictures of one study: which slices are drawn for which label, with heat in calibrated units."""

from collections.abc import Iterator

from hemoscope.dicom.slices import SliceRef
from hemoscope.inference.card import ModelCard
from hemoscope.inference.predictor import StudyReading
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.overlays import SlicePicture
from hemoscope.reports.report import positions_known


def pictures_of(reading: StudyReading, card: ModelCard, *, every_slice: bool = False) -> Iterator[SlicePicture]:
    """Yield one picture a key slice and label; with ``every_slice`` also ``any`` on every other slice.

    Axial slices are shown in the radiological convention.

    Raises:
        ValueError: the study was read without its maps.

    """
    findings = reading.findings
    drawn = {(ref, label) for label, refs in findings.key_slices.items() for ref in refs}
    if every_slice:
        drawn |= {(one.ref, Hemorrhage.ANY) for one in findings.slices}
    for ref, label in sorted(drawn, key=lambda one: (one[0].index, LABELS.index(one[1]))):
        yield picture_of(reading, card, ref, label)


def picture_of(reading: StudyReading, card: ModelCard, ref: SliceRef, label: Hemorrhage) -> SlicePicture:
    """Describe one slice and label; marks that rest on assumed geometry are left out."""
    reading = reading.canonical
    findings, volume, index = reading.findings, reading.volume, ref.index
    known = positions_known(findings)
    _, row_mm, column_mm = volume.spacing_mm
    return SlicePicture(
        hounsfield=volume.hounsfield[index],
        heat=reading.local_heat(label, index),
        label=label,
        probability=findings.slices[index].probabilities[label],
        established=card.established[label],
        number=ref.number,
        count=len(volume),
        position_mm=volume.positions_mm[index] if known else None,
        pixel_spacing_mm=(row_mm, column_mm) if known and row_mm and column_mm else None,
        orientation=volume.orientation if known else None,
    )
