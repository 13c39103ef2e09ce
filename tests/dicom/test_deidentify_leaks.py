"""Markers in thirty places: none is left. Dates, ages, codes and screen captures; no new error of dciodvfy."""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from hemoscope.dicom.deidentify import DeidentifyOptions, deidentified, deidentified_file
from hemoscope.dicom.quality import is_other_anatomy, is_sharp_kernel
from hemoscope.dicom.read import read_headers, read_slice
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

KEY = b"a key that only the site holds"
MARK = "LEAKER"
SHIFTED = DeidentifyOptions(shift_dates=True)


@pytest.fixture
def plain(tmp_path: Path) -> FileDataset:
    """One slice of a phantom."""
    return pydicom.dcmread(write_series(make_phantom(seed=3, shape=(1, 64, 64)), tmp_path)[0])


def written(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def code(scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "X1", scheme, meaning
    return item


def top_level(dataset: Dataset) -> None:
    for keyword in (
        "PatientName", "PatientID", "OtherPatientNames", "PatientComments", "ImageComments", "InstitutionName",
        "StationName", "OperatorsName", "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription",
        "ProtocolName", "RequestedProcedureDescription", "ContentDescription", "ContentLabel", "DeviceSerialNumber",
        "ContrastBolusAgent", "DerivationDescription", "PositionReferenceIndicator", "WindowCenterWidthExplanation",
        "AcquisitionComments",
    ):  # fmt: skip
        setattr(dataset, keyword, MARK)


def nested(dataset: Dataset) -> None:
    deep, deeper = Dataset(), Dataset()
    deeper.PersonName = deeper.TextValue = MARK
    deeper.private_block(0x0029, MARK, create=True).add_new(1, "LO", MARK)
    deep.ConceptNameCodeSequence = Sequence([code("99HOSPITAL", MARK)])
    deep.ReferencedImageSequence = Sequence([deeper])
    dataset.SourceImageSequence = Sequence([deep])
    dataset.AnatomicRegionSequence = Sequence([code("99" + MARK, MARK)])
    dataset.add_new(0x0018A001, "SQ", Sequence([deeper]))  # Contributing Equipment Sequence


def elsewhere(dataset: Dataset) -> None:
    dataset.private_block(0x0019, MARK, create=True).add_new(1, "LO", MARK)
    dataset.add_new(0x60000022, "LO", MARK)  # Overlay Description
    dataset.add_new(0x60020022, "LO", MARK)
    dataset.add_new(0x60001500, "LO", MARK)  # Overlay Label
    dataset.add_new(0x60003000, "OW", MARK.encode())
    dataset.add_new(0x50003000, "OW", MARK.encode())  # Curve Data
    dataset.add_new(0x50000022, "LO", MARK)
    dataset.add_new(0x00091010, "UN", MARK.encode())
    dataset.add_new(0x00880904, "LO", MARK)  # Topic Title
    dataset.add_new(0x00420011, "OB", MARK.encode())  # Encapsulated Document
    dataset.add_new(0xFFFCFFFC, "OB", MARK.encode())  # Data Set Trailing Padding
    dataset.file_meta.SourceApplicationEntityTitle = MARK
    dataset.file_meta.PrivateInformationCreatorUID = generate_uid()
    dataset.file_meta.PrivateInformation = MARK.encode()
    dataset.preamble = MARK.encode().ljust(128, b"\0")


def test_no_marker_is_left_in_any_place(plain: FileDataset) -> None:
    for plant in (top_level, nested, elsewhere):
        plant(plain)
    given = written(plain)
    assert given.count(MARK.encode()) >= 30
    clean = deidentified_file(given, key=KEY, source="a")
    assert MARK not in str(pydicom.dcmread(io.BytesIO(clean)))
    assert MARK.encode() not in clean
    assert (read_slice(clean).hounsfield == read_slice(given).hounsfield).all()


def test_twice_is_once_with_every_option(plain: FileDataset) -> None:
    plain.StudyDate, plain.AcquisitionTime, plain.PatientAge = "20250607", "101112", "093Y"
    for options in (DeidentifyOptions(), SHIFTED):
        once = deidentified_file(written(plain), key=KEY, source="a", options=options)
        assert deidentified_file(once, key=KEY, source="a", options=options) == once


def test_dates_of_one_patient_move_together_and_times_stay(plain: FileDataset) -> None:
    plain.StudyDate, plain.SeriesDate, plain.StudyTime = "20250607", "20250610", "101112"
    plain.AcquisitionDateTime, plain.PatientBirthDate = "20250607101112.5+0100", "19481231"
    clean = deidentified(plain, key=KEY, source="a", options=SHIFTED)
    assert clean.StudyDate < "20250607"
    assert (
        int(pydicom.valuerep.DA(clean.SeriesDate).toordinal()) - pydicom.valuerep.DA(clean.StudyDate).toordinal() == 3
    )
    assert clean.StudyTime == "101112"
    assert clean.AcquisitionDateTime == f"{clean.StudyDate}101112.5+0100"
    assert clean.PatientBirthDate < "19481231"
    assert clean.LongitudinalTemporalInformationModified == "MODIFIED"
    assert "113107" in [item.CodeValue for item in clean.DeidentificationMethodCodeSequence]
    other = pydicom.dcmread(io.BytesIO(written(plain)))
    other.PatientID = "somebody else"
    assert deidentified(other, key=KEY, source="a", options=SHIFTED).StudyDate != clean.StudyDate
    assert "2025" not in str(deidentified(plain, key=KEY, source="a").get("StudyDate", ""))


def test_acquisition_times_stay_apart_without_their_values(plain: FileDataset) -> None:
    def cleaned(time: str) -> str:
        plain.AcquisitionTime = time
        return str(deidentified(plain, key=KEY, source="a").AcquisitionTime)

    assert cleaned("101112") == cleaned("101112") not in {"101112", cleaned("101113")}


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
@pytest.mark.parametrize(
    ("given", "kept"), [("012Y", "012Y"), ("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("22Y", "022Y")]
)
def test_an_age_is_kept_up_to_ninety_years(plain: FileDataset, given: str, kept: str) -> None:
    plain.PatientAge, plain.PatientSex = given, "F"
    clean = deidentified(plain, key=KEY, source="a")
    assert (clean.PatientAge, clean.PatientSex) == (kept, "F")


def test_published_codes_are_kept(plain: FileDataset) -> None:
    plain.AnatomicRegionSequence = Sequence([code("SCT", "Head")])
    assert deidentified(plain, key=KEY, source="a").AnatomicRegionSequence[0].CodeMeaning == "Head"


def test_references_to_other_images_are_renamed_as_those_images_are(plain: FileDataset) -> None:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = plain.SOPClassUID, plain.SOPInstanceUID
    plain.SourceImageSequence = Sequence([item])
    clean = deidentified(plain, key=KEY, source="a")
    assert clean.SourceImageSequence[0].ReferencedSOPInstanceUID == clean.SOPInstanceUID
    assert clean.SourceImageSequence[0].ReferencedSOPClassUID == plain.SOPClassUID


def test_a_screen_capture_must_say_that_nothing_is_burned_in(plain: FileDataset) -> None:
    plain.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    with pytest.raises(DicomReadError) as caught:
        deidentified(plain, key=KEY, source="a")
    assert caught.value.code == "burned_in_annotation"
    deidentified(plain, key=KEY, source="a", options=DeidentifyOptions(allow_unknown_annotation=True))
    plain.BurnedInAnnotation = "NO"
    deidentified(plain, key=KEY, source="a")


def test_reports_and_documents_are_refused(plain: FileDataset) -> None:
    del plain.PixelData
    with pytest.raises(DicomReadError) as caught:
        deidentified(plain, key=KEY, source="a")
    assert caught.value.code == "not_an_image"


@pytest.mark.reference_tool("dciodvfy")
@pytest.mark.parametrize("enhanced", [False, True])
def test_dciodvfy_finds_no_new_error(tmp_path: Path, reference_tool: Callable[[str], Path], *, enhanced: bool) -> None:
    path = write_series(make_phantom(seed=3, shape=(2, 64, 64)), tmp_path / "in", enhanced=enhanced)[0]
    (tmp_path / "out.dcm").write_bytes(deidentified_file(path.read_bytes(), key=KEY, source="a"))

    def errors(file: Path) -> set[str]:
        run = subprocess.run([reference_tool("dciodvfy"), file], capture_output=True, text=True, check=False)
        return {line for line in run.stderr.splitlines() if line.startswith("Error")}

    assert errors(tmp_path / "out.dcm") <= errors(path)


@pytest.mark.parametrize("keyword", ["SeriesDescription", "ContrastBolusAgent"])
@pytest.mark.parametrize(
    "text",
    ["1.0 THIN FOR MIP", "AxMIP Mueller", "Jod-Karte", "MonoE 70 keV", "Kopf o. KM", "Exam Protocol", "Thorax",
     "без контраста", "頭部造影", "平扫", "IV contrast no complications", "C-", "os osseux"],
)  # fmt: skip
@pytest.mark.parametrize("image_type", [["DERIVED", "SECONDARY"], ["ORIGINAL", "PRIMARY"]])
def test_a_description_is_read_as_before(plain: FileDataset, keyword: str, text: str, image_type: list[str]) -> None:
    def read(dataset: Dataset) -> object:
        try:
            (header,) = read_headers(written(dataset), source="a")
        except DicomReadError as error:
            return error.code
        sharp = is_sharp_kernel(header.convolution_kernel, header.series_description)
        return header.kind, header.contrast_agent is None, is_other_anatomy(header), sharp

    plain.SpecificCharacterSet, plain.ImageType = "ISO_IR 192", image_type
    plain.BodyPartExamined = plain.ConvolutionKernel = ""
    setattr(plain, keyword, text)
    clean = deidentified(plain, key=KEY, source="a")
    assert read(clean) == read(plain)
    assert "Mueller" not in str(clean)
