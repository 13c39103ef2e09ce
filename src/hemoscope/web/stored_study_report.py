"""A stored study as a report: the findings document in words, a picture for each key label, readers' feedback."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import Box
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.messages.catalogue import Catalogue
from hemoscope.reports.overlays import SlicePicture
from hemoscope.reports.study_report_content import ReaderRemark, StudyDocument, shown_slices, study_document
from hemoscope.reports.threshold_words import threshold_words
from hemoscope.store.store import Store
from hemoscope.store.values import Feedback, Geometry, Measurement, MeasurementKind, StudyDetail, Verdict
from hemoscope.web.disclosure import scan_time_words
from hemoscope.web.problems import Problem

_VERDICTS = {Verdict.AGREE: "report.reader-agrees", Verdict.CORRECTED: "report.reader-disagrees"}


def report_of(
    store: Store, study_id: str, *, model_card: Mapping[str, Any], identity_shown: bool, catalogue: Catalogue
) -> StudyDocument:
    """Collect the content of the report on a study.

    Args:
        store: that holds it.
        study_id: the study.
        model_card: of the model that this server uses, whose thresholds are explained if it read the study.
        identity_shown: whether the site shows patients' names.
        catalogue: of the texts.

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
    readers = [_remark(catalogue, one) for one in _standing(store.feedback(study_id))]
    explained = document["model"]["sha256"] == model_card.get("sha256")
    return study_document(
        document,
        key_slices=keys,
        pictures=pictures,
        thresholds=threshold_words(model_card, catalogue) if explained else (),
        reader=readers,
        measurements=[_measured(catalogue, one) for one in store.measurements(study_id)],
        stored=tuple(_stored(catalogue, entry, identity_shown=identity_shown)),
        catalogue=catalogue,
    )


def _stored(texts: Catalogue, entry: StudyDetail, *, identity_shown: bool) -> Iterator[tuple[str, str]]:
    """Yield what the site knows of the study beside the findings: its short id as in the worklist, and when it came."""
    yield texts.text("report.worklist-study"), entry.study_id[:8]
    if entry.acquired_at is not None:
        taken = scan_time_words(entry.acquired_at, now=datetime.now(UTC), identity_shown=identity_shown)
        yield texts.text("report.scanned"), taken
    received = texts.text("report.received-from", time=_time(entry.received_at), sender=entry.submitted_by)
    yield texts.text("report.received"), received
    if entry.reviews:
        reviews = "; ".join(texts.text("report.signed", reader=one.by, time=_time(one.at)) for one in entry.reviews)
        yield texts.text("report.reviewed"), reviews


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _pictures(store: Store, entry: StudyDetail) -> Iterator[SlicePicture]:
    """Yield each slice on which a label is most suspected."""
    geometry = entry.geometry
    if geometry is None:
        return
    stored = geometry["key_slices"]
    key_slices: PerLabel[Sequence[int]] = PerLabel.build(lambda label: stored.get(label.value, ()))
    for index, labels in shown_slices(key_slices):
        yield replace(_picture(store, entry, geometry, index, labels[0]), also=labels[1:])


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


def _measured(texts: Catalogue, one: Measurement) -> str:
    """A measurement in words: ``Slice 12, ellipse: 58 HU (SD 7), 45 to 80 HU, 112 mm2. anna``."""
    found, words = one.found, []
    if found.length_mm is not None:
        words.append(texts.text("measure.mm", value=f"{found.length_mm:.1f}"))
    if one.kind is MeasurementKind.PROBE:
        words.append(texts.text("measure.hu", value=found.lowest_hu))
    elif found.mean_hu is not None:
        words.append(texts.text("report.mean", mean=f"{found.mean_hu:.1f}", sd=f"{found.sd_hu:.1f}"))
        words.append(texts.text("report.range", low=found.lowest_hu, high=found.highest_hu))
    if found.area_mm2 is not None:
        words.append(texts.text("report.area", area=f"{found.area_mm2:.0f}"))
    return texts.text(
        f"report.measured-{one.kind.value}",
        number=one.slice + 1,
        values=", ".join(words),
        signed=texts.text("report.signed", reader=one.by, time=_time(one.at)),
    )


def _standing(entries: Sequence[Feedback]) -> list[Feedback]:
    """Return the newest entry on each label, unless it took the feedback back."""
    newest = {entry.label: entry for entry in entries}
    return [entry for entry in newest.values() if entry.verdict is not Verdict.WITHDRAWN]


def _numbers(indices: Sequence[int]) -> str:
    """Slices counted from 1, runs as ranges: ``3-5, 9``."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(f"{first + 1}" if first == last else f"{first + 1}-{last + 1}" for first, last in runs)


def _remark(texts: Catalogue, feedback: Feedback) -> ReaderRemark:
    seen = texts.text("report.present" if feedback.present else "report.not-present")
    if feedback.slices:
        slices = {"count": len(feedback.slices), "slices": _numbers(feedback.slices)}
        seen = texts.text("report.present-on" if feedback.present else "report.not-present-on", **slices)
    return ReaderRemark(
        label=feedback.label,
        verdict=texts.text(_VERDICTS[feedback.verdict], seen=seen),
        note=feedback.note,
        at=texts.text("report.signed", reader=feedback.by, time=_time(feedback.at)),
    )
