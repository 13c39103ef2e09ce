"""What results in DICOM refer to and inherit: the images that were read, their patient and their study.

Values are copied as bytes, so that names in every character set survive and a nonstandard value stays as it is. Only
the elements of the Patient, General Study and Patient Study modules (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2) that results need
are copied. Texts that Hemoscope adds are ASCII, which is part of every specific character set.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from hemoscope.dicom import tags
from hemoscope.dicom.elements import Elements
from hemoscope.dicom.part10 import DicomObject, parse
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomResultError
from hemoscope.inference.findings import StudyFindings

_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")
_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image Storage",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image Storage",
}
_MULTI_FRAME = frozenset(_CT_CLASSES) - {"1.2.840.10008.5.1.4.1.1.2"}
# Type 2 in every result: empty where the images have none.
_ALWAYS = (
    0x00080020,  # Study Date
    0x00080030,  # Study Time
    0x00080050,  # Accession Number
    0x00080090,  # Referring Physician's Name
    0x00100010,  # Patient's Name
    0x00100020,  # Patient ID
    0x00100030,  # Patient's Birth Date
    0x00100040,  # Patient's Sex
    0x00200010,  # Study ID
)
_IF_PRESENT = (
    0x00081030,  # Study Description
    0x00100021,  # Issuer of Patient ID
    0x00101010,  # Patient's Age
    0x00101020,  # Patient's Size
    0x00101030,  # Patient's Weight
    0x00120062,  # Patient Identity Removed
    0x00120063,  # De-identification Method
)
_METHOD_CODES = 0x00120064  # De-identification Method Code Sequence
_CODE = (0x00080100, 0x00080102, 0x00080104)
# Keyword, tag and number of values of what describes the plane of an image.
_GEOMETRY = {
    "PixelSpacing": (tags.PIXEL_SPACING, 2),
    "ImageOrientationPatient": (tags.IMAGE_ORIENTATION, 6),
    "ImagePositionPatient": (tags.IMAGE_POSITION, 3),
    "SliceThickness": (tags.SLICE_THICKNESS, 1),
}
_LOSSY = (0x00282110, 0x00282112, 0x00282114)  # Lossy Image Compression, its ratios and methods


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One slice of the series that was read, as DICOM refers to it.

    Attributes:
        frame: counts from 1; None in an object of a single frame.
        geometry: Pixel Spacing, Image Orientation, Image Position and Slice Thickness as written in an object of a
            single frame, by keyword; empty if one of them is missing.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    frame: int | None
    rows: int
    columns: int
    geometry: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStudy:
    """The study that was read.

    Attributes:
        study_instance_uid: of the study, and of its results.
        character_set: DICOM (0008,0005), empty for the default.
        inherited: elements of patient and study, with raw values.
        lossy: Lossy Image Compression and its ratios and methods, of the first image that has it.
        images: each slice of the volume, in its order.
    """

    study_instance_uid: str
    character_set: str
    inherited: Dataset
    lossy: Dataset
    images: tuple[SourceImage, ...]


def source_study(
    findings: StudyFindings, load: Callable[[str], bytes], *, limits: ReadLimits | None = None
) -> SourceStudy:
    """Read again, without pixels, what results refer to.

    Args:
        findings: of the study; they name their files.
        load: returns the bytes of a file, as ``Archive.load`` does.
        limits: of parsing.

    Raises:
        DicomResultError: UIDs are missing, invalid or not unique, so nothing can refer to these images.
        DicomReadError: a file can no longer be read.
    """
    _check_uid(findings.study_instance_uid, "Study Instance UID (0020,000D)")
    limits = limits or ReadLimits()
    sources = dict.fromkeys(one.source for one in findings.slices)
    files = {name: _file(parse(load(name), source=name, limits=limits)) for name in sources}
    first = next(iter(files.values()))
    return SourceStudy(
        study_instance_uid=findings.study_instance_uid,
        character_set=first.character_set,
        inherited=first.inherited,
        lossy=next((file.lossy for file in files.values() if file.lossy), Dataset()),
        images=tuple(_images(findings, files)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What results need of one file; its bytes and its other elements need not stay in memory."""

    sop_class_uid: str
    character_set: str
    inherited: Dataset
    lossy: Dataset
    rows: int
    columns: int
    geometry: Mapping[str, tuple[float, ...]]


def _file(found: DicomObject) -> _File:
    elements = found.elements
    lossy = _raw(elements, _LOSSY) if elements.text(_LOSSY[0]) == "01" else Dataset()
    geometry = {keyword: elements.decimals(tag) or () for keyword, (tag, _) in _GEOMETRY.items()}
    whole = all(len(geometry[keyword]) == count for keyword, (_, count) in _GEOMETRY.items())
    return _File(
        sop_class_uid=elements.text(tags.SOP_CLASS_UID) or found.meta.text(tags.MEDIA_STORAGE_SOP_CLASS_UID),
        character_set=elements.text(tags.SPECIFIC_CHARACTER_SET),
        inherited=_inherited(elements),
        lossy=lossy,
        rows=elements.word(tags.ROWS) or 0,
        columns=elements.word(tags.COLUMNS) or 0,
        geometry=geometry if whole else {},
    )


def _images(findings: StudyFindings, files: Mapping[str, _File]) -> Iterator[SourceImage]:
    _check_uid(findings.series_instance_uid, "Series Instance UID (0020,000E)")
    seen: set[tuple[str, int]] = set()
    for one in findings.slices:
        uid, file = one.ref.sop_instance_uid, files[one.source]
        _check_uid(uid, "SOP Instance UID (0008,0018)")
        if file.sop_class_uid not in _CT_CLASSES:
            named = ", ".join(_CT_CLASSES.values())
            msg = f"the SOP Class UID (0008,0016) of an image is missing or none of {named}. {_REMEDY}"
            raise DicomResultError(msg)
        if (uid, one.ref.frame) in seen:
            msg = f"several images share one SOP Instance UID (0008,0018), so a result cannot name one. {_REMEDY}"
            raise DicomResultError(msg)
        seen.add((uid, one.ref.frame))
        yield SourceImage(
            sop_class_uid=file.sop_class_uid,
            sop_instance_uid=uid,
            series_instance_uid=findings.series_instance_uid,
            frame=one.ref.frame + 1 if file.sop_class_uid in _MULTI_FRAME else None,
            rows=file.rows,
            columns=file.columns,
            geometry=file.geometry,
        )


_REMEDY = "Results in DICOM need images with valid, unique UIDs: export the study from the PACS again"


def _check_uid(uid: str, name: str) -> None:
    """Check the form of a UID (PS3.5 9.1); its value is not quoted."""
    if len(uid) > 64 or not _UID.fullmatch(uid):
        msg = f"the {name} is {'not a valid UID' if uid else 'missing'}. {_REMEDY}"
        raise DicomResultError(msg)


def _inherited(elements: Elements) -> Dataset:
    inherited = _raw(elements, (*_ALWAYS, *_IF_PRESENT))
    for tag in _ALWAYS:
        if tag not in inherited:
            inherited[Tag(tag)] = _element(tag, b"")
    codes = [_raw(item, _CODE) for item in elements.items(_METHOD_CODES)]
    if codes:
        inherited.add_new(_METHOD_CODES, "SQ", Sequence(codes))
    return inherited


def _raw(elements: Elements, wanted: Iterable[int]) -> Dataset:
    """Return the elements of these tags that have a value, with the bytes of their values."""
    found = Dataset()
    for tag in wanted:
        value = elements.raw(tag)
        if value is not None:
            found[Tag(tag)] = _element(tag, value)
    return found


def _element(tag: int, value: bytes) -> RawDataElement:
    padded = value + b" " * (len(value) % 2)
    return RawDataElement(
        tag=Tag(tag),
        VR=dictionary_VR(tag),
        length=len(padded),
        value=padded,
        value_tell=0,
        is_implicit_VR=False,
        is_little_endian=True,
    )
