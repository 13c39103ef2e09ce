"""One result as a file (PS3.10), Explicit VR Little Endian."""

import io
from dataclasses import dataclass

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from hemoscope.reports.dicom_results.derived_uids import derived_uid
from hemoscope.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomResult:
    """One result object; ``content`` is its file (PS3.10), Explicit VR Little Endian."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    content: bytes

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.kind}.dcm"


def dicom_result(kind: str, data_set: Dataset) -> DicomResult:
    """Return an object as a file (PS3.10)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data_set.SOPClassUID, data_set.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derived_uid("implementation", __version__))
    meta.ImplementationVersionName = f"HEMOSCOPE_{__version__}"[:16]
    data_set.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    return DicomResult(
        kind=kind,
        sop_class_uid=str(data_set.SOPClassUID),
        sop_instance_uid=str(data_set.SOPInstanceUID),
        series_instance_uid=str(data_set.SeriesInstanceUID),
        content=stream.getvalue(),
    )
