"""Files of the report on one study that was just read: ``report.html`` and, if asked for, ``report.pdf``."""

from dataclasses import replace
from pathlib import Path

from hemoscope.inference.card import ModelCard
from hemoscope.inference.predictor import StudyReading
from hemoscope.reports.findings_json import findings_document
from hemoscope.reports.output_folder import write_study_file
from hemoscope.reports.picture_choice import picture_of
from hemoscope.reports.report import ModelIdentity, Report, ReportedStudy
from hemoscope.reports.study_report_content import StudyDocument, shown_slices, study_document
from hemoscope.reports.study_report_html import findings_html
from hemoscope.reports.threshold_words import threshold_words

HTML, PDF = "report.html", "report.pdf"


def report_of(reading: StudyReading, study: ReportedStudy, card: ModelCard, model: ModelIdentity) -> StudyDocument:
    """Put a study into words and pictures, one for each slice on which a label is most suspected.

    Args:
        reading: with its heat maps.
        study: the same study, with the patient's identity if it may be shown.
        card: of the model that read it.
        model: which model that was.

    Raises:
        ValueError: the study was read without its heat maps.
    """
    pictures = tuple(
        replace(picture_of(reading, card, ref, labels[0]), also=labels[1:])
        for ref, labels in shown_slices(study.findings.key_slices)
    )
    return study_document(
        findings_document(Report(model=model, studies=(study,), rejected=())),
        pictures=pictures,
        thresholds=threshold_words(card.to_json()),
    )


def write_study_report(report: StudyDocument, folder: Path, *, study_uid: str, pdf: bool = False) -> None:
    """Write ``reports/STUDY/report.html``, and ``report.pdf`` beside it with ``pdf``.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    write_study_file(findings_html(report).encode(), folder, study_uid=study_uid, name=HTML)
    if pdf:
        from hemoscope.reports.study_report_pdf import (
            findings_pdf,  # here, since loading ReportLab takes a third of a second
        )

        write_study_file(findings_pdf(report), folder, study_uid=study_uid, name=PDF)
