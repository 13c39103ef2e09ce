"""What de-identification does with each DICOM element: PS3.15 Table E.1-1, and a rule for all that it does not list.

The table (as provided by dicom-anonymizer) lists attributes that are known to identify. An archive also holds texts
in elements that are not listed. So everything is removed or emptied here unless it is listed as needed: private
elements, overlays, curves, unlisted texts, names and dates, and binary data other than pixels.

Four kinds of elements are kept in part, because reading depends on them:

- Descriptors that say what an image is (series description, contrast agent) keep their technical words and lose all
  others (option *Clean Descriptors*, code 113105).
- Age and sex are kept, ages above 89 as 90 years (option *Retain Patient Characteristics*, code 113108).
- Acquisition Time is replaced by another one, the same for the same time: it tells passes over one place apart.
- References to other images keep their structure; their UIDs are replaced like all others.
"""

import re
from enum import Enum
from functools import cache

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table

from hemoscope.dicom import tags

TEXT_VRS = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
DATE_VRS = frozenset({"DA", "DT", "TM"})
BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

_PATIENT_AGE = 0x00101010
CODE_VALUES = (0x00080100, 0x00080119, 0x00080120)
CODE_MEANING, CODING_SCHEME = 0x00080104, 0x00080102
# Schemes whose codes and meanings are published; a scheme of one site may name a person or a place.
STANDARD_SCHEMES = frozenset({"DCM", "SCT", "SRT", "SNM3", "UCUM", "RADLEX", "LN", "FMA", "ISO639_1", "ISO639_2"})

_PATIENT_SEX = 0x00100040
_DESCRIPTORS = frozenset(
    {
        tags.SERIES_DESCRIPTION,
        tags.CONTRAST_AGENT,
        0x00081030,  # Study Description
        0x00082111,  # Derivation Description
        0x00181030,  # Protocol Name
        0x00181040,  # Contrast/Bolus Route
        tags.IMAGE_COMMENTS,
        tags.FRAME_COMMENTS,
        0x00400254,  # Performed Procedure Step Description
    }
)
# Texts about the scanner and the reconstruction, which reading needs or viewers show.
_KEPT_TEXTS = frozenset(
    {
        0x00080070,  # Manufacturer
        0x00081090,  # Manufacturer's Model Name
        0x00080103,  # Coding Scheme Version
        *CODE_VALUES,
        CODE_MEANING,
        CODING_SCHEME,
        0x00181020,  # Software Versions
        0x00181160,  # Filter Type
        tags.CONVOLUTION_KERNEL,
        0x00189320,  # Image Filter
        0x00189322,  # Reconstruction Algorithm (macro of enhanced CT)
        tags.RESCALE_TYPE,
        tags.MODALITY_LUT_TYPE,
        0x00209056,  # Stack ID
        0x00209421,  # Dimension Description Label
    }
)
_BINARY_GROUPS = (0x0028, 0x7FE0)
_REFERENCES = frozenset(
    {
        0x00081110,  # Referenced Study Sequence
        0x00081111,  # Referenced Performed Procedure Step Sequence
        0x00081140,  # Referenced Image Sequence
        0x00082112,  # Source Image Sequence
    }
)
# The technical words of descriptors, in the languages in which scanners are installed.
_WORDS = frozenset(
    word
    for line in (
        "+ +C - -C A ABDOMEN ADULT AGENT ANGIO ANGIOGRAPHY ART ARTERIAL ASSUMED AVE AVERAGE AVG AX AXIAL AXIALES",
        "BASE BOLUS BONE BRAIN C C+ C- CABEZA CAPUT CBF CBV CCT CEREBRAL CEREBRO CEREBRUM CERVEAU CERVICAL CHEST",
        "CHILD CONTRAST CONTRASTE CONTRASTO COR CORONAL CRANE CRANEO CRANIO CRANIUM CT CTA CTP CTV DEFAULT",
        "DELAYED DERIVED DOSE DYNAMIC EDGE ENHANCED ERROR FACE FAST FINE FOSSA FULL GEOMETRY GIVEN HEAD HELICAL",
        "HIGH HIRN HOOFD HR HUESO IAC INFO INTRAVENOUS IODINE IV KEINE KM KNOCHEN KONTRAST KOPF L LOCALIZER LOW",
        "LUNG MAP MEAN MIN MINIP MIP MIT MONO MPR MTT N/A NATIV NATIVE NECK NEURO NO NON NONE NOT OBLIQUE OHNE",
        "ORAL ORBIT ORBITS OS OSSEUX OSSO PAT PATIENT PATIENTENPROTOKOLL PED PEDIATRIC PERF PERFUSION PETROUS",
        "PLAIN POST POSTERIOR PRE PRIMARY PROTOCOL PROTOKOLL RBCT RCBF RCBV RECON REFORMAT REPORT ROUTINE S/C SAG",
        "SAGITTAL SANS SC SCHADEL SCHAEDEL SCHÄDEL SCOUT SENZA SEQ SEQUENCE SERIES SHARP SIN SINUS SKULL SLAB",
        "SMOOTH SOFT SOFTTISSUE SPINE SPIRAL STANDARD STD SUMMARY TEMPORAL TESTA TETE THICK THIN TISSUE TMAX",
        "TOPOGRAM TRAUMA TTP TÊTE UNENHANCED V VENOUS VIRTUAL VNC VOLUME VR VRT W W/ W/O WC WITH WITHOUT WO WOC",
        "YES ANKLE BACINO BECKEN BLOOD CARDIAC FLOW FOR HEART HIP KEV KIDNEY KNEE LIVER LUMBAR LUNGE MONOE PAGE",
        "PARAMETER PELVIS SOURCE TEXT THORAX",
    )
    for word in line.split()
)
_MEASURE = re.compile(r"\d{1,3}(?:[.,]\d{1,2}|(?:[.,]\d{1,2})?(?:CC|CM|KV|MM|ML|S|SEC))")
_SPLIT = re.compile(r"[\s_,;:()\[\]&]+")


class Action(Enum):
    """What happens to an element."""

    KEEP = "keep"
    REMOVE = "remove"
    EMPTY = "empty"
    DUMMY = "dummy"
    RENAME = "rename"  # replace UIDs by pseudonyms
    DATE = "date"  # remove, empty or replace it as the table says; shifted instead, if asked
    DESCRIBE = "describe"  # keep technical words
    AGE = "age"  # years above 89 become 90
    TIME = "time"  # replace it by another one, the same for the same time: passes of one series stay apart
    DESCEND = "descend"  # apply the rules to every item


# What takes precedence over the table, for the reasons at the top of this module.
_OURS = {
    **dict.fromkeys(_DESCRIPTORS, Action.DESCRIBE),
    **dict.fromkeys(_REFERENCES, Action.DESCEND),
    **dict.fromkeys((*_KEPT_TEXTS, _PATIENT_SEX), Action.KEEP),
    _PATIENT_AGE: Action.AGE,
    tags.ACQUISITION_TIME: Action.TIME,
    0x00700080: Action.DUMMY,  # Content Label: a code string that users write
}


def action_of(tag: int, vr: str) -> Action:
    """Return what happens to an element of this tag and VR."""
    group = tag >> 16
    if group % 2 or group < 0x0008 or group & 0xFF00 in (0x5000, 0x6000) or group > 0x7FE0:
        return Action.REMOVE
    if tag in _OURS:
        return _OURS[tag]
    if vr in DATE_VRS:
        return Action.DATE
    return _listed(tag) or _unlisted(tag, vr)


def table_action(tag: int) -> Action:
    """Return what the table says of a date; one that it does not list is removed."""
    return _listed(tag) or Action.REMOVE


def _unlisted(tag: int, vr: str) -> Action:
    if vr == "SQ":
        return Action.DESCEND
    if vr == "UI":
        return Action.RENAME
    if vr in BINARY_VRS:
        return Action.KEEP if tag >> 16 in _BINARY_GROUPS else Action.REMOVE
    if vr == "PN":
        return Action.EMPTY
    return Action.DUMMY if vr in TEXT_VRS else Action.KEEP  # a dummy is valid whatever the type of the attribute


@cache
def _rules() -> dict[int, Action]:
    """The table's action by tag; if it gives a choice, the one that keeps the object valid."""
    columns: tuple[tuple[Action, list[tuple[int, ...]]], ...] = (
        (Action.REMOVE, table.X_TAGS),
        (Action.EMPTY, [*table.Z_TAGS, *table.X_Z_TAGS, *table.X_Z_U_STAR_TAGS]),
        (Action.DUMMY, [*table.D_TAGS, *table.Z_D_TAGS, *table.X_D_TAGS, *table.X_Z_D_TAGS]),
        (Action.RENAME, table.U_TAGS),
    )
    return {tag[0] << 16 | tag[1]: action for action, listed in columns for tag in listed if len(tag) == 2}


def _listed(tag: int) -> Action | None:
    group, element = tag >> 16, tag & 0xFFFF
    for one in table.X_TAGS:
        if len(one) == 4 and group & one[2] == one[0] and element & one[3] == one[1] & one[3]:
            return Action.REMOVE
    return _rules().get(tag)


def technical_words(text: str) -> str:
    """Return the words of a descriptor that describe an image; all others are left out.

    Examples:
        >>> technical_words("HEAD_Mueller 5.0mm W/O CONTRAST Room 4711")
        'HEAD 5.0mm W/O CONTRAST'
    """
    words = [word for word in _SPLIT.split(text) if word]
    return " ".join(word for word in words if word.upper() in _WORDS or _MEASURE.fullmatch(word.upper()))[:64]
