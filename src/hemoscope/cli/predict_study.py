"""One study of ``hemoscope predict``: reads it, and writes its pictures, its report and its results in DICOM."""

import argparse
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.errors import DicomReadError
from hemoscope.progress import StageProgress

if TYPE_CHECKING:
    from hemoscope.dicom.archive import Archive
    from hemoscope.dicom.slices import Rejected
    from hemoscope.inference.predictor import Predictor, StudyOutcome, StudyReading
    from hemoscope.reports.overlays import SlicePicture
    from hemoscope.reports.report import PatientIdentity, ReportedStudy


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDone:
    """What became of a study: its place in the run, the study if it was read, refusals, and the pictures written."""

    place: int
    study: "ReportedStudy | None"
    rejected: "tuple[Rejected, ...]"
    pictures: tuple[Path, ...] = ()


def finish_study(
    outcome: "StudyOutcome",
    place: int,
    archive: "Archive",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    names: Counter[str],
    show: StageProgress,
) -> StudyDone:
    """Write the files of a study that was read, and return what is reported of it; ``names`` counts its UID."""
    from hemoscope.reports.report import ReportedStudy

    outcome, patient = _identified(archive, outcome) if arguments.identify else (outcome, None)
    reading = outcome.reading
    if reading is None:
        return StudyDone(place=place, study=None, rejected=outcome.rejected)
    study = ReportedStudy(findings=reading.findings, patient=patient)
    uid = reading.findings.study_instance_uid
    names[uid] += 1
    # Two patients of one Study Instance UID are two studies: neither overwrites the files of the other.
    name = uid if names[uid] == 1 else f"{uid}-{names[uid]}"
    refused = outcome.rejected + _write_dicom_results(reading, archive, predictor, arguments, name)
    pictures: list[Path] = []
    if arguments.output is not None:
        pictures = _draw(reading, predictor, arguments, show, name)
        _write_study_report(reading, study, predictor, arguments, name)
    return StudyDone(place=place, study=study, rejected=refused, pictures=tuple(pictures))


def _identified(archive: "Archive", outcome: "StudyOutcome") -> "tuple[StudyOutcome, PatientIdentity | None]":
    """Add who was scanned; without a reading if a file was replaced since it was decoded: whose study is it?"""
    from hemoscope.dicom.sources import rejected_by

    try:
        return outcome, None if outcome.reading is None else _patient(archive, outcome.reading)
    except DicomReadError as error:
        return replace(outcome, reading=None, rejected=(*outcome.rejected, rejected_by(error))), None


def _patient(archive: "Archive", reading: "StudyReading") -> "PatientIdentity | None":
    """Return who was scanned; a NIfTI file does not say."""
    from hemoscope.reports.identity import patient_identity

    if all(study.study_instance_uid != reading.findings.study_instance_uid for study in archive.studies):
        return None
    source = reading.findings.slices[0].source
    return patient_identity(archive.load(source), source=source, limits=archive.limits)


def _write_study_report(
    reading: "StudyReading",
    study: "ReportedStudy",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    name: str,
) -> None:
    from hemoscope.reports.report import model_identity
    from hemoscope.reports.study_report_files import report_of, write_study_report

    bundle = predictor.bundle
    report = report_of(reading, study, bundle.card, model_identity(bundle, predictor.engine.precision))
    write_study_report(report, arguments.output, study_uid=name, pdf=arguments.pdf)


def _write_dicom_results(
    reading: "StudyReading",
    archive: "Archive",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    name: str,
) -> "tuple[Rejected, ...]":
    """Write the results of a study as DICOM if they are asked for; return the reason if they cannot be made."""
    if arguments.dicom is None:
        return ()
    from hemoscope.reports.dicom_results.files import write_dicom_results
    from hemoscope.reports.report import model_identity

    refused = write_dicom_results(
        reading,
        archive.load,
        arguments.dicom,
        card=predictor.bundle.card,
        model=model_identity(predictor.bundle, predictor.engine.precision),
        name=name,
        limits=archive.limits,
    )
    return () if refused is None else (refused,)


def _draw(
    reading: "StudyReading",
    predictor: "Predictor",
    arguments: argparse.Namespace,
    show: StageProgress,
    name: str,
) -> list[Path]:
    """Draw and write the pictures of a study, and return their paths."""
    from concurrent.futures import ThreadPoolExecutor

    from hemoscope.reports.output_folder import write_picture
    from hemoscope.reports.overlays import draw_overlay
    from hemoscope.reports.picture_choice import pictures_of

    def draw(picture: "SlicePicture") -> Path:
        image = draw_overlay(picture)
        return write_picture(image, arguments.output, study_uid=name, number=picture.number, label=picture.label)

    pictures = list(pictures_of(reading, predictor.bundle.card, every_slice=arguments.heatmaps))
    paths = list[Path]()
    with ThreadPoolExecutor(predictor.engine.threads) as pool:
        for path in pool.map(draw, pictures):
            paths.append(path)
            show("drawing", len(paths), len(pictures))
    return paths
