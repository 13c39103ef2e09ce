"""The key slices as a Key Object Selection, "Of Interest" (PS3.16 TID 2010), so that a viewer can jump to them."""

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from hemoscope.inference.findings import StudyFindings
from hemoscope.reports.dicom_results.evidence import MANUFACTURER, evidence_of, finish
from hemoscope.reports.dicom_results.source_study import SourceImage, SourceStudy
from hemoscope.reports.dicom_results.superseded import Superseded, series_description
from hemoscope.version import DISCLAIMER, __version__

SERIES_NUMBER = 7402
_OF_INTEREST = Code("113000", "DCM", "Of Interest")
_CONCEPT_NAME = 0x0040A043


def key_images(source: SourceStudy, findings: StudyFindings) -> tuple[SourceImage, ...]:
    """Return the images to look at: the key slices of the labels that are present, each once, in anatomical order."""
    places = {ref.index for finding in findings.findings for ref in finding.slices}
    return tuple(source.images[place] for place in sorted(places))


def key_object_selection(
    source: SourceStudy,
    images: tuple[SourceImage, ...],
    *,
    series_instance_uid: str,
    sop_instance_uid: str,
    superseded: Superseded | None = None,
) -> Dataset:
    """Build the selection of these images; there must be one at least."""
    evidence = evidence_of(source, images)
    later = "" if superseded is None else f"{superseded.sentence}. "
    content = KeyObjectSelection(
        document_title=CodedConcept.from_code(_OF_INTEREST),
        referenced_objects=evidence,
        description=f"{later}Slices in which Hemoscope suspects hemorrhage. {DISCLAIMER}",
    )
    document = KeyObjectSelectionDocument(
        evidence=evidence,
        content=content,
        series_instance_uid=series_instance_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=sop_instance_uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description=series_description("key slices", superseded),
        software_versions=__version__,
    )
    drop_concept_names(document)
    _name_frames(document, images)
    return finish(document, source)


def drop_concept_names(document: Dataset) -> None:
    """Drop the concept name that TID 2010 forbids in items of images and other objects."""
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE") and _CONCEPT_NAME in item:
            del item[_CONCEPT_NAME]


def _name_frames(document: Dataset, images: tuple[SourceImage, ...]) -> None:
    """Name the frames of multi-frame images."""
    frames: dict[str, list[int]] = {}
    for image in images:
        if image.frame is not None:
            frames.setdefault(image.sop_instance_uid, []).append(image.frame)
    for item in document.ContentSequence:
        if item.ValueType != "IMAGE":
            continue
        reference = item.ReferencedSOPSequence[0]
        if reference.ReferencedSOPInstanceUID in frames:
            reference.ReferencedFrameNumber = frames[reference.ReferencedSOPInstanceUID]
