"""De-identified copies: no planted identity survives at any depth, geometry and pixels do, pseudonyms are stable."""

import io
from copy import deepcopy

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from hemoscope.dicom.deidentify import deidentified, pseudonymous_id, pseudonymous_uid
from hemoscope.dicom.read import read_headers, read_slice
from hemoscope.dicom.series import build_studies
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

KEY = b"a key that only the site holds"
SECRET = "Zachariasson"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A phantom's slice with identity planted in every corner that hospitals use."""
    folder = tmp_path_factory.mktemp("phantom")
    path = write_series(make_phantom(seed=3, shape=(1, 64, 64)), folder)[0]
    dataset = pydicom.dcmread(path)
    dataset.PatientName, dataset.PatientID = f"{SECRET}^Anna", f"{SECRET}-1"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.ContentDate = "19481231", "20250607", "20250607"
    dataset.InstitutionName = dataset.StationName = dataset.StudyDescription = SECRET
    dataset.PatientComments = dataset.ImageComments = SECRET
    dataset.OperatorsName = dataset.ReferringPhysicianName = f"{SECRET}^Otto"
    request = Dataset()
    request.RequestedProcedureDescription, request.RequestedProcedureID = SECRET, SECRET
    request.ReferencedStudySequence = Sequence([_reference(dataset.StudyInstanceUID)])
    dataset.RequestAttributesSequence = Sequence([request])
    unlisted = Dataset()
    unlisted.PersonName = f"{SECRET}^Deep"
    dataset.ContentSequence = Sequence([unlisted])
    dataset.private_block(0x0019, "SECRETIVE", create=True).add_new(1, "LO", SECRET)
    dataset.add_new(0x00091001, "UN", SECRET.encode())
    dataset.add_new(0x60004000, "LT", SECRET)
    dataset.file_meta.SourceApplicationEntityTitle = SECRET
    return dataset


def _reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", uid
    return item


def as_bytes(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_no_planted_identity_date_or_uid_is_left_anywhere(original: Dataset) -> None:
    written = as_bytes(deidentified(original, key=KEY, source="a.dcm"))
    uids = (original.SOPInstanceUID, original.StudyInstanceUID, original.SeriesInstanceUID)
    for secret in (SECRET, "19481231", "20250607", original.FrameOfReferenceUID, *uids):
        assert secret.encode() in as_bytes(original)
        assert secret.encode() not in written


def test_the_original_is_left_as_it_was(original: Dataset) -> None:
    before = as_bytes(original)
    deidentified(original, key=KEY, source="a.dcm")
    assert as_bytes(original) == before


def test_geometry_and_hounsfield_units_are_kept(original: Dataset) -> None:
    kept = read_slice(as_bytes(deidentified(original, key=KEY, source="a.dcm")))
    given = read_slice(as_bytes(original))
    np.testing.assert_array_equal(kept.hounsfield, given.hounsfield)
    for name in ("position_mm", "orientation", "pixel_spacing_mm", "slice_thickness_mm", "kvp"):
        assert getattr(kept.header, name) == getattr(given.header, name)


def test_the_copy_states_that_and_how_identity_was_removed(original: Dataset) -> None:
    copy = deidentified(original, key=KEY, source="a.dcm")
    assert copy.PatientIdentityRemoved == "YES"
    assert "PS3.15" in copy.DeidentificationMethod
    assert copy.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID


def test_twice_is_once(original: Dataset) -> None:
    once = deidentified(original, key=KEY, source="a.dcm")
    assert as_bytes(deidentified(once, key=KEY, source="a.dcm")) == as_bytes(once)


def test_slices_of_one_study_stay_together_and_another_key_cannot_follow_them(original: Dataset) -> None:
    first, second = (deidentified(original, key=KEY, source="a.dcm") for _ in range(2))
    other = deidentified(original, key=KEY[::-1], source="a.dcm")
    assert first.StudyInstanceUID == second.StudyInstanceUID != other.StudyInstanceUID
    assert first.PatientID == second.PatientID != other.PatientID
    assert first.PatientName == second.PatientName != other.PatientName


@pytest.mark.parametrize("name", ["PatientName", "PatientBirthDate"])
def test_patients_who_share_an_id_stay_apart(original: Dataset, name: str) -> None:
    one, another = deepcopy(original), deepcopy(original)
    if name == "PatientName":
        one.PatientBirthDate = another.PatientBirthDate = ""
    setattr(another, name, "19700101" if name == "PatientBirthDate" else "Other^Berta")
    pairs = [(one, another), [deidentified(each, key=KEY, source="a.dcm") for each in (one, another)]]
    for pair in pairs:
        headers = [header for each in pair for header in read_headers(as_bytes(each), source="a.dcm")]
        assert len(build_studies(headers)) == 2


def test_pixels_that_show_who_it_is_are_refused(original: Dataset) -> None:
    marked = pydicom.dcmread(io.BytesIO(as_bytes(original)))
    marked.BurnedInAnnotation = "YES"
    with pytest.raises(DicomReadError, match=r"a\.dcm: burned-in annotation is YES"):
        deidentified(marked, key=KEY, source="a.dcm")


def test_a_key_too_short_to_be_secret_is_refused(original: Dataset) -> None:
    with pytest.raises(ValueError, match="at least 16 bytes, got 5"):
        deidentified(original, key=b"short", source="a.dcm")


@given(st.text(max_size=64))
def test_a_pseudonym_is_valid_stable_and_its_own_pseudonym(identity: str) -> None:
    uid, name = pseudonymous_uid(identity, KEY), pseudonymous_id(identity, KEY)
    assert UID(uid).is_valid
    assert len(uid) <= 64
    assert pseudonymous_uid(uid, KEY) == uid != identity
    assert pseudonymous_id(name, KEY) == name != identity
    assert len(name) <= 64


@given(st.text(max_size=20), st.text(max_size=20))
def test_different_identities_have_different_pseudonyms(one: str, other: str) -> None:
    assert (pseudonymous_uid(one, KEY) == pseudonymous_uid(other, KEY)) == (one == other)
