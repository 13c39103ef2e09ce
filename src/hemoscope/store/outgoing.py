"""Builds the results of a study for the destinations of the node, while its files are still there."""

import json
import logging
from collections.abc import Iterator, Sequence

from hemoscope.dicom.archive import Archive
from hemoscope.errors import DicomReadError, DicomResultError
from hemoscope.inference.card import ModelCard
from hemoscope.inference.findings import Triage
from hemoscope.inference.study_reading import StudyReading
from hemoscope.reports.dicom_results.build import DicomResult, ResultKind, dicom_results
from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.reports.dicom_results.evidence import Reference
from hemoscope.reports.dicom_results.source_study import SourceStudy, source_study
from hemoscope.reports.report import ModelIdentity
from hemoscope.store.node_settings import WEBHOOK, Destination, NodeSettings
from hemoscope.store.outbox import Outbox, OutgoingObject

_log = logging.getLogger("hemoscope.store")


class OutgoingResults:
    """Makes the objects of a study, and writes their files."""

    def __init__(self, outbox: Outbox, settings: NodeSettings, *, card: ModelCard, model: ModelIdentity) -> None:
        """Prepare; without a destination nothing is made."""
        self._outbox = outbox
        self._destinations = settings.destinations
        self._options = settings.report_options
        self._webhook = settings.webhook
        self._card = card
        self._model = model

    def make(self, archive: Archive, reading: StudyReading, study_id: str) -> tuple[OutgoingObject, ...]:
        """Make what is sent of a study that was read, and write the files; nothing if nobody wants any.

        A study whose images no result can refer to has none: the log says why, without naming it.

        Raises:
            StoreError: ``storage_full``.
        """
        return (*self._notification(reading, study_id), *self._results(archive, reading))

    def _notification(self, reading: StudyReading, study_id: str) -> Iterator[OutgoingObject]:
        """What the webhook sends: the store's random id of the study, and what is suspected."""
        findings = reading.findings
        if self._webhook is None or findings.urgency not in self._webhook.urgencies:
            return
        suspected = [one.label.value for one in findings.findings if one.present]
        body = {"event": "study_read", "study_id": study_id, "urgency": findings.urgency, "suspected": suspected}
        uid = derived_uid(WEBHOOK, study_id)
        yield OutgoingObject(
            destination=WEBHOOK,
            kind="webhook",
            study_instance_uid="",
            series_instance_uid="",
            sop_class_uid="",
            sop_instance_uid=uid,
            content_uid=uid,
            file=self._outbox.write(json.dumps(body).encode()),
        )

    def _results(self, archive: Archive, reading: StudyReading) -> tuple[OutgoingObject, ...]:
        findings = reading.findings
        routine = findings.triage is Triage.ROUTINE
        wanting = [one for one in self._destinations if one.send_routine or not routine]
        kinds = tuple(kind for kind in ResultKind if any(kind.value in one.outputs for one in wanting))
        if not kinds:
            return ()
        try:
            source = source_study(findings, archive.load, limits=archive.limits)
        except (DicomResultError, DicomReadError) as error:
            cause = str(error) if isinstance(error, DicomResultError) else error.code
            _log.warning("a study has no results in DICOM: %s", cause)
            return ()
        return tuple(self._objects(reading, source, kinds, wanting))

    def _objects(
        self, reading: StudyReading, source: SourceStudy, kinds: tuple[ResultKind, ...], wanting: Sequence[Destination]
    ) -> Iterator[OutgoingObject]:
        study = source.study_instance_uid
        for result in self._build(reading, source, kinds):
            if self._outbox.known(study, result.sop_instance_uid):
                continue  # the same was said before
            content_uid, sent = result.sop_instance_uid, self._following(reading, source, result)
            file = self._outbox.write(sent.content)
            for destination in wanting:
                if result.kind.value in destination.outputs:
                    yield OutgoingObject(
                        destination=destination.name,
                        kind=result.kind.value,
                        study_instance_uid=study,
                        series_instance_uid=sent.series_instance_uid,
                        sop_class_uid=sent.sop_class_uid,
                        sop_instance_uid=sent.sop_instance_uid,
                        content_uid=content_uid,
                        file=file,
                    )

    def _following(self, reading: StudyReading, source: SourceStudy, result: DicomResult) -> DicomResult:
        """Return the result, or for a report that follows another one, the report that names it."""
        if result.kind is not ResultKind.REPORT:
            return result
        before = self._outbox.latest(source.study_instance_uid, result.kind.value)
        if before is None:
            return result
        (following,) = self._build(reading, source, (result.kind,), (_reference(before),))
        return following

    def _build(
        self,
        reading: StudyReading,
        source: SourceStudy,
        kinds: tuple[ResultKind, ...],
        predecessors: tuple[Reference, ...] = (),
    ) -> tuple[DicomResult, ...]:
        return dicom_results(
            reading,
            source,
            self._card,
            self._model,
            kinds=kinds,
            options=self._options,
            predecessors=predecessors,
        )


def _reference(before: OutgoingObject) -> Reference:
    return Reference(
        sop_class_uid=before.sop_class_uid,
        sop_instance_uid=before.sop_instance_uid,
        study_instance_uid=before.study_instance_uid,
        series_instance_uid=before.series_instance_uid,
    )
