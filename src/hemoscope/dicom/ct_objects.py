"""Checks that a DICOM object is a CT slice; every other object is refused with a code that identifies its kind.

SOP classes are those of PS3.4 B.5; what a CT image shows is decided by ``image_kind``.
"""

from hemoscope.dicom import tags
from hemoscope.dicom.elements import PARSE_ERRORS, Elements
from hemoscope.dicom.image_kind import ImageEvidence, ImageKind, image_kind
from hemoscope.dicom.part10 import DicomObject
from hemoscope.dicom.refusals import refusal

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
CT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
    }
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_DOSE_REPORTS = frozenset({_REPORTS + "67", _REPORTS + "68", _REPORTS + "73", _REPORTS + "75"})
_DOSE_WORDS = ("dose report", "dose info", "dose record", "patient protocol")


def is_directory(found: DicomObject) -> bool:
    """Whether a file is a DICOMDIR (an index of other files, not an image)."""
    return found.meta.text(tags.MEDIA_STORAGE_SOP_CLASS_UID) == MEDIA_DIRECTORY


def check_is_ct_slice(found: DicomObject, source: str) -> None:
    """Refuse anything but a grayscale CT image.

    Raises:
        DicomReadError: ``dose_report``, ``secondary_capture``, ``localizer``, ``sheet``, ``not_ct``, ``no_pixels``,
            ``colour`` or ``monochrome1``.
    """
    elements = found.elements
    _check_class(elements, is_directory=is_directory(found), source=source)
    check_shows_anatomy(image_kind(read_evidence(elements)), source)
    if found.pixels is None or found.pixels.tag != tags.PIXEL_DATA or found.pixels.length == 0:
        raise refusal(source, "no_pixels", "no pixel data (7FE0,0010)")
    _check_grey(elements, source)


def read_evidence(whole: Elements, *, group: Elements | None = None, rescale_type: str = "") -> ImageEvidence:
    """Gather what a header states about the kind of its image.

    Args:
        whole: the data set.
        group: the item of the CT Image Frame Type Sequence of this frame, or None.
        rescale_type: Rescale Type (0028,1054) of this frame.
    """
    frame_type = group.texts(tags.FRAME_TYPE) if group is not None else ()
    try:
        codes = tuple(item.text(tags.CODE_VALUE) for item in whole.items(tags.DERIVATION_CODE_SEQUENCE))
    except PARSE_ERRORS:
        codes = ()  # a damaged sequence states nothing; the pixels may be whole
    return ImageEvidence(
        image_type=frame_type or whole.texts(tags.IMAGE_TYPE),
        technique=(group or whole).text(tags.VOLUME_BASED_TECHNIQUE),
        rescale_type=rescale_type or whole.text(tags.RESCALE_TYPE),
        derivation=whole.text(tags.DERIVATION_DESCRIPTION),
        derivation_codes=codes,
        description=whole.text(tags.SERIES_DESCRIPTION),
    )


def check_shows_anatomy(kind: ImageKind, source: str) -> None:
    """Refuse images of which not even the pixels are of use.

    Raises:
        DicomReadError: ``localizer`` or ``sheet``.
    """
    if kind is ImageKind.LOCALIZER:
        raise refusal(
            source, "localizer", "a localizer (scout) by its Image Type (0008,0008) or Frame Type (0008,9007)"
        )
    if kind is ImageKind.SHEET:
        raise refusal(source, "sheet", "a page of text by its Image Type (0008,0008) or series description (0008,103E)")


def _check_class(elements: Elements, *, is_directory: bool, source: str) -> None:
    sop_class = elements.text(tags.SOP_CLASS_UID)
    description = elements.text(tags.SERIES_DESCRIPTION).lower()
    modality = elements.text(tags.MODALITY).upper()
    if sop_class in _DOSE_REPORTS or any(word in description for word in _DOSE_WORDS):
        raise refusal(source, "dose_report", "a radiation dose report")
    screen = any("SCREEN" in kind.upper() for kind in elements.texts(tags.IMAGE_TYPE))
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(_SECONDARY_CAPTURE + ".") or screen:
        raise refusal(source, "secondary_capture", "a secondary capture, not a scanner's slice")
    if is_directory:
        raise refusal(source, "not_ct", "a DICOMDIR, an index of other files")
    if sop_class and sop_class not in CT_CLASSES:
        raise refusal(source, "not_ct", f"its SOP class is {_class_name(sop_class)}")
    if modality != "CT" and (modality or not sop_class):
        # Modality is a code (PS3.3 C.7.3.1.1.1); a longer value may be anything and is not repeated in the message.
        shown = modality if modality.isalnum() and len(modality) <= 16 else "missing or unknown"
        raise refusal(source, "not_ct", f"its modality (0008,0060) is {shown}")


def _class_name(sop_class: str) -> str:
    from pydicom.uid import UID

    name = UID(sop_class, validation_mode=0).name
    return "unknown" if name == sop_class else name


def _check_grey(elements: Elements, source: str) -> None:
    photometric = elements.text(tags.PHOTOMETRIC_INTERPRETATION).upper()
    samples = elements.word(tags.SAMPLES_PER_PIXEL)
    colour = photometric.startswith(("RGB", "PALETTE", "YBR", "HSV", "ARGB", "CMYK"))
    if colour or samples not in (None, 1):
        raise refusal(source, "colour", f"a colour image ({samples} samples per pixel)")
    if photometric == "MONOCHROME1":
        raise refusal(source, "monochrome1", "MONOCHROME1 (0028,0004), in which high values are dark")
    if photometric != "MONOCHROME2":
        raise refusal(source, "malformed", "its photometric interpretation (0028,0004) is missing or unknown")
