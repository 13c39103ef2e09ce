"""Composes the results of one study as DICOM objects, with UIDs derived from what they say, as files (PS3.10)."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from hemoscope.dicom.elements import quiet
from hemoscope.inference.card import ModelCard
from hemoscope.inference.findings import Finding
from hemoscope.inference.study_reading import StudyReading
from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.reports.dicom_results.evidence import Reference
from hemoscope.reports.dicom_results.key_objects import key_images, key_object_selection
from hemoscope.reports.dicom_results.picture_pages import pages
from hemoscope.reports.dicom_results.report_options import ReportOptions
from hemoscope.reports.dicom_results.secondary_capture import secondary_capture
from hemoscope.reports.dicom_results.source_study import SourceStudy
from hemoscope.reports.dicom_results.structured_report import presence, shown_value, structured_report
from hemoscope.reports.report import ModelIdentity
from hemoscope.version import __version__


class ResultKind(StrEnum):
    """The kinds of result objects, in the order in which they are made and sent."""

    REPORT = "report"
    PICTURES = "pictures"
    KEY_SLICES = "key-slices"


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomResult:
    """One result object; ``content`` is its file (PS3.10), Explicit VR Little Endian."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.kind.value}.dcm"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """What the objects of a study are made from, and its hash: every UID depends on it."""

    reading: StudyReading
    source: SourceStudy
    card: ModelCard
    model: ModelIdentity
    options: ReportOptions
    predecessors: tuple[Reference, ...]
    digest: str


def dicom_results(
    reading: StudyReading,
    source: SourceStudy,
    card: ModelCard,
    model: ModelIdentity,
    *,
    kinds: Sequence[ResultKind] = tuple(ResultKind),
    options: ReportOptions = ReportOptions(),  # noqa: B008 - frozen
    predecessors: Sequence[Reference] = (),
) -> tuple[DicomResult, ...]:
    """Make the results of a study that was read; key slices only where there are any.

    Args:
        reading: with its heat maps.
        source: of the same study, ``source_study``.
        card: of the model that read it.
        model: which model that was.
        kinds: the objects to make.
        options: of the site, for the report.
        predecessors: earlier reports on the study by Hemoscope.

    Raises:
        ValueError: pictures are wanted, and the study was read without its heat maps.
    """
    statement = _Statement(
        reading=reading,
        source=source,
        card=card,
        model=model,
        options=options,
        predecessors=tuple(predecessors),
        digest=_digest(reading, source, model, options),
    )
    with quiet():
        made = ((kind, _MAKERS[kind](statement)) for kind in ResultKind if kind in kinds)
        return tuple(_result(kind, data_set) for kind, data_set in made if data_set is not None)


def _report(statement: _Statement) -> Dataset:
    before = [one.sop_instance_uid for one in statement.predecessors]
    sop_instance_uid = derived_uid(ResultKind.REPORT, statement.digest, *before)
    return structured_report(
        statement.source,
        statement.reading.findings,
        statement.model,
        series_instance_uid=derived_uid("series", sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
        options=statement.options,
        predecessors=[one.data_set() for one in statement.predecessors],
    )


def _pictures(statement: _Statement) -> Dataset:
    drawn = list(pages(statement.reading, statement.card, statement.model))
    pixels = hashlib.sha256(np.stack(drawn).tobytes()).hexdigest()
    sop_instance_uid = derived_uid(ResultKind.PICTURES, statement.digest, pixels)
    return secondary_capture(
        statement.source,
        drawn,
        key_images(statement.source, statement.reading.findings),
        series_instance_uid=derived_uid("series", sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
    )


def _key_slices(statement: _Statement) -> Dataset | None:
    images = key_images(statement.source, statement.reading.findings)
    if not images:
        return None
    sop_instance_uid = derived_uid(ResultKind.KEY_SLICES, statement.digest)
    return key_object_selection(
        statement.source,
        images,
        series_instance_uid=derived_uid("series", sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
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
        "labels": [_said(finding, options) for finding in findings.findings],
        "triage": [findings.triage, findings.state],
        "unread": [[one.code, one.count] for one in findings.unread_reasons],
        "quality": [note.code for note in findings.quality],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _values(data_set: Dataset) -> list[tuple[int, str]]:
    return [(int(tag), repr(data_set.get_item(tag).value)) for tag in data_set.keys()]  # noqa: SIM118


def _said(finding: Finding, options: ReportOptions) -> list[object]:
    code = options.codes[finding.label]
    return [
        finding.label,
        finding.present,
        finding.established,
        presence(finding, options).value,
        shown_value(finding.probability),
        shown_value(finding.threshold),
        [ref.index for ref in finding.slices],
        repr(code.finding),
        repr(code.site),
    ]


def _result(kind: ResultKind, data_set: Dataset) -> DicomResult:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data_set.SOPClassUID, data_set.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derived_uid("implementation", __version__))
    meta.ImplementationVersionName = f"HEMOSCOPE_{__version__}"[:16]
    data_set.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return DicomResult(
        kind=kind,
        sop_class_uid=str(data_set.SOPClassUID),
        sop_instance_uid=str(data_set.SOPInstanceUID),
        series_instance_uid=str(data_set.SeriesInstanceUID),
        content=stream.getvalue(),
    )
