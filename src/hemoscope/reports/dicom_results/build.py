"""Composes the results of one study as DICOM objects, with UIDs derived from what they say, as files (PS3.10)."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydicom.dataset import Dataset

from hemoscope.dicom.elements import quiet
from hemoscope.inference.card import ModelCard
from hemoscope.inference.findings import Finding, Triage
from hemoscope.inference.study_reading import StudyReading
from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.reports.dicom_results.key_objects import key_images, key_object_selection
from hemoscope.reports.dicom_results.picture_pages import pages
from hemoscope.reports.dicom_results.report_options import ReportOptions
from hemoscope.reports.dicom_results.result_file import DicomResult, dicom_result
from hemoscope.reports.dicom_results.secondary_capture import secondary_capture
from hemoscope.reports.dicom_results.source_study import SourceStudy
from hemoscope.reports.dicom_results.structured_report import presence, shown_value, structured_report
from hemoscope.reports.dicom_results.superseded import Superseded
from hemoscope.reports.report import ModelIdentity
from hemoscope.version import __version__


class ResultKind(StrEnum):
    """The kinds of result objects, in the order in which they are made and sent."""

    REPORT = "report"
    PICTURES = "pictures"
    KEY_SLICES = "key-slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """What the objects of a study are made from, and its hash: every UID depends on it."""

    reading: StudyReading
    source: SourceStudy
    card: ModelCard
    model: ModelIdentity
    options: ReportOptions
    superseded: Superseded | None
    digest: str

    def uid(self, kind: ResultKind, *more: str) -> str:
        """The SOP Instance UID of an object: it depends on what the object says, and on what it takes the place of."""
        before = [] if self.superseded is None else [self.superseded.reference.sop_instance_uid]
        return derived_uid(kind, self.digest, *more, *before)


def dicom_results(
    reading: StudyReading,
    source: SourceStudy,
    card: ModelCard,
    model: ModelIdentity,
    *,
    kinds: Sequence[ResultKind] = tuple(ResultKind),
    options: ReportOptions = ReportOptions(),  # noqa: B008 - frozen
    superseded: Superseded | None = None,
) -> tuple[DicomResult, ...]:
    """Make the results of a study that was read; key slices only where there are any.

    Args:
        reading: with its heat maps.
        source: of the same study, ``source_study``.
        card: of the model that read it.
        model: which model that was.
        kinds: the objects to make.
        options: of the site, for the report.
        superseded: the object of an earlier reading that the one of ``kinds`` takes the place of.

    Raises:
        ValueError: pictures are wanted, and the study was read without its heat maps.
    """
    statement = _Statement(
        reading=reading,
        source=source,
        card=card,
        model=model,
        options=options,
        superseded=superseded,
        digest=_digest(reading, source, model, options),
    )
    with quiet():
        made = ((kind, _MAKERS[kind](statement)) for kind in ResultKind if kind in kinds)
        return tuple(dicom_result(kind, data_set) for kind, data_set in made if data_set is not None)


def _report(statement: _Statement) -> Dataset:
    sop_instance_uid = statement.uid(ResultKind.REPORT)
    return structured_report(
        statement.source,
        statement.reading.findings,
        statement.model,
        series_instance_uid=derived_uid("series", sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
        options=statement.options,
        superseded=statement.superseded,
    )


def _pictures(statement: _Statement) -> Dataset:
    superseded = statement.superseded
    note = "" if superseded is None else superseded.sentence
    drawn = list(pages(statement.reading, statement.card, statement.model, note=note))
    pixels = hashlib.sha256(np.stack(drawn).tobytes()).hexdigest()
    sop_instance_uid = statement.uid(ResultKind.PICTURES, pixels)
    return secondary_capture(
        statement.source,
        drawn,
        key_images(statement.source, statement.reading.findings),
        series_instance_uid=derived_uid("series", sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
        superseded=superseded,
    )


def _key_slices(statement: _Statement) -> Dataset | None:
    images = key_images(statement.source, statement.reading.findings)
    if not images:
        return None
    sop_instance_uid = statement.uid(ResultKind.KEY_SLICES)
    return key_object_selection(
        statement.source,
        images,
        series_instance_uid=derived_uid("series", sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
        superseded=statement.superseded,
    )


_MAKERS: dict[ResultKind, Callable[[_Statement], Dataset | None]] = {
    ResultKind.REPORT: _report,
    ResultKind.PICTURES: _pictures,
    ResultKind.KEY_SLICES: _key_slices,
}


def _digest(reading: StudyReading, source: SourceStudy, model: ModelIdentity, options: ReportOptions) -> str:
    """Return the hash of all that the objects say, beside the time at which they are made."""
    findings = reading.findings
    said = {
        "study": source.study_instance_uid,
        "images": [[image.sop_class_uid, image.sop_instance_uid, image.frame] for image in source.images],
        "series": findings.series_instance_uid,
        "inherited": hashlib.sha256(repr(sorted(_values(source.inherited))).encode()).hexdigest(),
        "character_set": source.character_set,
        "model": [model.name, model.version, model.sha256, model.precision, __version__],
        "labels": [_said(finding, findings.triage, options) for finding in findings.findings],
        "triage": [findings.triage, findings.state],
        "unread": [[one.code, one.count] for one in findings.unread_reasons],
        "quality": [note.code for note in findings.quality],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _values(data_set: Dataset) -> list[tuple[int, str]]:
    return [(int(tag), repr(data_set.get_item(tag).value)) for tag in data_set.keys()]  # noqa: SIM118


def _said(finding: Finding, triage: Triage, options: ReportOptions) -> list[object]:
    code = options.codes[finding.label]
    return [
        finding.label,
        finding.present,
        finding.established,
        presence(finding, triage, options).value,
        shown_value(finding.probability),
        shown_value(finding.threshold),
        [ref.index for ref in finding.slices],
        repr(code.finding),
        repr(code.site),
    ]
