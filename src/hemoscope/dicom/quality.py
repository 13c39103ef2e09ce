"""Quality notes on a series: what a reader of the result should know, each with a code.

Codes: ``single_slice``, ``few_slices``, ``missing_slices``, ``uneven_spacing``, ``positions_unknown``,
``duplicate_slices``, ``mixed_orientation``, ``mixed_size``, ``mixed_pixel_spacing``, ``not_axial``, ``gantry_tilt``,
``not_head``, ``projection``, ``virtual_image``, ``pediatric``, ``contrast_agent``, ``unusual_kvp``, ``bone_kernel``,
``geometry_assumed``, and the codes of single slices (``nonstandard_uid``, ``invalid_geometry``), gathered. Decoding
adds ``slices_refused``, and per slice ``twelve_bit_repair``, ``damaged_pixel_data``, ``padding_in_tissue``,
``modified_hounsfield`` and ``coarse_hounsfield``; ``plausibility`` adds ``unlike_head`` and ``metal``.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hemoscope.dicom.geometry import plane, position_mm, spacing_mm, tilt_degrees
from hemoscope.dicom.image_kind import ImageKind
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.dicom.wording import without_accents

# A head is about 150 mm high; a series that covers less, or has fewer slices if positions are unknown, is incomplete.
HEAD_MM = 100.0
_HEAD_SLICES = 15
_KVP = (100.0, 140.0)
_GAP = 1.5
_UNEVEN = 0.1
_TILT_DEGREES = 0.5
# Parts of the head, and the head itself, in the languages that Body Part Examined is found in, without accents.
_HEAD_PARTS = (
    *("HEAD", "BRAIN", "SKULL", "CRANI", "NEURO", "ORBIT", "SINUS", "FACE", "FACIAL", "TEMPORAL", "IAC", "WHOLE"),
    *(
        "SELLA",
        "PITUITAR",
        "MASTOID",
        "PETROUS",
        "CEREBR",
        "ENCEPHAL",
        "ENCEFAL",
        "CRANE",
        "KOPF",
        "SCHADEL",
        "SCHAEDEL",
    ),
    *(
        "HIRN",
        "GESICHT",
        "NNH",
        "TETE",
        "CERVEAU",
        "ROCHER",
        "TESTA",
        "CERVELL",
        "CABEZA",
        "CABECA",
        "HOOFD",
        "SCHEDEL",
    ),
    *("HERSEN", "HUVUD", "HODE", "HOVED", "HJERNE", "HJARNA", "GLOWA", "MOZG", "HLAVA", "KAFA", "BEYIN", "TOTAL B"),
)
_OTHER_PARTS = re.compile(
    r"\b(CHEST|THORAX|ABDOM\w*|PELVIS|BECKEN|BACINO|LUNG|LUNGE|LIVER|KIDNEY|CARDIAC|CORONAR\w*|HEART|LUMBAR|KNEE|ANKLE|HIP)\b"
)
# Body Part Examined where nothing was entered.
_NO_PART = frozenset({"NONE", "UNKNOWN", "UNDEFINED", "OTHER", "DEFAULT", "NA", "N/A", "-", "*"})
_ADULT_YEARS = 18.0
# Kernels for bone or lung are too noisy to show blood against brain. Each vendor names its own: Siemens numbers the
# sharpness (H30s is soft, H60s and above are sharp; also J, B and Hr), Canon uses FC30-39, FC50-59 and FC80-89, Philips
# D, E, L and YB-YE, and GE words.
_SHARP_KERNELS = frozenset(
    {"BONE", "BONEPLUS", "BONE+", "EDGE", "LUNG", "ULTRA", "SHARP", "YB", "YC", "YD", "YE", "D", "E", "L"}
)
_SIEMENS_KERNEL = re.compile(r"(?:H|J|B|I|U|T|S|HR|BR|BL|HC|UR|QR)F?(\d\d)[A-Z]?")
_CANON_KERNEL = re.compile(r"FC(\d\d)")
_SHARP_CANON = (range(30, 40), range(50, 60), range(80, 90))
_BONE_SERIES = re.compile(r"\b(bone|knochen|os osseux|hueso|osso|petrous)\b", re.IGNORECASE)


def series_notes(headers: Sequence[SliceHeader]) -> tuple[QualityNote, ...]:
    """Return the notes on a series whose headers are in anatomical order."""
    notes = [
        *_extent_notes(headers),
        *_spacing_notes(headers),
        *_plane_notes(headers),
        *_acquisition_notes(headers),
        *_slice_notes(headers),
    ]
    return tuple(notes)


def known_positions(headers: Sequence[SliceHeader]) -> list[float] | None:
    """Return the position of every slice along the normal, or None unless all are known."""
    positions = [position_mm(header) for header in headers]
    known = [position for position in positions if position is not None]
    return known if len(known) == len(positions) else None


def covered_mm(headers: Sequence[SliceHeader]) -> float | None:
    """Return the length that a series covers along its normal, or None if positions are unknown."""
    positions = known_positions(headers)
    if not positions:
        return None
    return max(positions) - min(positions) + (headers[0].slice_thickness_mm or spacing_mm(sorted(positions)) or 0.0)


def is_other_anatomy(header: SliceHeader) -> bool:
    """Whether Body Part Examined (0018,0015) or, if it is not given, the series description names another part."""
    part = without_accents(header.body_part or "").strip()
    if part and part not in _NO_PART:
        return not _names_head(part)
    description = without_accents(header.series_description or "")
    return bool(_OTHER_PARTS.search(description)) and not _names_head(description)


def _names_head(text: str) -> bool:
    return any(word in text for word in _HEAD_PARTS)


def is_sharp_kernel(kernel: str | None, description: str | None = None) -> bool:
    """Whether a kernel (0018,1210) is for bone or lung; without a kernel, the series description decides."""
    if not kernel:
        return bool(description and _BONE_SERIES.search(description))
    for word in kernel.upper().replace(",", " ").split():
        siemens, canon = _SIEMENS_KERNEL.fullmatch(word), _CANON_KERNEL.fullmatch(word)
        if word in _SHARP_KERNELS or (siemens and int(siemens[1]) >= 55):
            return True
        if canon and any(int(canon[1]) in sharp for sharp in _SHARP_CANON):
            return True
    return False


def _note(code: str, message: str) -> QualityNote:
    return QualityNote(code=code, message=message)


def _extent_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    if len(headers) == 1:
        return [_note("single_slice", "a single slice: the rest of the head is unknown")]
    covered = covered_mm(headers)
    if covered is None and len(headers) < _HEAD_SLICES:
        return [_note("few_slices", f"{len(headers)} slices are too few for a whole head")]
    if covered is not None and covered < HEAD_MM:
        return [_note("few_slices", f"{len(headers)} slices cover {covered:.0f} mm, less than a head")]
    return []


def _spacing_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    if len(headers) < 2:
        return []
    positions = known_positions(headers)
    if positions is None or len(set(positions)) == 1:
        return [
            _note("positions_unknown", "positions are unknown; slices are in order of instance number"),
            *_numbers(headers),
        ]
    typical = spacing_mm(positions)
    if not typical:
        return []
    steps = [after - before for before, after in pairwise(positions)]
    missing = sum(round(step / typical) - 1 for step in steps if step > _GAP * typical)
    gaps = sum(step > _GAP * typical for step in steps)
    notes = []
    if gaps:
        message = f"{gaps} gaps in the series: about {max(missing, gaps)} slices of {typical:.2f} mm are missing"
        notes.append(_note("missing_slices", message))
    if any(abs(step - typical) > _UNEVEN * typical for step in steps if step <= _GAP * typical):
        message = f"slices are {min(steps):.2f} to {max(steps):.2f} mm apart"
        notes.append(_note("uneven_spacing", message))
    return notes


def _numbers(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    """Without positions, only jumps of the instance number can show a gap."""
    numbers = sorted({header.instance_number for header in headers if header.instance_number is not None})
    if len(numbers) != len(headers):
        return []
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    return [_note("missing_slices", f"{missing} instance numbers are missing in between")] if missing else []


def _plane_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    notes = []
    orientation = headers[0].orientation
    if orientation is not None and plane(orientation) != "axial":
        notes.append(_note("not_axial", f"slices are {plane(orientation)}; the model was trained on axial ones"))
    tilt = max(
        abs(headers[0].gantry_tilt_degrees or 0.0), tilt_degrees(orientation) if orientation is not None else 0.0
    )
    if tilt > _TILT_DEGREES:
        notes.append(_note("gantry_tilt", f"slices are tilted by {tilt:.1f} degrees"))
    if len({header.pixel_spacing_mm for header in headers}) > 1:
        notes.append(_note("mixed_pixel_spacing", "slices differ in pixel spacing"))
    return notes


def _acquisition_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    notes = []
    count = len(headers)
    other = sum(is_other_anatomy(header) for header in headers)
    if other:
        parts = {header.body_part or header.series_description or "" for header in headers if is_other_anatomy(header)}
        notes.append(_note("not_head", f"body part is {', '.join(sorted(parts))[:64]} in {other} of {count} slices"))
    notes += _kind_notes(headers)
    ages = [header.patient_age_years for header in headers if header.patient_age_years is not None]
    if ages and min(ages) < _ADULT_YEARS:
        notes.append(
            _note("pediatric", "the patient is under 18 years old; most patients that models are trained on are adults")
        )
    if contrast := sum(header.contrast_agent is not None for header in headers):
        message = f"contrast agent was given, by the header ({contrast} of {count} slices)"
        notes.append(_note("contrast_agent", message))
    kvps = sorted({header.kvp for header in headers if header.kvp and not _KVP[0] <= header.kvp <= _KVP[1]})
    if kvps:
        shown = ", ".join(f"{kvp:g}" for kvp in kvps)
        notes.append(_note("unusual_kvp", f"tube voltage is {shown} kV, outside {_KVP[0]:g}-{_KVP[1]:g}"))
    if any(is_sharp_kernel(header.convolution_kernel, header.series_description) for header in headers):
        notes.append(_note("bone_kernel", "reconstructed with a sharp kernel, which hides blood in noise"))
    if any(header.geometry_assumed for header in headers):
        notes.append(_note("geometry_assumed", "spacing, position and orientation are assumed, not measured"))
    return notes


def _kind_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    count = len(headers)
    notes = []
    if projections := sum(header.kind is ImageKind.PROJECTION for header in headers):
        message = f"an intensity projection ({projections} of {count} slices): vessels and bone cover the brain"
        notes.append(_note("projection", message))
    if virtual := sum(header.kind is ImageKind.VIRTUAL for header in headers):
        message = (
            f"computed from two energies ({virtual} of {count} slices): contrast of blood differs from a plain scan"
        )
        notes.append(_note("virtual_image", message))
    return notes


def _slice_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    """Return each note on single slices once, with the number of slices."""
    counts = Counter((note.code, note.message) for header in headers for note in header.quality)
    return [_note(code, f"{message} ({count} of {len(headers)} slices)") for (code, message), count in counts.items()]
