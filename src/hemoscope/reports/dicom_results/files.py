"""Results as DICOM files of a folder: the objects that a PACS would be sent, without a network."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.slices import Rejected
from hemoscope.errors import DicomReadError, DicomResultError, MissingExtraError
from hemoscope.files import write_bytes
from hemoscope.inference.card import ModelCard
from hemoscope.inference.study_reading import StudyReading
from hemoscope.reports.dicom_results.source_study import source_study
from hemoscope.reports.output_folder import explained, folder_name
from hemoscope.reports.report import ModelIdentity


def require_highdicom() -> None:
    """Check that the extra is there, before the long work.

    Raises:
        MissingExtraError: highdicom is not installed.
    """
    if find_spec("highdicom") is None:
        raise MissingExtraError(package="highdicom", extra="hospital")


def write_dicom_results(
    reading: StudyReading,
    load: Callable[[str], bytes],
    folder: Path,
    *,
    card: ModelCard,
    model: ModelIdentity,
    name: str,
    limits: ReadLimits,
) -> Rejected | None:
    """Write ``STUDY/report.dcm``, ``pictures.dcm`` and ``key-slices.dcm``; return why not, if they cannot be made.

    Args:
        reading: with its heat maps.
        load: returns the bytes of a file of the study, as ``Archive.load`` does.
        folder: of the results.
        card: of the model that read the study.
        model: which model that was.
        name: of the study's folder.
        limits: of reading the files again.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    from hemoscope.reports.dicom_results.build import dicom_results

    try:
        source = source_study(reading.findings, load, limits=limits)
    except (DicomResultError, DicomReadError, KeyError) as error:
        return _refused(error, name)
    place = folder / folder_name(name)
    with explained(folder):
        place.mkdir(parents=True, exist_ok=True)
        for result in dicom_results(reading, source, card, model):
            write_bytes(place / result.name, result.content)
    return None


def _refused(error: Exception, name: str) -> Rejected:
    """Say why a study has no results in DICOM; a volume that is no DICOM file has no source to load."""
    remedy = "Give the DICOM images of the study" if isinstance(error, KeyError) else ""
    cause = "the input is no DICOM file, so results in DICOM have nothing to refer to" if remedy else str(error)
    message = f"no results in DICOM: {cause}" + (f". {remedy}" if remedy else "")
    return Rejected(source=f"study {name}", code="no_dicom_result", message=message, remedy=remedy)
