"""Decides what an image is: a slice in Hounsfield units, a projection, a computed map, a localizer or a page of text.

The evidence is what the header states: Image Type (0008,0008) or Frame Type (0008,9007) (PS3.3 C.7.6.1.1.2 and
C.8.16.1), Volume Based Calculation Technique (0008,9207), Rescale Type (0028,1054), Derivation Description
(0008,2111), Derivation Code (0008,9215; CID 7203) and Series Description (0008,103E). Reformatted averages count as
slices, because an archive often holds no other axial series.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from hemoscope.dicom.wording import without_accents

__all__ = ["ImageEvidence", "ImageKind", "image_kind"]


class ImageKind(StrEnum):
    """What an image is. ``SLICE``, ``VIRTUAL`` and ``PROJECTION`` are read, in this order of preference."""

    SLICE = "slice"  # acquired, reformatted or averaged: HU of tissue
    VIRTUAL = "virtual"  # computed from two energies, in HU: virtual non-contrast, monoenergetic
    PROJECTION = "projection"  # maximum or minimum intensity, volume rendering
    PARAMETER_MAP = "parameter_map"  # perfusion, error, iodine, subtraction: other quantities than HU
    LOCALIZER = "localizer"
    SHEET = "sheet"  # a page of text: protocol, dose, summary
    PICTURE = "picture"  # 8-bit gray, color or screen capture

    @property
    def rank(self) -> int:
        """The order of preference among series of one study, the smallest first."""
        return _RANKS[self]

    @property
    def is_read(self) -> bool:
        """Whether a study may hold such images; all others are refused."""
        return self in (ImageKind.SLICE, ImageKind.VIRTUAL, ImageKind.PROJECTION)


_RANKS = {kind: rank for rank, kind in enumerate(ImageKind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEvidence:
    """What a header states about the kind of an image; empty where it states nothing.

    Attributes:
        image_type: Frame Type (0008,9007) or Image Type (0008,0008).
        technique: Volume Based Calculation Technique (0008,9207).
        rescale_type: Rescale Type (0028,1054).
        derivation: Derivation Description (0008,2111).
        derivation_codes: values of the Derivation Code Sequence (0008,9215).
        description: Series Description (0008,103E).
    """

    image_type: tuple[str, ...] = ()
    technique: str = ""
    rescale_type: str = ""
    derivation: str = ""
    derivation_codes: tuple[str, ...] = ()
    description: str = ""

    @property
    def is_original(self) -> bool:
        """Whether the image is as acquired: then its description names the study rather than a computation."""
        first_two = tuple(value.upper() for value in self.image_type[:2])
        return first_two == ("ORIGINAL", "PRIMARY") and self.rescale_type.upper() in ("", "HU")


# Words are looked for in upper case, with every other character than letters and digits as one space.
_LOCALIZER = re.compile(r"\b(?:LOCALI[SZ]ER|SCOUT|TOPOGRAM\w*|SURVIEW|SCANOGRAM|SCANOGRAMA)\b")
_SHEET_TYPE = re.compile(r"\b(?:PROT|PROTOCOL|REPORT|DOSE (?:INFO|SR|RECORD|SHEET)|TEXT|SUMMARY)\b")
_SHEET = re.compile(
    r"\bPATIENTEN ?PROTOKOLL|\bDOSIS ?(?:PROTOKOLL|BERICHT|INFO)|\bPATIENT PROTOCOL|\bDOSE (?:SUMMARY|SHEET|PAGE)"
    r"|\bRAPPORT (?:DE )?DOSE|\bPROTOCOLE (?:DU )?PATIENT|\bPROTOCOLO (?:DE |DEL )?PACIENTE|\bINFORME (?:DE )?DOSIS"
    r"|\b(?:EXAM|EXAMINATION|SCAN|STUDY) (?:PROTOCOL|SUMMARY|REPORT)\b|\bPROTOCOL PAGE|\bTEXT PAGE|\bEVENT LOG"
    r"|\bPROTOCOLLO (?:DEL )?PAZIENTE|\bREPORT PAGE"
)
_MAP = re.compile(
    r"\b(?:R?(?:EL)?CBF|R?(?:EL)?CBV|MTT|TTP|TMAX|T MAX|TTD|TTS|PBV|KTRANS|PERMEABILITY|PENUMBRA|MISMATCH"
    r"|CEREBRAL BLOOD (?:FLOW|VOLUME)|MEAN TRANSIT TIME|TIME TO (?:PEAK|MAXIMUM|START|DRAIN)|ERROR MAP"
    r"|RESIDUAL MAP|PERF(?:USION)? MAPS?|R?BLOOD (?:FLOW|VOLUME)|RB[FV]|PARAMET(?:ER|RIC) (?:MAP|IMAGE)S?"
    r"|IODINE (?:MAP|OVERLAY|DENSITY|NO WATER|WATER|CONCENTRATION|IMAGE)S?"
    r"|IODINE(?= ;|$)"
    r"|(?:IOD|JOD) ?KARTE|CARTE (?:D )?IODE|MAPA (?:DE )?YODO|MAPPA (?:DI )?IODIO"
    r"|EFFECTIVE Z|Z EFF(?:ECTIVE)?|ZEFF|ELECTRON DENSITY|URIC ACID|CALCIUM MAP|COLOU?R MAP)\b"
)
_MAP_TYPE = re.compile(
    r"\b(?:ERROR|IODINE|STD DEVIATION|STANDARD DEVIATION|SUBTRACTION|SUBTRACTED|DIVISION|MULTIPLICATION|QUANTITY|FLOW"
    r"|PARAMETRIC|MAT SPECIFIC|MAT FRACTIONAL|MAT VALUE BASED|EFF ATOMIC NUM|BLOOD (?:FLOW|VOLUME))\b"
)
# Times and tissues of perfusion programs; a delayed scan is ORIGINAL.
_DERIVED_MAP_TYPE = re.compile(r"\b(?:DELAY|CSF|SEGMENTATION)\b")
_PERFUSION_TYPE = re.compile(r"\bPERFUSION\b")
_PROJECTION = re.compile(
    r"\b(?:(?:AX|COR|SAG|T)?MIPS?|MIP(?:AX|COR|SAG|\d+)|T?MINIPS?|MINMIPS?|VOL ?REN"
    r"|MAX ?IPS?|MIN ?IPS?|MPVR|VRT?|(?:VOLUME|VOL|SURFACE|SHADED SURFACE) ?(?:REND\w*|DISPLAY)"
    r"|SSD|(?:MAXIMUM|MINIMUM) INTENSITY)\b"
)
_PROJECTION_TYPE = re.compile(r"\b(?:MAXIMUM|MINIMUM|PROJECTION|3D|RENDER\w*)\b")
_AVERAGE_TYPE = re.compile(r"\b(?:AVERAGE|MEAN|AVG)\b")
_VIRTUAL = re.compile(
    r"\b(?:VNC|VUE|VIRTUAL (?:NON|UN|MONO)\w*|VMI|MONO ?E(?:NERGETIC|NERGY)?|MONO PLUS|MONO \d+ ?KEV|\d+ ?KEV"
    r"|MAT (?:REMOVED|MODIFIED))\b"
)
# Before the name of what was computed: plane and thickness.
_BEFORE = re.compile(r"^(?:(?:AX\w*|TRA\w*|COR\w*|SAG\w*|THICK|HEAD|BRAIN|\d+|MM) )*")
# Source images of a projection: "1 MM FOR MIP".
_SOURCE = re.compile(
    r"\b(?:FOR|FUER|FUR|POUR|PARA|PER)(?: \w+){0,2}? (?:MIPS?|VRT?|3D|MAX ?IPS?|MIN ?IPS?)\b"
    r"|\b(?:MIPS?|VRT?|3D) (?:SOURCE|SRC|RAW)\b"
)

_MAP_SOURCE = re.compile(r"\b(?:FOR|FUER|FUR|POUR|PARA|PER)\b.*")  # "CTP FOR CBF"

# CID 7203, the codes of DCM that name a quantity other than HU, and those that name a projection.
_MAP_CODES = frozenset(
    {"113041", "113044", "113046", "113050", "113052", "113053", "113054", "113055", "113056", "113057", "113058"}
    | {"113059", "113060", "113061", "113062", "113063", "113064", "113065", "113066", "113067", "113068", "113069"}
    | {"113070", "113071", "113076", "113084"}
)
_PROJECTION_CODES = frozenset({"113048", "113051", "113074", "113075", "113078", "113079"})
_PROJECTION_TECHNIQUES = frozenset({"MAX_IP", "MIN_IP", "VOLUME_RENDER", "SURFACE_RENDER"})


@lru_cache(maxsize=256)  # the slices of a series state the same
def image_kind(evidence: ImageEvidence) -> ImageKind:
    """Return the kind of an image from what its header states; a header that states nothing is of a slice.

    Colors, 8-bit values and screen captures are recognized with the pixel format, where the file is read.

    Examples:
        >>> image_kind(ImageEvidence(image_type=("DERIVED", "PRIMARY", "MPR", "AVERAGE"))).value
        'slice'
        >>> image_kind(ImageEvidence(image_type=("DERIVED", "SECONDARY", "AXIAL", "MIP"))).value
        'projection'
    """
    kind = _words(" ".join(evidence.image_type))
    text = _words(f"{evidence.derivation} ; {evidence.description}")
    described = _SOURCE.sub(" ", _words(evidence.derivation) if evidence.is_original else text)
    if _LOCALIZER.search(kind) or (not kind and _LOCALIZER.search(text)):
        return ImageKind.LOCALIZER
    if _SHEET_TYPE.search(kind) or _SHEET.search(text):
        return ImageKind.SHEET
    if _is_map(evidence, kind, described):
        return ImageKind.PARAMETER_MAP
    if _is_projection(evidence, kind, described):
        return ImageKind.PROJECTION
    return ImageKind.VIRTUAL if _VIRTUAL.search(f"{kind} ; {described}") else ImageKind.SLICE


def _is_map(evidence: ImageEvidence, kind: str, described: str) -> bool:
    if _MAP.search(f"{kind} ; {described}") or _MAP_TYPE.search(kind):
        return True
    if _MAP_CODES.intersection(evidence.derivation_codes) or (evidence.is_original and _is_called_map(evidence)):
        return True
    # ORIGINAL\PRIMARY\PERFUSION is one of the scans from which maps are computed (PS3.3 C.8.16.1.3), and the average or
    # maximum over their times is in HU.
    if kind.startswith("ORIGINAL") or _AVERAGE_TYPE.search(kind) or _is_projection(evidence, kind, described):
        return False
    return bool(_PERFUSION_TYPE.search(kind) or _DERIVED_MAP_TYPE.search(kind))


def _is_called_map(evidence: ImageEvidence) -> bool:
    """Whether the description of an image that calls itself acquired begins with a map, or names exactly one.

    "CTP 5.0 CBF/MTT" names a scan by the maps to be computed from it, "CBF" and "Neuro rCBV" are maps.
    """
    text = _MAP_SOURCE.sub(" ", _words(evidence.description)).strip()
    named = [found for found in _MAP.finditer(text) if found.group() != "IODINE"]
    begins = bool(named) and _BEFORE.sub("", text).startswith(named[0].group())
    return begins or len({found.group() for found in named}) == 1


def _is_projection(evidence: ImageEvidence, kind: str, described: str) -> bool:
    stated = _PROJECTION.search(kind) or _PROJECTION_TYPE.search(kind)
    if stated or evidence.technique.upper() in _PROJECTION_TECHNIQUES:
        return True
    if _PROJECTION_CODES.intersection(evidence.derivation_codes):
        return True
    # The description of an acquired image names the study, unless it begins with the name of a projection.
    named = _BEFORE.sub("", _SOURCE.sub(" ", _words(evidence.description)).strip())
    if evidence.is_original and _PROJECTION.match(named):
        return True
    return not _AVERAGE_TYPE.search(kind) and bool(_PROJECTION.search(described))


def _words(text: str) -> str:
    return re.sub(r"[^0-9A-Z;]+", " ", without_accents(text)).strip()
