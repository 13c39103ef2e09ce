"""Who was scanned: read from a file again, and only where the user asks for it with ``--identify``.

The reading chain never carries identity, so none can slip into a log or a report by mistake.
"""

from hemoscope.dicom.elements import character_set
from hemoscope.dicom.part10 import parse
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.reports.report import PatientIdentity

_STUDY_DATE = 0x00080020
_PATIENT_NAME = 0x00100010
_PATIENT_ID = 0x00100020


def patient_identity(data: bytes, *, source: str, limits: ReadLimits | None = None) -> PatientIdentity:
    """Read name, ID and study date of one DICOM file, without its pixels; what the file lacks is an empty string.

    Raises:
        DicomReadError: the file can no longer be parsed.

    """
    elements = parse(data, source=source, limits=limits or ReadLimits()).elements
    characters = character_set(elements)
    return PatientIdentity(
        name=elements.person_name(_PATIENT_NAME, character_set=characters),
        id=elements.prose(_PATIENT_ID, character_set=characters),
        study_date=elements.text(_STUDY_DATE),
    )
