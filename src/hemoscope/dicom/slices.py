"""Value types of reading: CT slice, header, slice reference and refused input. Millimetres, patient system (LPS)."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemoscope.dicom.image_kind import ImageKind

_NAMED = 3  # inputs that a group names


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityNote:
    """A fact about the input that a reader of the result should know: a stable ``code`` and a ``message``."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRef:
    """Names one slice of the series that was read; a SOP Instance UID alone does not name a frame.

    Attributes:
        index: position of the slice in the series, in anatomical order, from 0.
        sop_instance_uid: of the file that contains the slice, DICOM (0008,0018).
        frame: index of the frame in a multi-frame file, from 0; 0 in a file of one frame.
    """

    index: int
    sop_instance_uid: str
    frame: int

    def __post_init__(self) -> None:
        """Reject places that no slice has."""
        if self.index < 0 or self.frame < 0:
            msg = f"index and frame count from 0, got {self.index} and {self.frame}"
            raise ValueError(msg)

    @property
    def number(self) -> int:
        """The slice's number as people see it, from 1."""
        return self.index + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadSlices:
    """What of the series that was read is not in the result: how many slices (0: unknown), a stable code, and why."""

    code: str
    message: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A refused input: its name, a stable code, a message with reason and remedy, and the remedy alone."""

    source: str
    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedGroup:
    """Refused inputs with the same code and message, named in ``sources``; the message names none of them."""

    code: str
    message: str
    sources: tuple[str, ...]

    @property
    def names(self) -> str:
        """The first names, and how many more there are."""
        more = f" and {len(self.sources) - _NAMED} more" if len(self.sources) > _NAMED else ""
        return f"{', '.join(self.sources[:_NAMED])}{more}"


def group_rejected(rejected: Iterable[Rejected]) -> tuple[RejectedGroup, ...]:
    """Put refusals of the same kind together, in the order of the first of each kind."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for one in rejected:
        kinds.setdefault((one.code, one.message.removeprefix(f"{one.source}: ")), []).append(one.source)
    return tuple(
        RejectedGroup(code=code, message=message, sources=tuple(sources)) for (code, message), sources in kinds.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """All that is known about one CT slice (one frame) before decoding.

    Attributes:
        source: the input's name, relative to the path that the user gave, never absolute.
        frame: index of the frame in a multi-frame file, else 0.
        pixel_spacing_mm: (between rows, between columns), DICOM (0028,0030), or None.
        position_mm: (x, y, z) of the first pixel, DICOM (0020,0032), or None.
        orientation: six direction cosines, rows then columns, DICOM (0020,0037), or None.
        contrast_agent: what the header says of a contrast agent that was given, or None.
        patient_age_years: Patient's Age (0010,1010), or None; an age of 0 years, as de-identification writes, is None.
        rescale_type: Rescale Type (0028,1054) in upper case, or None.
        kind: what the image is; ``kind.rank`` orders the series of a study.
        slice_location_mm: DICOM (0020,1041), relative to an unspecified origin, or None.
        pixel_aspect: height of a pixel over its width, DICOM (0028,0034), or None.
        patient_id: DICOM (0010,0020), to keep patients apart; never part of a result.
        patient_name: words of the family and given name, DICOM (0010,0010), for the same purpose.
        patient_birth_date: DICOM (0010,0030), for the same purpose.
        image_type: values of DICOM (0008,0008), in upper case.
        acquisition: number and time of the acquisition, DICOM (0020,0012) and (0008,0032), empty if unknown.
    """

    source: str
    frame: int
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float] | None = None
    position_mm: tuple[float, float, float] | None = None
    orientation: tuple[float, float, float, float, float, float] | None = None
    slice_thickness_mm: float | None = None
    gantry_tilt_degrees: float | None = None
    kvp: float | None = None
    convolution_kernel: str | None = None
    contrast_agent: str | None = None
    patient_age_years: float | None = None
    body_part: str | None = None
    series_description: str | None = None
    instance_number: int | None = None
    rescale_type: str | None = None
    kind: ImageKind = ImageKind.SLICE
    geometry_assumed: bool = False
    slice_location_mm: float | None = None
    pixel_aspect: float | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    patient_birth_date: str | None = None
    frame_of_reference_uid: str | None = None
    image_type: tuple[str, ...] = ()
    acquisition: tuple[str, str] = ("", "")
    quality: tuple[QualityNote, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CTSlice:
    """One decoded slice: ``hounsfield`` is float32 HU (rows, columns), read-only; ``quality``: decoding notes."""

    header: SliceHeader
    hounsfield: NDArray[np.float32]
    quality: tuple[QualityNote, ...] = ()

    def __post_init__(self) -> None:
        """Check the shape, and make the array read-only."""
        expected = (self.header.rows, self.header.columns)
        if self.hounsfield.shape != expected:
            msg = f"expected {expected} pixels, got {self.hounsfield.shape}"
            raise ValueError(msg)
        self.hounsfield.flags.writeable = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedSlice:
    """One decoded slice: ``hounsfield`` is int16 rounded HU (rows, columns); ``quality``: decoding notes."""

    header: SliceHeader
    hounsfield: NDArray[np.int16]
    quality: tuple[QualityNote, ...] = ()
