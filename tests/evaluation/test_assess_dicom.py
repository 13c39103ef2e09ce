"""The error gallery of labelled DICOM shows what that of a prepared dataset shows."""

from pathlib import Path

import numpy as np
import pytest

from hemoscope.dicom.archive import Archive, open_archive
from hemoscope.evaluation.assess_dicom import assess_dicom
from hemoscope.evaluation.prediction_files import LabelTable
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABELS
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

SLICES = 6


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    write_series(make_phantom(seed=3, shape=(SLICES, 48, 48)), tmp_path / "head")
    return open_archive([tmp_path / "head"])


@pytest.fixture
def wrong(archive: Archive, predictor: Predictor) -> LabelTable:
    """Labels of every slice that contradict the study: positive where the model finds nothing, else negative."""
    (study,) = predictor.predict(archive).studies
    six = [float(one.probability < one.threshold) for one in study.findings.findings]
    ids = tuple(Path(source).stem for source in archive.sources)
    return LabelTable(name="l.csv", image_ids=ids, labels=np.tile(six, (SLICES, 1)), patients=("p",) * SLICES)


def test_the_gallery_shows_studies_and_names_strata(archive: Archive, predictor: Predictor, wrong: LabelTable) -> None:
    errors = assess_dicom(predictor, archive, wrong, gallery=2).errors
    assert errors is not None
    assert {error.label for error in errors if error.level == "study"} == set(LABELS)
    assert all("the head" in " ".join(error.strata) or "above" in error.strata for error in errors)


def test_a_study_of_which_a_slice_has_no_label_is_not_judged(
    archive: Archive, predictor: Predictor, wrong: LabelTable
) -> None:
    wrong.labels[0] = np.nan
    errors = assess_dicom(predictor, archive, wrong, gallery=2).errors
    assert errors is not None
    assert not [error for error in errors if error.level == "study"]
