"""A phantom that was read, with key slices of two labels, and its results."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.inference.findings import StudyFindings
from hemoscope.inference.predictor import Predictor, StudyReading
from hemoscope.labels import Hemorrhage
from hemoscope.reports.dicom_results.build import dicom_results
from hemoscope.reports.dicom_results.result_file import DicomResult
from hemoscope.reports.dicom_results.source_study import source_study
from hemoscope.reports.report import model_identity
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

PRESENT = (Hemorrhage.ANY, Hemorrhage.SUBDURAL)
KEYS = (3, 1)


def with_findings(findings: StudyFindings, *, unestablished: frozenset[Hemorrhage] = frozenset()) -> StudyFindings:
    """Findings of known content: two labels present, with two key slices."""
    keys = tuple(findings.slices[index].ref for index in KEYS)
    return replace(
        findings,
        findings=tuple(
            replace(
                one,
                present=one.label in PRESENT,
                established=one.label not in unestablished,
                slices=keys if one.label in PRESENT else (),
            )
            for one in findings.findings
        ),
    )


@pytest.fixture
def make_results(tmp_path: Path, predictor: Predictor) -> Callable[..., dict[str, Dataset]]:
    """Write a phantom, read it, and return its results as data sets by kind."""

    def make(
        *,
        shape: tuple[int, int, int] = (6, 64, 64),
        change: Callable[[Path], None] | None = None,
        unestablished: frozenset[Hemorrhage] = frozenset(),
        result_options: dict[str, Any] | None = None,
        **writing: Any,
    ) -> dict[str, Dataset]:
        folder = tmp_path / "images"
        for path in write_series(make_phantom(seed=2, shape=shape), folder, **writing):
            if change is not None:
                change(path)
        archive = open_archive([folder])
        (reading,) = predictor.predict(archive, maps=True).studies
        reading = replace(reading, findings=with_findings(reading.findings, unestablished=unestablished))
        return {one.kind: opened(one) for one in results_of(reading, archive, predictor, result_options or {})}

    return make


def results_of(
    reading: StudyReading, archive: Archive, predictor: Predictor, options: dict[str, Any]
) -> tuple[DicomResult, ...]:
    source = source_study(reading.findings, archive.load)
    return dicom_results(
        reading, source, predictor.bundle.card, model_identity(predictor.bundle, predictor.engine.precision), **options
    )


def opened(result: DicomResult) -> Dataset:
    return dcmread(DicomBytesIO(result.content))
