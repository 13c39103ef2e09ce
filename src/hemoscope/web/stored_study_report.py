"""A stored study as a report: the findings document in words, a picture for each key label, readers' feedback."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import Box
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.reports.overlays import SlicePicture
from hemoscope.reports.study_report_content import ReaderRemark, StudyDocument, shown_slices, study_document
from hemoscope.store.store import Store
from hemoscope.store.values import Feedback, Geometry, StudyDetail
from hemoscope.web.problems import Problem


def report_of(store: Store, study_id: str, *, identity_shown: bool) -> StudyDocument:
    """Collect the content of the report on a study.

    Raises:
        StoreError: ``no_such_study``, ``no_findings``.
        Problem: 409 for an upload in which nothing could be read.

    """
    document, entry = json.loads(store.findings_json(study_id)), store.get(study_id)
    if not document["studies"]:
        raise Problem(
            409,
            code="nothing_read",
            detail="Nothing of this upload could be read, so there is nothing to report.",
            remedy="The study's page says what was refused, and why",
        )
    if identity_shown and entry.identity is not None:
        acquired = "" if entry.acquired_at is None else f"{entry.acquired_at:%Y%m%d}"
        patient = {"name": entry.identity.name, "id": entry.identity.id, "study_date": acquired}
        document["studies"][0]["patient"] = patient
    pictures = tuple(_pictures(store, entry))
    keys = None if entry.geometry is None else entry.geometry["key_slices"]
    readers = [_remark(one) for one in store.feedback(study_id)]
    return study_document(document, key_slices=keys, pictures=pictures, reader=readers)


def _pictures(store: Store, entry: StudyDetail) -> Iterator[SlicePicture]:
    """Yield the first key slice of each label that has one."""
    geometry = entry.geometry
    if geometry is None:
        return
    stored = geometry["key_slices"]
    key_slices: PerLabel[Sequence[int]] = PerLabel.build(lambda label: stored.get(label.value, ()))
    for label, index in shown_slices(key_slices):
        yield _picture(store, entry, geometry, index, label)


def _picture(store: Store, entry: StudyDetail, geometry: Geometry, index: int, label: Hemorrhage) -> SlicePicture:
    """Describe one slice and label; marks that rest on assumed geometry are left out."""
    known = not geometry["assumed"]
    _, row_mm, column_mm = geometry["spacing_mm"]
    orientation = geometry["orientation"]
    pixels = np.frombuffer(store.pixels(entry.study_id, index), "<i2").reshape(geometry["rows"], geometry["columns"])
    heat = np.frombuffer(store.heatmap(entry.study_id, index, label.value), np.uint8)
    return SlicePicture(
        hounsfield=pixels,
        heat=HeatMap(
            values=heat.reshape(geometry["heatmap_shape"]).astype(np.float32) / np.float32(255),
            box=Box(**geometry["boxes"][index]),
        ),
        label=label,
        probability=geometry["probabilities"][index][LABELS.index(label)],
        established=label.value not in entry.not_established,
        number=index + 1,
        count=geometry["slices"],
        position_mm=geometry["positions_mm"][index] if known else None,
        pixel_spacing_mm=(row_mm, column_mm) if known and row_mm and column_mm else None,
        orientation=tuple(orientation) if known and orientation else None,
    )


def _remark(feedback: Feedback) -> ReaderRemark:
    seen = "present" if feedback.present else "not present"
    return ReaderRemark(
        label=feedback.label,
        verdict=f"{feedback.verdict.value}, {seen}",
        note=feedback.note,
        at=f"{feedback.by}, {feedback.at:%Y-%m-%d %H:%M} UTC",
    )
