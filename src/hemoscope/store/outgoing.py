"""Builds the results of a study for the destinations of the node, while its files are still there."""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta

from hemoscope.dicom.archive import Archive
from hemoscope.errors import DicomReadError, DicomResultError
from hemoscope.inference.card import ModelCard
from hemoscope.inference.findings import Triage
from hemoscope.inference.study_reading import StudyReading
from hemoscope.reports.dicom_results.build import ResultKind, dicom_results
from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.reports.dicom_results.evidence import Reference
from hemoscope.reports.dicom_results.rejection import rejection_note
from hemoscope.reports.dicom_results.result_file import DicomResult
from hemoscope.reports.dicom_results.source_study import SourceStudy, source_study
from hemoscope.reports.dicom_results.superseded import Superseded
from hemoscope.reports.report import ModelIdentity
from hemoscope.store.node_settings import WEBHOOK, Destination, NodeSettings
from hemoscope.store.outbox import REJECTION, Delivery, Outbox, Outgoing, OutgoingObject

_log = logging.getLogger("hemoscope.store")


class OutgoingResults:
    """Makes the objects of a study, and writes their files."""

    def __init__(self, outbox: Outbox, settings: NodeSettings, *, card: ModelCard, model: ModelIdentity) -> None:
        """Prepare; without a destination nothing is made."""
        self._outbox = outbox
        self._destinations = settings.destinations
        self._options = settings.report_options
        self._hold_s = settings.results.hold_incomplete_seconds
        self._webhook = settings.webhook
        self._card = card
        self._model = model

    def make(self, archive: Archive, reading: StudyReading, study_id: str, *, number: int = 1) -> Outgoing:
        """Make what is sent of a study that was read, and write the files; nothing if nobody wants any.

        A study whose images no result can refer to has none: the log says why, without naming it. ``number`` counts the
        readings of the study. Results of a study that lacks slices are held: the rest may be on its way.

        Raises:
            StoreError: ``storage_full`` or ``storage_unusable``.
        """
        findings = reading.findings
        lacking = not findings.complete or bool(findings.unread)
        results, contents = self._results(archive, reading, number)
        return Outgoing(
            study_instance_uid=findings.study_instance_uid,
            objects=(*self._notification(reading, study_id), *results),
            contents=contents,
            held=timedelta(seconds=self._hold_s if lacking else 0),
        )

    def _notification(self, reading: StudyReading, study_id: str) -> Iterator[OutgoingObject]:
        """What the webhook sends: the store's random id of the study, and what is suspected."""
        findings = reading.findings
        if self._webhook is None or findings.urgency not in self._webhook.urgencies:
            return
        suspected = [one.label.value for one in findings.findings if one.present]
        body = {"event": "study_read", "study_id": study_id, "urgency": findings.urgency, "suspected": suspected}
        uid = derived_uid(WEBHOOK, study_id)
        file, sha256 = self._outbox.write(json.dumps(body).encode())
        yield OutgoingObject(
            destination=WEBHOOK,
            kind="webhook",
            study_instance_uid="",
            series_instance_uid="",
            sop_class_uid="",
            sop_instance_uid=uid,
            content_uid=uid,
            file=file,
            sha256=sha256,
        )

    def _results(
        self, archive: Archive, reading: StudyReading, number: int
    ) -> tuple[tuple[OutgoingObject, ...], tuple[str, ...]]:
        """Return the objects to send, and the content UIDs of all that the reading says."""
        findings = reading.findings
        routine = findings.triage is Triage.ROUTINE
        earlier = {one.destination for one in self._outbox.reached(findings.study_instance_uid)}
        # Who has an earlier result of the study must get the one that takes its place.
        wanting = [one for one in self._destinations if one.send_routine or not routine or one.name in earlier]
        kinds = tuple(kind for kind in ResultKind if any(kind.value in one.outputs for one in wanting))
        if not kinds:
            return (), ()
        try:
            source = source_study(findings, archive.load, limits=archive.limits)
        except (DicomResultError, DicomReadError) as error:
            cause = str(error) if isinstance(error, DicomResultError) else error.code
            _log.warning("a study has no results in DICOM: %s", cause)
            return (), ()
        built = self._build(reading, source, kinds)
        contents = tuple(result.sop_instance_uid for result in built)
        objects = tuple(one for result in built for one in self._objects(reading, source, result, wanting, number))
        if any(self._outbox.said(source.study_instance_uid, content) for content in contents):
            return objects, contents  # an earlier reading said the same
        return (*objects, *self._rejections(source, objects, number)), contents

    def _objects(
        self,
        reading: StudyReading,
        source: SourceStudy,
        result: DicomResult,
        wanting: Sequence[Destination],
        number: int,
    ) -> Iterator[OutgoingObject]:
        """What of a result its destinations do not have yet."""
        study, content_uid = source.study_instance_uid, result.sop_instance_uid
        before = self._outbox.said(study, content_uid)
        have = {one.outgoing.destination for one in before if one.state != Delivery.EXPIRED}
        lacking = [one for one in wanting if result.kind in one.outputs and one.name not in have]
        if not lacking:
            return
        number = before[0].outgoing.reading if before else number
        sent = self._following(reading, source, result, number)
        written = self._outbox.write(sent.content)
        for destination in lacking:
            yield _outgoing(destination, sent, study, written, content_uid=content_uid, reading=number)

    def _following(self, reading: StudyReading, source: SourceStudy, result: DicomResult, number: int) -> DicomResult:
        """Return the result, or for one that follows another one, the result that says so."""
        before = self._outbox.latest(source.study_instance_uid, result.kind, before=result.sop_instance_uid)
        if before is None:
            return result
        superseded = Superseded(
            reference=_reference(before.outgoing),
            reading=before.outgoing.reading,
            at=before.created_at,
            by=max(number, before.outgoing.reading + 1),
        )
        (following,) = self._build(reading, source, (ResultKind(result.kind),), superseded)
        return following

    def _rejections(
        self, source: SourceStudy, objects: Sequence[OutgoingObject], number: int
    ) -> Iterator[OutgoingObject]:
        """Mark what earlier readings sent as rejected, at each destination that takes such notes and has a new one."""
        study, having = source.study_instance_uid, {one.destination for one in objects}
        for destination in self._destinations:
            earlier = self._outbox.reached(study, destination.name)
            rejected = [_reference(one) for one in earlier if one.kind != REJECTION]
            if destination.reject_superseded and destination.name in having and rejected:
                note = rejection_note(source, rejected)
                uid, written = note.sop_instance_uid, self._outbox.write(note.content)
                yield _outgoing(destination, note, study, written, content_uid=uid, reading=number)

    def _build(
        self,
        reading: StudyReading,
        source: SourceStudy,
        kinds: tuple[ResultKind, ...],
        superseded: Superseded | None = None,
    ) -> tuple[DicomResult, ...]:
        return dicom_results(
            reading, source, self._card, self._model, kinds=kinds, options=self._options, superseded=superseded
        )


def _outgoing(
    destination: Destination,
    result: DicomResult,
    study: str,
    written: tuple[str, str],
    *,
    content_uid: str,
    reading: int,
) -> OutgoingObject:
    file, sha256 = written
    return OutgoingObject(
        destination=destination.name,
        kind=result.kind,
        study_instance_uid=study,
        series_instance_uid=result.series_instance_uid,
        sop_class_uid=result.sop_class_uid,
        sop_instance_uid=result.sop_instance_uid,
        content_uid=content_uid,
        file=file,
        sha256=sha256,
        reading=reading,
    )


def _reference(before: OutgoingObject) -> Reference:
    return Reference(
        sop_class_uid=before.sop_class_uid,
        sop_instance_uid=before.sop_instance_uid,
        study_instance_uid=before.study_instance_uid,
        series_instance_uid=before.series_instance_uid,
    )
