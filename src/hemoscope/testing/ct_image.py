"""Builds CT Image objects (PS3.3 A.3) from Hounsfield units, valid for ``dciodvfy``. Millimetres are LPS."""

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import DSfloat

from hemoscope.testing.pixel_coding import LOSSY, NATIVE, Hounsfield, PixelCoding, pixel_data, stored_values
from hemoscope.version import __version__

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """Header values of a series, apart from its pixels.

    Attributes:
        orientation: direction cosines of a row, then of a column, Image Orientation (0020,0037).
        origin_mm: Image Position (0020,0032) of the first slice; None puts the middle of the stack at 0.
        gantry_tilt_degrees: tilts the slices while the table moves along z.
        slice_thickness_mm: None is the slice spacing.
    """

    orientation: tuple[float, float, float, float, float, float] = AXIAL
    origin_mm: tuple[float, float, float] | None = None
    gantry_tilt_degrees: float = 0.0
    slice_thickness_mm: float | None = None
    kvp: float = 120.0
    convolution_kernel: str = "H30s"
    contrast_agent: str | None = None
    body_part: str = "HEAD"
    study_description: str = "CT HEAD"
    series_description: str = "AXIAL 5.0"
    series_number: int = 1
    patient_name: str = "Phantom^Head"
    patient_id: str = "PHANTOM"
    date: str = "20200101"
    image_comments: str | None = None

    def tilted(self) -> tuple[float, ...]:
        """Orientation of the slices, tilted about their rows."""
        row, column = np.array(self.orientation).reshape(2, 3)
        angle = np.deg2rad(self.gantry_tilt_degrees)
        leant = column * np.cos(angle) - np.cross(row, column) * np.sin(angle)
        return tuple(float(v) for v in (*row, *leant))

    def positions(self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
        """Image Position of each slice of a stack of ``shape`` (z, y, x), shape (slices, 3)."""
        row, column = np.array(self.orientation).reshape(2, 3)
        feed = np.cross(row, column) * spacing_mm[0]
        half = [(n - 1) / 2 * mm for n, mm in zip(shape[1:], spacing_mm[1:], strict=True)]
        middle = -half[1] * row - half[0] * column - feed * (shape[0] - 1) / 2
        first = middle if self.origin_mm is None else np.array(self.origin_mm)
        return np.asarray(first + np.arange(shape[0])[:, None] * feed)


def stable_uid(*names: object) -> UID:
    """Return a UID under 2.25 (PS3.5 B.2) that is always the same for the same names."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(('hemoscope', *map(str, names)))).int}")


def decimal(value: float) -> DSfloat:
    """Return a number as a decimal string (DS) of at most 16 characters, rounded to a millionth."""
    return DSfloat(round(float(value), 6), auto_format=True)


def study_dataset(
    sop_class: UID, *, seed: int | str, instance: str, acquisition: Acquisition, modality: str = "CT"
) -> Dataset:
    """Return the patient, study, series, equipment and SOP common modules of an object."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = stable_uid(seed, "instance", acquisition.series_number, instance)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = acquisition.date
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ""
    ds.Modality = modality
    ds.Manufacturer = "Hemoscope"
    ds.ManufacturerModelName = "Phantom"
    ds.SoftwareVersions = __version__
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = acquisition.study_description
    ds.SeriesDescription = acquisition.series_description
    ds.PatientName = acquisition.patient_name
    ds.PatientID = acquisition.patient_id
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.StudyInstanceUID = stable_uid(seed, "study")
    ds.SeriesInstanceUID = stable_uid(seed, "series", acquisition.series_number)
    ds.StudyID = "1"
    ds.SeriesNumber = acquisition.series_number
    ds.InstanceNumber = 1
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def ct_dataset(
    hounsfield: Hounsfield,
    *,
    seed: int | str = 0,
    index: int = 0,
    position_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    spacing_mm: tuple[float, float, float] = (5.0, 1.0, 1.0),
    coding: PixelCoding | None = None,
    acquisition: Acquisition | None = None,
) -> Dataset:
    """Return one slice as a CT Image object, ready to save.

    Args:
        hounsfield: HU, shape (rows, columns).
        seed: of the study, series and instance UIDs; slices of one series share it.
        index: number of the slice in its series, from 0.
        position_mm: centre of the first pixel.
        spacing_mm: between slices, rows and columns.
        coding: of the pixels.
        acquisition: header values.

    Raises:
        ValueError: if the bits of ``coding`` cannot hold the HU.
    """
    coding, acquisition = coding or PixelCoding(), acquisition or Acquisition()
    ds = study_dataset(CTImageStorage, seed=seed, instance=str(index), acquisition=acquisition)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber, ds.AcquisitionNumber = index + 1, 1
    add_scan(ds, acquisition)
    ds.FrameOfReferenceUID = stable_uid(seed, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.PatientPosition = "HFS"
    ds.ImagePositionPatient = [decimal(v) for v in position_mm]
    ds.ImageOrientationPatient = [decimal(v) for v in acquisition.tilted()]
    ds.PixelSpacing = [decimal(v) for v in spacing_mm[1:]]
    ds.SliceThickness = decimal(acquisition.slice_thickness_mm or spacing_mm[0])
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = decimal(coding.intercept), decimal(coding.slope), "HU"
    ds.WindowCenter, ds.WindowWidth = decimal(40), decimal(80)
    add_pixels(ds, hounsfield[None], coding)
    return ds


def add_scan(ds: Dataset, acquisition: Acquisition) -> None:
    """Add the scan's attributes of the CT Image module (PS3.3 C.8.2.1)."""
    ds.BodyPartExamined = acquisition.body_part
    ds.KVP = decimal(acquisition.kvp)
    ds.ConvolutionKernel = acquisition.convolution_kernel
    ds.GantryDetectorTilt = decimal(acquisition.gantry_tilt_degrees)
    if acquisition.contrast_agent is not None:
        ds.ContrastBolusAgent = acquisition.contrast_agent
    if acquisition.image_comments is not None:
        ds.ImageComments = acquisition.image_comments


def add_pixels(ds: Dataset, hounsfield: Hounsfield, coding: PixelCoding) -> None:
    """Add the image pixel module for HU of shape (frames, rows, columns)."""
    stored = stored_values(hounsfield, coding)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = coding.bits_allocated, coding.bits_stored, coding.bits_stored - 1
    ds.PixelRepresentation = int(coding.signed)
    if coding.padding is not None:
        ds.PixelPaddingValue = coding.padding
    if coding.padding_limit is not None:
        ds.PixelPaddingRangeLimit = coding.padding_limit
    data = pixel_data(list(stored), coding)
    if coding.transfer_syntax in LOSSY:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = decimal(round(stored.nbytes / len(data), 2))
        ds.LossyImageCompressionMethod = LOSSY[coding.transfer_syntax]
    ds.PixelData = data
    ds["PixelData"].VR = "OB" if coding.bits_allocated == 8 or coding.transfer_syntax not in NATIVE else "OW"
    ds["PixelData"].is_undefined_length = coding.transfer_syntax not in NATIVE
    ds.file_meta.TransferSyntaxUID = coding.transfer_syntax
