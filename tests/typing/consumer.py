"""A user's code, checked by ``mypy --strict`` in ``tests/test_public_api.py``: the package's types reach its users."""

from pathlib import Path
from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import hemoscope
from hemoscope import Hemorrhage, Prediction, Predictor, StudyReading


def read_all(folder: Path, output: Path) -> list[hemoscope.Triage]:
    model = hemoscope.load_model()
    assert_type(model, Predictor)
    archive = hemoscope.open_archive([folder, "more.zip"])
    assert_type(archive.rejected, tuple[hemoscope.Rejected, ...])
    triages = []
    for outcome in model.studies(archive, maps=True):
        if outcome.reading is not None:
            show(outcome.reading, output)
            triages.append(outcome.reading.findings.triage)
    return triages


def show(reading: StudyReading, output: Path) -> None:
    assert_type(reading.volume.hounsfield, NDArray[np.int16])
    assert_type(reading.affine, NDArray[np.float64])
    assert_type(reading.heat_map("any", 0), NDArray[np.float32])
    assert_type(reading.heat_map(Hemorrhage.SUBDURAL, 0), NDArray[np.float32])
    assert_type(reading.probabilities.slice_probabilities, NDArray[np.float64])
    assert_type(reading.findings.probabilities["subdural"], float)
    reading.to_nifti(output / "volume.nii.gz")
    reading.to_nifti(output / "any.nii.gz", heat_map="any")


def one_line(path: str) -> tuple[Prediction, StudyReading | None]:
    try:
        prediction = hemoscope.predict(path, model=hemoscope.load_model("bundle", threads=2))
    except hemoscope.HemoscopeError as error:
        raise SystemExit(str(error)) from error
    volume = hemoscope.read_nifti("head.nii.gz")
    assert_type(volume, hemoscope.HounsfieldVolume)
    return prediction, prediction.studies[0] if prediction.studies else None
