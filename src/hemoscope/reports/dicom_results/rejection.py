"""A note that marks objects of earlier readings as rejected: IHE Imaging Object Change Management (IHE RAD TF-3, 4.66).

It is a Key Object Selection titled "Rejected for Quality Reasons" (DCM 113001, PS3.16 CID 7010), which an archive that
knows the profile hides or labels, and any other archive stores. The other titles of the profile do not fit: Patient
Safety (113037) and Incorrect Modality Worklist Entry (113038) claim errors that did not happen, and Data Retention
Policy Expired (113039) may be refused and is about a time that is over.
"""

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from hemoscope.dicom.elements import quiet
from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.reports.dicom_results.evidence import MANUFACTURER, Reference, finish
from hemoscope.reports.dicom_results.key_objects import drop_concept_names
from hemoscope.reports.dicom_results.result_file import DicomResult, dicom_result
from hemoscope.reports.dicom_results.source_study import SourceStudy
from hemoscope.version import DISCLAIMER, __version__

SERIES_NUMBER = 7403
_KIND = "rejection"
_REJECTED = Code("113001", "DCM", "Rejected for Quality Reasons")
_IMAGES = "1.2.840.10008.5.1.4.1.1.7."  # SOP classes of Secondary Capture


def rejection_note(source: SourceStudy, rejected: Sequence[Reference]) -> DicomResult:
    """Build the note of these objects; there must be one at least."""
    uid = derived_uid(_KIND, *sorted(one.sop_instance_uid for one in rejected))
    evidence = [_evidence(one) for one in rejected]
    with quiet():
        content = KeyObjectSelection(
            document_title=CodedConcept.from_code(_REJECTED),
            referenced_objects=evidence,
            description=f"A later reading by Hemoscope of more images supersedes these results. {DISCLAIMER}",
        )
        document = KeyObjectSelectionDocument(
            evidence=evidence,
            content=content,
            series_instance_uid=derived_uid("series", uid),
            series_number=SERIES_NUMBER,
            sop_instance_uid=uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            series_description="Hemoscope: superseded results (research use only)",
            software_versions=__version__,
        )
        drop_concept_names(document)
        return dicom_result(_KIND, finish(document, source))


def _evidence(reference: Reference) -> Dataset:
    plain = reference.data_set()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(plain, keyword, "")
    plain.StudyDate = plain.StudyTime = plain.ReferringPhysicianName = ""
    plain.Modality = "SR"
    if reference.sop_class_uid.startswith(_IMAGES):
        plain.Modality, plain.Rows, plain.Columns = "OT", 1, 1  # highdicom tells images by these
    return plain
