"""Enhanced CT Image objects (PS3.3 A.38): a whole series in one multi-frame file with functional groups."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedCTImageStorage

from hemoscope.testing.ct_image import Acquisition, add_pixels, decimal, stable_uid, study_dataset
from hemoscope.testing.pixel_coding import LOSSY, Hounsfield, PixelCoding

_MOMENT = "120000"


def enhanced_ct_dataset(
    hounsfield: Hounsfield,
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float, float] = (5.0, 1.0, 1.0),
    coding: PixelCoding | None = None,
    acquisition: Acquisition | None = None,
    frame_intercepts: Sequence[float] | None = None,
) -> Dataset:
    """Return a series of slices as one Enhanced CT Image object, ready to save.

    Args:
        hounsfield: HU, shape (slices, rows, columns) from feet to head.
        seed: of the study, series and instance UIDs.
        spacing_mm: between slices, rows and columns.
        coding: of the pixels.
        acquisition: header values.
        frame_intercepts: a rescale intercept for each frame; by default that of ``coding``.

    Raises:
        ValueError: if the bits of ``coding`` cannot hold the HU, or there is not one intercept for each frame.
    """
    coding, acquisition = coding or PixelCoding(), acquisition or Acquisition()
    ds = _whole(seed, coding, acquisition)
    shared = _shared_groups(seed, spacing_mm, acquisition)
    positions = acquisition.positions(hounsfield.shape, spacing_mm)
    frames = [_frame_groups(index, position, ds.AcquisitionDateTime) for index, position in enumerate(positions)]
    if frame_intercepts is None:
        shared.PixelValueTransformationSequence = _rescale(coding.intercept, coding.slope)
    else:
        _add_rescales(frames, frame_intercepts, coding)
        # Stored values are computed with one intercept below: shift each frame by the difference of its own.
        hounsfield = hounsfield - (np.array(frame_intercepts) - coding.intercept)[:, None, None]
    ds.SharedFunctionalGroupsSequence = ItemSequence([shared])
    ds.PerFrameFunctionalGroupsSequence = ItemSequence(frames)
    ds.NumberOfFrames = len(frames)
    _add_dimensions(ds, seed)
    add_pixels(ds, hounsfield, coding)
    return ds


def _whole(seed: int, coding: PixelCoding, acquisition: Acquisition) -> Dataset:
    """Return the object without frames."""
    ds = study_dataset(EnhancedCTImageStorage, seed=seed, instance="enhanced", acquisition=acquisition)
    ds.FrameOfReferenceUID = stable_uid(seed, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.DeviceSerialNumber = "1"
    del ds.AcquisitionDate, ds.AcquisitionTime  # the enhanced object has Acquisition DateTime in their place
    _add_image_type(ds, coding, acquisition)
    if acquisition.contrast_agent is not None:
        ds.ContrastBolusAgentSequence = _contrast(acquisition.contrast_agent)
    return ds


def _item(**values: object) -> ItemSequence:
    """A sequence of one item with these attributes."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return ItemSequence([item])


def _add_rescales(frames: list[Dataset], intercepts: Sequence[float], coding: PixelCoding) -> None:
    """Give each frame its own rescale."""
    if len(intercepts) != len(frames):
        msg = f"{len(intercepts)} frame intercepts for {len(frames)} frames"
        raise ValueError(msg)
    for frame, intercept in zip(frames, intercepts, strict=True):
        frame.PixelValueTransformationSequence = _rescale(float(intercept), coding.slope)


def _rescale(intercept: float, slope: float) -> ItemSequence:
    return _item(RescaleIntercept=decimal(intercept), RescaleSlope=decimal(slope), RescaleType="HU")


def _add_image_type(ds: Dataset, coding: PixelCoding, acquisition: Acquisition) -> None:
    """Add the attributes of the Enhanced CT Image module (PS3.3 C.8.15.2)."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.PixelPresentation = "MONOCHROME"
    ds.VolumetricProperties = "VOLUME"
    ds.VolumeBasedCalculationTechnique = "NONE"
    ds.AcquisitionNumber = 1
    ds.AcquisitionDateTime = acquisition.date + _MOMENT
    ds.AcquisitionDuration = 1.0
    ds.ContentQualification = "RESEARCH"
    ds.BurnedInAnnotation = "NO"
    ds.PresentationLUTShape = "IDENTITY"
    ds.LossyImageCompression = "01" if coding.transfer_syntax in LOSSY else "00"
    ds.AcquisitionContextSequence = ItemSequence([])
    ds.PatientPosition = "HFS"
    ds.BodyPartExamined = acquisition.body_part
    if acquisition.image_comments is not None:
        ds.ImageComments = acquisition.image_comments


def _contrast(agent: str) -> ItemSequence:
    """Return one intravenous contrast agent (PS3.3 C.7.6.4b) with a private code."""
    sequence = _item(
        ContrastBolusAgentNumber=1,
        CodeValue="1",
        CodingSchemeDesignator="99HEMOSCOPE",
        CodeMeaning=agent,
        ContrastBolusAdministrationRouteSequence=_code(codes.SCT.IntravenousRoute),
        ContrastBolusVolume=None,
        ContrastBolusIngredientConcentration=None,
    )
    sequence[0].ContrastBolusIngredientCodeSequence = ItemSequence([])
    return sequence


def _code(code: object) -> ItemSequence:
    value, scheme, meaning = (getattr(code, name) for name in ("value", "scheme_designator", "meaning"))
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _shared_groups(seed: int, spacing_mm: tuple[float, float, float], acquisition: Acquisition) -> Dataset:
    """Return the functional groups that apply to every frame (PS3.3 C.7.6.16.2 and C.8.15.3)."""
    group = Dataset()
    thickness = acquisition.slice_thickness_mm or spacing_mm[0]
    group.PixelMeasuresSequence = _item(
        PixelSpacing=[decimal(v) for v in spacing_mm[1:]], SliceThickness=decimal(thickness)
    )
    group.PlaneOrientationSequence = _item(ImageOrientationPatient=[decimal(v) for v in acquisition.tilted()])
    group.FrameAnatomySequence = _item(FrameLaterality="U", AnatomicRegionSequence=_code(codes.SCT.Head))
    group.FrameVOILUTSequence = _item(WindowCenter=decimal(40), WindowWidth=decimal(80))
    group.CTImageFrameTypeSequence = _item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
    )
    group.IrradiationEventIdentificationSequence = _item(IrradiationEventUID=stable_uid(seed, "irradiation"))
    if acquisition.contrast_agent is not None:
        group.ContrastBolusUsageSequence = _item(
            ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES", ContrastBolusAgentDetected="YES"
        )
    _add_scan_groups(group, acquisition)
    _add_reconstruction(group, spacing_mm, acquisition)
    return group


def _add_scan_groups(group: Dataset, acquisition: Acquisition) -> None:
    """Add the groups of the scanner: tube, table and gantry, with the numbers of a plain spiral head scan."""
    group.CTAcquisitionTypeSequence = _item(AcquisitionType="SPIRAL", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
    group.CTAcquisitionDetailsSequence = _item(
        RotationDirection="CW",
        RevolutionTime=1.0,
        SingleCollimationWidth=0.6,
        TotalCollimationWidth=19.2,
        TableHeight=150.0,
        GantryDetectorTilt=float(acquisition.gantry_tilt_degrees),
        DataCollectionDiameter=500.0,
    )
    group.CTTableDynamicsSequence = _item(TableSpeed=10.0, TableFeedPerRotation=10.0, SpiralPitchFactor=0.55)
    group.CTGeometrySequence = _item(DistanceSourceToDetector=1085.6, DistanceSourceToDataCollectionCenter=595.0)
    group.CTExposureSequence = _item(
        ExposureTimeInms=1000.0,
        XRayTubeCurrentInmA=250.0,
        ExposureInmAs=250.0,
        ExposureModulationType="NONE",
    )
    group.CTXRayDetailsSequence = _item(
        KVP=decimal(acquisition.kvp),
        FocalSpots=1.0,
        FilterType="WEDGE",
        FilterMaterial="ALUMINUM",
        CalciumScoringMassFactorPatient=1.0,
    )


def _add_reconstruction(group: Dataset, spacing_mm: tuple[float, float, float], acquisition: Acquisition) -> None:
    """Add the group of the reconstruction: kernel and field of view."""
    group.CTReconstructionSequence = _item(
        ReconstructionAlgorithm="FILTER_BACK_PROJ",
        ConvolutionKernel=acquisition.convolution_kernel,
        ConvolutionKernelGroup="BRAIN",
        ReconstructionFieldOfView=[230.0, 230.0],
        ReconstructionPixelSpacing=[float(v) for v in spacing_mm[1:]],
        ReconstructionAngle=360.0,
        ImageFilter="NONE",
    )


def _frame_groups(index: int, position: NDArray[np.float64], moment: str) -> Dataset:
    """The functional groups of one frame: its number, time and place."""
    group = Dataset()
    group.FrameContentSequence = _item(
        FrameAcquisitionNumber=1,
        FrameReferenceDateTime=moment,
        FrameAcquisitionDateTime=moment,
        FrameAcquisitionDuration=1000.0,
        StackID="1",
        InStackPositionNumber=index + 1,
        DimensionIndexValues=[1, index + 1],
    )
    group.PlanePositionSequence = _item(ImagePositionPatient=[decimal(v) for v in position])
    centre = [float(v) for v in position]
    group.CTPositionSequence = _item(
        TablePosition=float(position[2]),
        DataCollectionCenterPatient=centre,
        ReconstructionTargetCenterPatient=centre,
    )
    return group


def _add_dimensions(ds: Dataset, seed: int) -> None:
    """Add the dimension index: by stack, then by position in it (PS3.3 C.7.6.17)."""
    uid = stable_uid(seed, "dimensions")
    ds.DimensionOrganizationSequence = _item(DimensionOrganizationUID=uid)
    pointers = (0x00209056, 0x00209057)  # Stack ID, In-Stack Position Number
    items = [
        _item(DimensionOrganizationUID=uid, DimensionIndexPointer=p, FunctionalGroupPointer=0x00209111)[0]
        for p in pointers
    ]
    ds.DimensionIndexSequence = ItemSequence(items)
