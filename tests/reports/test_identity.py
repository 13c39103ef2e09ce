"""Identity is read as the file says it, whatever its character set."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from hemoscope.errors import DicomReadError
from hemoscope.reports.identity import patient_identity
from hemoscope.reports.report import PatientIdentity
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import save, write_series


@pytest.mark.parametrize("name", ["Roe^Jane", "Müller^Jörg", "Yamada^Tarou=山田^太郎"])
def test_name_id_and_date_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    acquisition = Acquisition(patient_name=name, patient_id="7", date="20190203")
    (path,) = write_series(np.zeros((1, 16, 16), dtype=np.int16), tmp_path, acquisition=acquisition)
    found = patient_identity(path.read_bytes(), source="a")
    assert found == PatientIdentity(name=name, id="7", study_date="20190203")


def test_what_the_file_lacks_is_empty(tmp_path: Path) -> None:
    (path,) = write_series(np.zeros((1, 16, 16), dtype=np.int16), tmp_path)
    dataset = pydicom.dcmread(path)
    del dataset.PatientName, dataset.PatientID, dataset.StudyDate
    assert patient_identity(save(dataset, path).read_bytes(), source="a") == PatientIdentity(
        name="", id="", study_date=""
    )


def test_a_file_that_changed_into_something_else_is_refused() -> None:
    with pytest.raises(DicomReadError, match="a: no DICOM prefix"):
        patient_identity(b"not DICOM at all", source="a")
