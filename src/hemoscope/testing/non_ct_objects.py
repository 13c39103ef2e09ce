"""Writes objects that occur in real studies but are not readable CT slices, to test refusals.

Each function writes one valid object of the study that ``seed`` names and returns its path.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, XRayRadiationDoseSRStorage

from hemoscope.testing.ct_image import Acquisition, ct_dataset, stable_uid, study_dataset
from hemoscope.testing.dicom_writer import save
from hemoscope.testing.phantom import make_phantom
from hemoscope.testing.pixel_coding import PixelCoding


def write_localizer(path: Path, *, seed: int = 0) -> Path:
    """Write a scout: a CT Image of type LOCALIZER, seen from the front."""
    head = make_phantom(seed=seed, shape=(32, 64, 64)).hounsfield
    view = np.repeat(head[::-1].mean(axis=1), 2, axis=0).astype(np.int16)
    acquisition = Acquisition(
        orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0), series_number=90, series_description="TOPOGRAM"
    )
    dataset = ct_dataset(view, seed=seed, spacing_mm=(5.0, 3.6, 3.6), acquisition=acquisition)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    del dataset.RescaleType  # projections are not in HU
    return save(dataset, path)


def write_monochrome1(path: Path, *, seed: int = 0) -> Path:
    """Write a slice as MONOCHROME1, in which high values are dark: PS3.3 C.8.2.1 allows it, Hemoscope refuses it."""
    head = make_phantom(seed=seed, shape=(1, 64, 64)).hounsfield
    dataset = ct_dataset(head[0], seed=seed, acquisition=Acquisition(series_number=91))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    return save(dataset, path)


def write_without_rescale(path: Path, *, seed: int = 0) -> Path:
    """Write a slice without rescale, so that its stored values have no HU."""
    head = make_phantom(seed=seed, shape=(1, 64, 64)).hounsfield
    dataset = ct_dataset(head[0], seed=seed, acquisition=Acquisition(series_number=92))
    del dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType
    return save(dataset, path)


def write_secondary_capture(path: Path, *, seed: int = 0) -> Path:
    """Write a screenshot: 8-bit grey values of a windowed slice, without HU."""
    return save(_capture(_windowed(seed), seed=seed, number=93), path)


def write_colour(path: Path, *, seed: int = 0) -> Path:
    """Write a colour image, such as a perfusion map or a rendering."""
    grey = _windowed(seed)
    return save(_capture(np.stack([grey, grey // 2, 255 - grey], axis=-1), seed=seed, number=94), path)


def write_dose_report(path: Path, *, seed: int = 0) -> Path:
    """Write an X-Ray Radiation Dose SR with only its title; it has no pixels."""
    acquisition = Acquisition(series_number=95, series_description="DOSE REPORT")
    ds = study_dataset(XRayRadiationDoseSRStorage, seed=seed, instance="dose", acquisition=acquisition, modality="SR")
    del ds.AcquisitionDate, ds.AcquisitionTime
    ds.ReferencedPerformedProcedureStepSequence = Sequence([])
    ds.DeviceSerialNumber = "1"
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.PerformedProcedureCodeSequence = Sequence([])
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = Sequence([_coded(codes.DCM.XRayRadiationDoseReport)])
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "10011"
    ds.ContentTemplateSequence = Sequence([template])
    uid = Dataset()
    uid.RelationshipType, uid.ValueType = "HAS OBS CONTEXT", "UIDREF"
    uid.ConceptNameCodeSequence = Sequence([_coded(codes.DCM.DeviceObserverUID)])
    uid.UID = stable_uid(seed, "device")
    ds.ContentSequence = Sequence([uid])
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return save(ds, path)


def _windowed(seed: int) -> NDArray[np.uint8]:
    """Return grey values of a slice in the brain window, shape (64, 64)."""
    head = make_phantom(seed=seed, shape=(1, 64, 64)).hounsfield[0]
    grey: NDArray[np.uint8] = (np.clip(head / 80.0, 0.0, 1.0) * 255).astype(np.uint8)
    return grey


def _capture(pixels: NDArray[np.uint8], *, seed: int, number: int) -> Dataset:
    """Return a Secondary Capture Image (PS3.3 A.8.1) of shape (rows, columns) or (rows, columns, 3)."""
    acquisition = Acquisition(series_number=number, series_description="SCREEN")
    ds = study_dataset(SecondaryCaptureImageStorage, seed=seed, instance="capture", acquisition=acquisition)
    ds.ConversionType = "WSD"
    ds.BodyPartExamined = acquisition.body_part
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = ""
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = PixelCoding().transfer_syntax
    return ds


def _coded(code: object) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        getattr(code, name) for name in ("value", "scheme_designator", "meaning")
    )
    return item
