"""The pages of pictures as one Multi-frame True Color Secondary Capture Image (PS3.3 A.8.5).

Viewers that show no structured report, such as OHIF for reports without coordinates, show this.
"""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from hemoscope.reports.dicom_results.evidence import MANUFACTURER, finish
from hemoscope.reports.dicom_results.source_study import SourceImage, SourceStudy
from hemoscope.reports.dicom_results.superseded import Superseded, series_description
from hemoscope.version import __version__

SERIES_NUMBER = 7401
SOP_CLASS = "1.2.840.10008.5.1.4.1.1.7.4"
_PAGE_NUMBER_VECTOR = 0x00182001


def secondary_capture(
    source: SourceStudy,
    pages: Sequence[NDArray[np.uint8]],
    images: Sequence[SourceImage],
    *,
    series_instance_uid: str,
    sop_instance_uid: str,
    superseded: Superseded | None = None,
) -> Dataset:
    """Build the object, without compression, which every archive accepts.

    Args:
        source: of the study that was read.
        pages: uint8 (rows, columns, 3), all of one size.
        images: that the pages were drawn from.
        series_instance_uid: of its series.
        sop_instance_uid: of the object.
        superseded: the pictures of an earlier reading.
    """
    capture = Dataset()
    # Without Timezone Offset From UTC, which would hold for the times of the study too (PS3.3 C.12.1.1.8).
    now = datetime.now()
    capture.SOPClassUID, capture.SOPInstanceUID = SOP_CLASS, sop_instance_uid
    capture.StudyInstanceUID, capture.SeriesInstanceUID = source.study_instance_uid, series_instance_uid
    capture.SeriesNumber, capture.InstanceNumber = SERIES_NUMBER, 1
    capture.Modality, capture.ConversionType = "OT", "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.SeriesDescription = series_description("pictures", superseded)
    # Without it, Laterality would be required (PS3.3 C.7.3.1).
    capture.BodyPartExamined = "HEAD"
    capture.Manufacturer = MANUFACTURER
    capture.ManufacturerModelName, capture.SoftwareVersions = "Hemoscope", __version__
    capture.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    capture.InstanceCreationDate, capture.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    capture.ContentDate, capture.ContentTime = capture.InstanceCreationDate, capture.InstanceCreationTime
    capture.PatientOrientation = ""
    # The pages name no patient.
    capture.BurnedInAnnotation = "NO"
    capture.update(source.lossy)
    _add_references(capture, images)
    _add_pixels(capture, pages)
    return finish(capture, source)


def _add_references(capture: Dataset, images: Sequence[SourceImage]) -> None:
    references = []
    for image in images:
        reference = Dataset()
        reference.ReferencedSOPClassUID = image.sop_class_uid
        reference.ReferencedSOPInstanceUID = image.sop_instance_uid
        if image.frame is not None:
            reference.ReferencedFrameNumber = image.frame
        references.append(reference)
    if references:
        capture.SourceImageSequence = references


def _add_pixels(capture: Dataset, pages: Sequence[NDArray[np.uint8]]) -> None:
    frames = np.stack(pages)
    count, capture.Rows, capture.Columns, capture.SamplesPerPixel = frames.shape
    capture.NumberOfFrames = count
    capture.FrameIncrementPointer = _PAGE_NUMBER_VECTOR
    capture.PageNumberVector = list(range(1, count + 1))
    capture.PhotometricInterpretation, capture.PlanarConfiguration = "RGB", 0
    capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 8, 8, 7, 0
    pixels = frames.tobytes()
    capture.PixelData = pixels + b"\0" * (len(pixels) % 2)
    capture["PixelData"].VR = "OB"
