"""The source images as the data sets that highdicom takes, and an object's patient and study, set after it was built.

highdicom decodes and checks values; what it is given here is therefore minimal and plain. ``finish`` then puts the
real, undecoded elements of patient and study into the object.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from hemoscope.reports.dicom_results.source_study import SourceImage, SourceStudy

MANUFACTURER = "Hemoscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An object that another one refers to."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str

    def data_set(self) -> Dataset:
        """As highdicom takes it."""
        plain = Dataset()
        plain.SOPClassUID, plain.SOPInstanceUID = self.sop_class_uid, self.sop_instance_uid
        plain.StudyInstanceUID, plain.SeriesInstanceUID = self.study_instance_uid, self.series_instance_uid
        return plain


def evidence_of(source: SourceStudy, images: Sequence[SourceImage]) -> list[Dataset]:
    """Return one data set for each object that holds one of the images, in order."""
    objects = {image.sop_instance_uid: image for image in images}
    return [_data_set(source, image) for image in objects.values()]


def _data_set(source: SourceStudy, image: SourceImage) -> Dataset:
    plain = Dataset()
    plain.SOPClassUID = image.sop_class_uid
    plain.SOPInstanceUID = image.sop_instance_uid
    plain.StudyInstanceUID = source.study_instance_uid
    plain.SeriesInstanceUID = image.series_instance_uid
    plain.Rows, plain.Columns = image.rows, image.columns
    # highdicom describes the plane of images of this modality, and takes its elements for granted.
    plain.Modality = "CT" if image.geometry else "OT"
    for keyword, values in image.geometry.items():
        setattr(plain, keyword, [round(value, 6) for value in values] if len(values) > 1 else values[0])
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(plain, keyword, "")
    plain.StudyDate = plain.StudyTime = plain.ReferringPhysicianName = ""
    return plain


def finish(built: Dataset, source: SourceStudy) -> Dataset:
    """Put patient and study into an object, with the character set that they are encoded in."""
    for tag in source.inherited.keys():  # noqa: SIM118 - iterating a data set decodes its elements
        built[tag] = source.inherited.get_item(tag)
    if source.character_set:
        built.SpecificCharacterSet = source.character_set.split("\\")
    elif "SpecificCharacterSet" in built:
        del built.SpecificCharacterSet
    return built
