"""The work of one job: the files of an upload become pixels to look at and results, study by study.

Pixels are written before the model starts, so that a reader can scroll while the study is being scored.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.archive import Archive, DecodedSeries, Study
from hemoscope.dicom.series import Series
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DecoderStartError, HemoscopeError
from hemoscope.inference.card import ModelCard
from hemoscope.inference.heat_maps import local_probabilities
from hemoscope.inference.predictor import Predictor, Stage, StudyReading
from hemoscope.progress import Progress, StageProgress
from hemoscope.reports.findings_json import document_text, findings_document
from hemoscope.reports.report import Report, ReportedStudy, model_identity, unread_words
from hemoscope.store.database import storable
from hemoscope.store.found_studies import found_studies
from hemoscope.store.jobs import JobFailure, UploadJob
from hemoscope.store.other_series import keep_series, others_to_show
from hemoscope.store.outbox import NOTHING
from hemoscope.store.results import StudyGoneError, StudyResult
from hemoscope.store.scan_time import acquired_at, identity
from hemoscope.store.sources import check_could_be_read, named_by_number, open_upload
from hemoscope.store.storage import MAPS, VOLUME
from hemoscope.store.store import Store
from hemoscope.store.values import Geometry, StudyState
from hemoscope.store.viewer_geometry import geometry_of, with_result

if TYPE_CHECKING:
    from hemoscope.store.outgoing import OutgoingResults  # it needs the extra hospital

# A page shows no more than a few steps a second, and every step is a transaction.
_PROGRESS_EVERY_S = 0.2
_EXPORT = "Export the study again from its source, as axial CT of the head, and upload that"


class UploadReader:
    """A model and a store; reads one upload after the other, each with the same result whenever it is read again."""

    def __init__(
        self,
        store: Store,
        predictor: Predictor,
        *,
        keep_identity: bool,
        deidentify: bool,
        outgoing: "OutgoingResults | None" = None,
    ) -> None:
        """Choose what of the patient is kept: name and ID (``keep_identity``), or nothing at all (``deidentify``).

        ``outgoing`` makes the results that are sent to a PACS; None for none.
        """
        self._store = store
        self._predictor = predictor
        self._keep_identity = keep_identity and not deidentify
        self._deidentify = deidentify
        self.outgoing = outgoing
        self._model = model_identity(predictor.bundle, predictor.engine.precision)

    def read(self, job: UploadJob) -> None:
        """Read every study of an upload; what cannot be read is a result too, a failed study.

        Raises:
            LeaseLostError: the job is no longer the caller's; what was written meanwhile is removed again.
            StoreError: the disk is full or the database away.
            OSError: a file cannot be read now, and this is not the last attempt; studies without it were read.
            DecoderStartError: no decoder can be started; studies that need none were read.
        """
        store = self._store
        store.results.progress(job, None, state=StudyState.READING, done=0, total=0)
        opening = self._progress(job, None, StudyState.READING)
        archive = open_upload(
            store.folder,
            job.upload_id,
            deidentify=self._deidentify,
            last_attempt=self._is_last(job),
            limits=store.read_limits,
            progress=opening,
        )
        study_ids = store.results.begin(job, found_studies(archive.studies, job.upload_id))
        if not study_ids:
            return
        if not archive.studies and study_ids[0] is not None:
            self._refuse(job, study_ids[0], archive, archive.rejected)
        others = dict[str, list[Series]]()
        fault: OSError | DecoderStartError | None = None
        for study, study_id in zip(archive.studies, study_ids[: len(archive.studies)], strict=True):
            if study_id is not None:
                try:
                    with self._unless_gone(job, study_id):
                        others[study_id] = self._study(job, study_id, archive, study)
                except (OSError, DecoderStartError) as error:  # the other studies need not wait for the next attempt
                    if not isinstance(fault, OSError):  # which counts as an attempt
                        fault = error
        threads = self._predictor.engine.threads
        for study_id, wanted in others.items():  # after every result: no study waits for series that nobody reads
            with self._unless_gone(job, study_id):
                keep_series(store.database, store.folder, job, study_id, archive, wanted, threads=threads)
        if fault is not None:
            raise fault
        partly_deleted = store.results.finish_job(job)
        if partly_deleted or not store.keep_source:
            store.folder.remove_aside(store.folder.source(job.upload_id), job.upload_id)

    def _is_last(self, job: UploadJob) -> bool:
        return job.attempt >= self._store.jobs.attempts

    @contextmanager
    def _unless_gone(self, job: UploadJob, study_id: str) -> Iterator[None]:
        try:
            yield
        except StudyGoneError:
            self._store.folder.remove(self._store.folder.study(job.upload_id, study_id))

    def _study(self, job: UploadJob, study_id: str, archive: Archive, study: Study) -> list[Series]:
        """Decode, show, score and store one study; return its other series that are to be kept."""
        geometry = list[Geometry]()

        def show(decoded: DecodedSeries) -> None:
            geometry.append(self._show(job, study_id, archive, decoded))

        progress = self._stage_progress(job, study_id)
        outcome = self._predictor.read_study(archive, study, maps=True, on_decoded=show, progress=progress)
        if not self._is_last(job):
            check_could_be_read(outcome.rejected)
        if outcome.reading is None:
            refused = tuple(_of_an_upload(one) for one in outcome.rejected)
            self._refuse(job, study_id, archive, (*refused, *archive.rejected))
            return []
        self._keep(job, study_id, archive, outcome.reading, outcome.rejected, geometry[0])
        return others_to_show(study, geometry[0])[: self._store.keep_series]

    def _show(self, job: UploadJob, study_id: str, archive: Archive, decoded: DecodedSeries) -> Geometry:
        """Write the pixels, so that the study can be looked at."""
        source = decoded.slices[0].source
        hounsfield = decoded.volume.canonical.hounsfield.astype("<i2", order="C", copy=False)
        self._store.folder.write_array(job.upload_id, study_id, VOLUME, hounsfield)
        geometry = geometry_of(decoded)
        self._store.results.pixels_ready(
            job,
            study_id,
            geometry=geometry,
            acquired_at=acquired_at(archive, source),
            who=identity(archive, source) if self._keep_identity else None,
            pixels_sha256=_digest(hounsfield),
        )
        return geometry

    def _keep(
        self,
        job: UploadJob,
        study_id: str,
        archive: Archive,
        reading: StudyReading,
        rejected: Sequence[Rejected],
        geometry: Geometry,
    ) -> None:
        """Write heat maps, then the result."""
        findings, card, maps = reading.findings, self._predictor.bundle.card, reading.canonical.maps
        if maps is not None:
            self._store.folder.write_array(job.upload_id, study_id, MAPS, _stored_maps(maps, card))
        reported = ReportedStudy(findings=findings)
        result = StudyResult(
            findings=self._document(archive, (reported,), (*archive.rejected, *rejected)),
            geometry=with_result(geometry, reading, card),
            urgency=findings.urgency,
            suspected=tuple(one.label.value for one in findings.findings if one.present),
            not_established=tuple(one.label.value for one in findings.findings if not one.established),
            unread=_unread(reading),
        )
        outgoing = NOTHING
        if self.outgoing is not None:
            number = self._store.results.reading_number(study_id)
            outgoing = self.outgoing.make(archive, reading, study_id, number=number)
        try:
            self._store.results.finish_study(job, study_id, result, outgoing)
        except HemoscopeError:
            self._store.outbox.discard([one.file for one in outgoing.objects])
            raise

    def _refuse(self, job: UploadJob, study_id: str, archive: Archive, rejected: Sequence[Rejected]) -> None:
        """Write that nothing of a study can be read, and why."""
        document = self._document(archive, (), rejected)
        self._store.results.fail_study(job, study_id, _failure(rejected), findings=document)

    def _document(self, archive: Archive, studies: tuple[ReportedStudy, ...], rejected: Sequence[Rejected]) -> str:
        report = Report(model=self._model, studies=studies, rejected=tuple(rejected))
        return document_text(named_by_number(findings_document(report), archive))

    def _stage_progress(self, job: UploadJob, study_id: str) -> StageProgress:
        writers = {stage: self._progress(job, study_id, StudyState(stage)) for stage in Stage}

        def write(stage: str, done: int, total: int) -> None:
            writers[Stage(stage)](done, total)

        return write

    def _progress(self, job: UploadJob, study_id: str | None, state: StudyState) -> Progress:
        """Write progress at most five times a second."""
        last = monotonic()

        def write(done: int, total: int) -> None:
            nonlocal last
            if monotonic() - last >= _PROGRESS_EVERY_S:
                last = monotonic()
                self._store.results.progress(job, study_id, state=state, done=done, total=total)

        return write


def _digest(hounsfield: NDArray[np.int16]) -> str:
    """SHA-256 of a volume and its shape: equal for studies that show the same slices."""
    digest = hashlib.sha256(repr(hounsfield.shape).encode())
    digest.update(np.ascontiguousarray(hounsfield).data)  # no copy: it may be 125 MB
    return digest.hexdigest()


def _unread(reading: StudyReading) -> str | None:
    findings = reading.findings
    if findings.complete:
        return None
    return "; ".join(unread_words(one.count, one.message) for one in findings.unread_reasons)


def _stored_maps(maps: NDArray[np.float32], card: ModelCard) -> NDArray[np.float16]:
    """Class-activation logits (slices, 6, height, width) to local probabilities."""
    local = np.empty(maps.shape, dtype=np.float16)
    for index, one in enumerate(maps):
        local[index] = local_probabilities(one, card.calibration.slice, card.established)
    return local


def _of_an_upload(refused: Rejected) -> Rejected:
    """What follows the cause of a study's refusal is about options of the command line, which an upload lacks."""
    cause = storable(refused.message).partition(". ")[0]
    return replace(refused, source="upload", message=f"{cause}. {_EXPORT}", remedy=_EXPORT)


def _failure(rejected: Sequence[Rejected]) -> JobFailure:
    """Name a failure after the most frequent refusal, in its own words."""
    if not rejected:
        message = "The upload holds no file that could be a CT slice"
        return JobFailure(code="nothing_found", message=message, remedy=_EXPORT)
    code, count = Counter(one.code for one in rejected).most_common(1)[0]
    example = next(one for one in rejected if one.code == code)
    among = f" ({count} of {len(rejected)} files)" if len(rejected) > 1 else ""
    cause = storable(example.message.removesuffix(f". {example.remedy}"))[:2000]
    return JobFailure(code=code, message=cause + among, remedy=storable(example.remedy)[:2000] or _EXPORT)
