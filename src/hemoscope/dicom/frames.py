"""Reads one header per frame: from the data set, and from the functional groups of an Enhanced CT.

PS3.3 C.7.6.16 defines functional groups: an item of the shared sequence applies to all frames, an item of the per-frame
sequence to one. A frame's own item takes precedence over the shared one, and both over the data set.
"""

import math
import re
from dataclasses import dataclass

from hemoscope.dicom import tags
from hemoscope.dicom.contrast import ContrastEvidence, stated_contrast
from hemoscope.dicom.ct_objects import check_shows_anatomy, read_evidence
from hemoscope.dicom.elements import Elements, character_set
from hemoscope.dicom.image_kind import ImageKind, image_kind
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.dicom.wording import name_words

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_UID_TAGS = {
    "SOP Instance UID (0008,0018)": tags.SOP_INSTANCE_UID,
    "Study Instance UID (0020,000D)": tags.STUDY_INSTANCE_UID,
    "Series Instance UID (0020,000E)": tags.SERIES_INSTANCE_UID,
}
# Age string (PS3.5 6.2): three digits and a unit; real files also omit leading zeros.
_AGE = re.compile(r"([0-9]{1,3})([DWMY])")
_UNITS_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}

Triple = tuple[float, float, float]
Sextuple = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class FrameElements:
    """One frame's view of a file: its own functional groups, then the shared ones, then the data set."""

    whole: Elements
    groups: tuple[Elements, ...]

    def group(self, sequence: int) -> Elements | None:
        """Return the functional group item of this frame, or None if the file has none of that kind."""
        for holder in self.groups:
            item = holder.item(sequence)
            if item is not None:
                return item
        return None

    def decimals(self, sequence: int, tag: int) -> tuple[float, ...] | None:
        """Return numbers from a functional group, else from the data set."""
        group = self.group(sequence)
        return group.decimals(tag) if group is not None else self.whole.decimals(tag)

    def holds(self, sequence: int, tag: int) -> bool:
        """Whether the attribute is present, valid or not."""
        group = self.group(sequence)
        return (group if group is not None else self.whole).raw(tag) is not None

    def text(self, sequence: int, tag: int) -> str:
        """Return a string from a functional group, else from the data set."""
        group = self.group(sequence)
        return group.text(tag) if group is not None and tag in group else self.whole.text(tag)


def split_frames(whole: Elements, *, frames: int, source: str) -> tuple[FrameElements, ...]:
    """Return one view for each frame.

    Raises:
        DicomReadError: ``malformed`` if there are per-frame groups, but not one for each frame.
    """
    shared = whole.items(tags.SHARED_FUNCTIONAL_GROUPS)[:1]
    own = whole.items(tags.PER_FRAME_FUNCTIONAL_GROUPS)
    if own and len(own) != frames:
        raise refusal(source, "malformed", f"{frames} frames are declared, but {len(own)} have functional groups")
    if not own:
        return (FrameElements(whole, shared),) * frames
    return tuple(FrameElements(whole, (item, *shared)) for item in own)


def count_frames(elements: Elements, source: str) -> tuple[int, tuple[QualityNote, ...]]:
    """Return the number of frames (0028,0008), 1 if it is missing, and a note if it is 0, which is read as 1.

    Raises:
        DicomReadError: ``malformed`` if it is negative or not a number.
    """
    if elements.raw(tags.NUMBER_OF_FRAMES) is None:
        return 1, ()
    count = elements.integer(tags.NUMBER_OF_FRAMES)
    if count is None or count < 0:
        raise refusal(source, "malformed", "its number of frames (0028,0008) is not a positive number")
    message = "the encoding violates the standard: the number of frames (0028,0008) is 0; one was read"
    return (count, ()) if count else (1, (QualityNote(code="nonstandard_encoding", message=message),))


def read_header(
    frame: FrameElements, *, index: int, rows: int, columns: int, source: str, notes: tuple[QualityNote, ...] = ()
) -> SliceHeader:
    """Return all that is known about one frame before decoding; ``notes`` on its encoding become its quality notes.

    Raises:
        DicomReadError: ``localizer`` or ``sheet`` if the frame is one, ``malformed`` if a UID is missing or not
            printable.
    """
    whole, charset = frame.whole, character_set(frame.whole)
    kind = _read_kind(frame, source)
    uids, broken = _read_uids(whole, source)
    position, orientation, spacing, invalid = _read_geometry(frame)
    return SliceHeader(
        source=source,
        frame=index,
        sop_instance_uid=uids[0],
        study_instance_uid=uids[1],
        series_instance_uid=uids[2],
        rows=rows,
        columns=columns,
        pixel_spacing_mm=spacing,
        position_mm=position,
        orientation=orientation,
        slice_thickness_mm=_positive(frame.decimals(tags.PIXEL_MEASURES_SEQUENCE, tags.SLICE_THICKNESS)),
        gantry_tilt_degrees=_first(frame.decimals(tags.CT_ACQUISITION_DETAILS_SEQUENCE, tags.GANTRY_TILT)),
        kvp=_positive(frame.decimals(tags.CT_XRAY_DETAILS_SEQUENCE, tags.KVP)),
        convolution_kernel=_read_kernel(frame),
        contrast_agent=stated_contrast(_read_contrast(frame)),
        patient_age_years=_read_age(whole),
        body_part=whole.text(tags.BODY_PART_EXAMINED).upper() or None,
        series_description=whole.prose(tags.SERIES_DESCRIPTION, character_set=charset) or None,
        instance_number=whole.integer(tags.INSTANCE_NUMBER),
        rescale_type=_rescale_type(frame).upper() or None,
        kind=kind,
        geometry_assumed=_geometry_assumed(frame),
        slice_location_mm=_first(whole.decimals(tags.SLICE_LOCATION)),
        pixel_aspect=_pixel_aspect(whole),
        patient_id=whole.prose(tags.PATIENT_ID, character_set=charset) or None,
        patient_name=name_words(whole.prose(tags.PATIENT_NAME, character_set=charset)) or None,
        patient_birth_date=whole.text(tags.PATIENT_BIRTH_DATE) or None,
        frame_of_reference_uid=whole.text(tags.FRAME_OF_REFERENCE_UID) or None,
        image_type=_image_type(frame),
        acquisition=(whole.text(tags.ACQUISITION_NUMBER), whole.text(tags.ACQUISITION_TIME)),
        quality=(*notes, *broken, *invalid),
    )


def _read_kind(frame: FrameElements, source: str) -> ImageKind:
    """Return the kind by Frame Type and by Image Type; where they contradict each other, the one that is less a slice.

    The Image Type of a file sums up its frames (PS3.3 C.8.16.1); ``MIXED`` stands for values that differ.
    """
    group = frame.group(tags.CT_IMAGE_FRAME_TYPE_SEQUENCE)
    groups = (None,) if group is None else (group, None)
    stated = (read_evidence(frame.whole, group=one, rescale_type=_rescale_type(frame)) for one in groups)
    kind = max((image_kind(evidence) for evidence in stated), key=lambda kind: kind.rank)
    check_shows_anatomy(kind, source)
    return kind


def _read_kernel(frame: FrameElements) -> str | None:
    return frame.text(tags.CT_RECONSTRUCTION_SEQUENCE, tags.CONVOLUTION_KERNEL).replace("\\", " ") or None


def _rescale_type(frame: FrameElements) -> str:
    return frame.text(tags.PIXEL_VALUE_TRANSFORMATION_SEQUENCE, tags.RESCALE_TYPE)


def _read_uids(whole: Elements, source: str) -> tuple[list[str], list[QualityNote]]:
    uids: list[str] = []
    broken: list[str] = []
    for name, tag in _UID_TAGS.items():
        uid = whole.text(tag)
        if not uid or not uid.isascii() or len(uid) > 128 or " " in uid:
            raise refusal(source, "malformed", f"its {name} is missing or not an identifier")
        uids.append(uid)
        if len(uid) > 64 or not _UID.fullmatch(uid):
            broken.append(name)
    if not broken:
        return uids, []
    message = f"identifiers violate the standard (PS3.5 section 9) but were used unchanged: {', '.join(broken)}"
    return uids, [QualityNote(code="nonstandard_uid", message=message)]


def _read_geometry(
    frame: FrameElements,
) -> tuple[Triple | None, Sextuple | None, tuple[float, float] | None, list[QualityNote]]:
    position = frame.decimals(tags.PLANE_POSITION_SEQUENCE, tags.IMAGE_POSITION)
    orientation = frame.decimals(tags.PLANE_ORIENTATION_SEQUENCE, tags.IMAGE_ORIENTATION)
    spacing = frame.decimals(tags.PIXEL_MEASURES_SEQUENCE, tags.PIXEL_SPACING)
    good_position = position if position and len(position) == 3 and max(map(abs, position)) < 1e6 else None
    good_orientation = orientation if orientation and _is_orientation(orientation) else None
    good_spacing = spacing if spacing and len(spacing) == 2 and all(0 < step < 1e3 for step in spacing) else None
    unusable = [
        name
        for name, good, sequence, tag in (
            ("position (0020,0032)", good_position, tags.PLANE_POSITION_SEQUENCE, tags.IMAGE_POSITION),
            ("orientation (0020,0037)", good_orientation, tags.PLANE_ORIENTATION_SEQUENCE, tags.IMAGE_ORIENTATION),
            ("pixel spacing (0028,0030)", good_spacing, tags.PIXEL_MEASURES_SEQUENCE, tags.PIXEL_SPACING),
        )
        if good is None and frame.holds(sequence, tag)
    ]
    message = f"not used because the value is impossible: {', '.join(unusable)}"
    notes = [QualityNote(code="invalid_geometry", message=message)] if unusable else []
    # The lengths were checked above; mypy cannot see that.
    return good_position, good_orientation, good_spacing, notes  # type: ignore[return-value]


def _is_orientation(cosines: tuple[float, ...]) -> bool:
    """Whether these are two perpendicular unit vectors, within the few digits that files store."""
    if len(cosines) != 6:
        return False
    row, column = cosines[:3], cosines[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    dot = sum(a * b for a, b in zip(row, column, strict=True))
    return all(abs(length - 1) < 0.05 for length in lengths) and abs(dot) < 0.05


def _positive(numbers: tuple[float, ...] | None) -> float | None:
    return numbers[0] if numbers and numbers[0] > 0 else None


def _first(numbers: tuple[float, ...] | None) -> float | None:
    return numbers[0] if numbers else None


def _pixel_aspect(whole: Elements) -> float | None:
    ratio = whole.decimals(tags.PIXEL_ASPECT_RATIO)
    return ratio[0] / ratio[1] if ratio and len(ratio) == 2 and min(ratio) > 0 else None


def _image_type(frame: FrameElements) -> tuple[str, ...]:
    """Return the Frame Type of a multi-frame file, else the Image Type."""
    found = frame.text(tags.CT_IMAGE_FRAME_TYPE_SEQUENCE, tags.FRAME_TYPE) or frame.whole.text(tags.IMAGE_TYPE)
    return tuple(value.strip().upper() for value in found.split("\\")) if found else ()


def _read_contrast(frame: FrameElements) -> ContrastEvidence:
    whole = frame.whole
    charset = character_set(whole)
    volumes = [whole.decimal(tag) for tag in (tags.CONTRAST_VOLUME, tags.CONTRAST_TOTAL_DOSE)]
    items = whole.items(tags.CONTRAST_AGENT_SEQUENCE)
    return ContrastEvidence(
        agent=whole.prose(tags.CONTRAST_AGENT, character_set=charset),
        coded=tuple(item.prose(tags.CODE_MEANING, character_set=charset) or "contrast agent" for item in items),
        administered=frame.text(tags.CONTRAST_USAGE_SEQUENCE, tags.CONTRAST_ADMINISTERED),
        volume_ml=max((volume for volume in volumes if volume is not None), default=None),
        ingredient=whole.text(tags.CONTRAST_INGREDIENT),
        series=whole.prose(tags.SERIES_DESCRIPTION, character_set=charset),
        protocol=whole.prose(tags.PROTOCOL_NAME, character_set=charset),
        study=whole.prose(tags.STUDY_DESCRIPTION, character_set=charset),
    )


def _read_age(whole: Elements) -> float | None:
    match = _AGE.fullmatch(whole.text(tags.PATIENT_AGE).upper())
    if match is None or (int(match[1]) == 0 and match[2] == "Y"):
        return None
    return int(match[1]) / _UNITS_A_YEAR[match[2]]


def _geometry_assumed(frame: FrameElements) -> bool:
    comments = frame.whole.text(tags.IMAGE_COMMENTS), frame.text(tags.FRAME_CONTENT_SEQUENCE, tags.FRAME_COMMENTS)
    return any("geometry assumed" in comment.lower() for comment in comments)
