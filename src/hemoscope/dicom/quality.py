"""Quality notes on a series: what a reader of the result should know, each with a code.

Codes: ``single_slice``, ``few_slices``, ``missing_slices``, ``uneven_spacing``, ``positions_unknown``,
``mixed_pixel_spacing``, ``pixels_not_square``, ``not_axial``, ``gantry_tilt``, ``not_head``, ``projection``,
``virtual_image``, ``pediatric``, ``contrast_agent``, ``unusual_kvp``, ``bone_kernel``, ``geometry_assumed``, and the
codes of single slices (``nonstandard_encoding``, ``nonstandard_uid``, ``invalid_geometry``), gathered. ``series`` adds
what it excludes and unites: ``duplicate_slices``, ``mixed_orientation``, ``mixed_size``, ``overlapping_stacks``,
``united_stacks``, ``dynamic_series``, ``repeated_uid`` and ``several_patients``. Decoding adds ``slices_refused``, and
per slice ``twelve_bit_repair``, ``damaged_pixel_data``, ``padding_in_tissue``, ``modified_hounsfield`` and
``coarse_hounsfield``; ``plausibility`` adds ``unlike_head``, ``metal`` and ``contrast_suspected``.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from hemoscope.dicom.geometry import known_positions, measured_positions, plane, spacing_mm, tilt_degrees
from hemoscope.dicom.image_kind import ImageKind
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.dicom.wording import without_accents

# A head is about 150 mm high. A series that covers clearly less, or has fewer slices if positions are unknown, is
# incomplete.
HEAD_MM = 100.0
HEAD_SLICES = 15
_KVP = (100.0, 140.0)
_GAP = 1.5
_UNEVEN = 0.1
_TILT_DEGREES = 0.5
_NOT_SQUARE = 0.01
_NAMED = 3  # damaged files that a note names
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


def covered_mm(headers: Sequence[SliceHeader]) -> float | None:
    """Return the length that a series covers along its normal, or None if positions are unknown."""
    positions = known_positions(headers)
    if not positions:
        return None
    low, high = (headers[positions.index(end(positions))] for end in (min, max))
    typical = spacing_mm(sorted(positions)) or 0.0
    ends = [header.slice_thickness_mm or typical for header in (low, high)]
    return max(positions) - min(positions) + sum(ends) / 2


def is_other_anatomy(header: SliceHeader) -> bool:
    """Whether Body Part Examined (0018,0015) or, if it is not given, the series description names another part."""
    part = without_accents(header.body_part or "").strip()
    if part and part not in _NO_PART:
        return not _names_head(part)
    return names_other_anatomy(header.series_description or "")


def names_other_anatomy(description: str) -> bool:
    """Whether a description names a part of the body, and not the head."""
    plain = without_accents(description)
    return bool(_OTHER_PARTS.search(plain)) and not _names_head(plain)


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
    if covered is None and len(headers) < HEAD_SLICES:
        return [_note("few_slices", f"{len(headers)} slices are too few for a whole head")]
    if covered is not None and covered < HEAD_MM:
        return [_note("few_slices", f"{len(headers)} slices cover {covered:.0f} mm, less than a head")]
    return []


def missing_slices(headers: Sequence[SliceHeader]) -> int:
    """Return about how many slices the gaps between known positions lack."""
    return sum(max(round(step / due) - 1, 1) for step, due in _gaps(headers))


def _spacing_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    if len(headers) < 2:
        return []
    positions = known_positions(headers)
    if positions is None:
        return _unplaced_notes(headers)
    notes = []
    measured = measured_positions(headers)
    if None in measured or len(set(measured)) == 1:
        message = "positions are unknown; slices are in order of Slice Location"
        notes.append(_note("positions_unknown", message))
    if gaps := _gaps(headers):
        sizes = " or ".join(sorted({f"{due:.2f}" for _, due in gaps}, key=float)[:3])
        message = _gap_words(len(gaps), missing_slices(headers), sizes)
        notes.append(_note("missing_slices", message))
    typical = spacing_mm(positions) or 0.0
    steps = [step for step in _steps(headers) if step not in gaps]
    if any(abs(step - typical) > _UNEVEN * typical for step, _ in steps):
        whole = [step for step, _ in _steps(headers)]
        notes.append(_note("uneven_spacing", f"slices are {min(whole):.2f} to {max(whole):.2f} mm apart"))
    return notes


def _gap_words(gaps: int, missing: int, sizes: str) -> str:
    holes = "1 gap" if gaps == 1 else f"{gaps} gaps"
    lacking = f"1 slice of {sizes} mm is" if missing == 1 else f"{missing} slices of {sizes} mm are"
    return f"{holes} in the series: about {lacking} missing"


def _gaps(headers: Sequence[SliceHeader]) -> list[tuple[float, float]]:
    return [(step, due) for step, due in _steps(headers) if step > _GAP * due]


def _steps(headers: Sequence[SliceHeader]) -> list[tuple[float, float]]:
    """Return each distance between adjacent slices, with the distance that is due; none if positions are unknown.

    Due is the slices' own thickness, and more if the whole series has gaps. Without Slice Thickness, the typical
    distance is due everywhere.
    """
    positions = known_positions(headers) or []
    steps = [after - before for before, after in pairwise(positions)]
    typical = spacing_mm(positions)
    if not typical:
        return []
    thickness = [header.slice_thickness_mm for header in headers]
    if None in thickness:
        return [(step, typical) for step in steps]
    due = [((a or typical) + (b or typical)) / 2 for a, b in pairwise(thickness)]
    ratios = sorted(step / mm for step, mm in zip(steps, due, strict=True))
    protocol = max(ratios[len(ratios) // 2], 1.0)
    return [(step, mm * protocol) for step, mm in zip(steps, due, strict=True)]


def _unplaced_notes(headers: Sequence[SliceHeader]) -> list[QualityNote]:
    numbers = {header.instance_number for header in headers}
    if len(numbers) == 1 and len({header.source for header in headers}) > 1:
        message = "positions, Slice Location and instance numbers are unknown: the order of slices means nothing"
        return [_note("positions_unknown", message)]
    message = "positions are unknown; slices are in order of instance number"
    return [_note("positions_unknown", message), *_numbers(headers)]


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
    if len({header.pixel_spacing_mm for header in headers if header.pixel_spacing_mm is not None}) > 1:
        notes.append(_note("mixed_pixel_spacing", "slices differ in pixel spacing: some are resampled to be shown"))
    if (aspect := max(map(_elongation, headers))) > 1 + _NOT_SQUARE:
        message = f"pixels are {aspect:.2f} times as long as wide; slices are resampled to square pixels for the model"
        notes.append(_note("pixels_not_square", message))
    return notes


def _elongation(header: SliceHeader) -> float:
    """Return the longer side of a pixel over the shorter one; 1 if unknown."""
    rows_mm, columns_mm = header.pixel_spacing_mm or (header.pixel_aspect or 1.0, 1.0)
    return max(rows_mm / columns_mm, columns_mm / rows_mm)


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


def decoding_notes(notes: Mapping[int, tuple[QualityNote, ...]], sources: Sequence[str]) -> tuple[QualityNote, ...]:
    """What decoding found in single slices, reported once for the series; ``sources`` in its order."""
    codes = [{note.code for note in notes[index]} for index in sorted(notes)]
    found = []
    if repaired := sum("twelve_bit_repair" in one for one in codes):
        message = f"12-bit values had wrapped below zero and were repaired in {repaired} of {len(codes)} slices"
        found.append(QualityNote(code="twelve_bit_repair", message=message))
    if damaged := [source for source, one in zip(sources, codes, strict=True) if "damaged_pixel_data" in one]:
        named = f"{', '.join(damaged[:_NAMED])}{' and others' if len(damaged) > _NAMED else ''}"
        message = f"the compressed data of {len(damaged)} of {len(codes)} slices are damaged: {named}"
        found.append(QualityNote(code="damaged_pixel_data", message=message))
    if padded := sum("padding_in_tissue" in one for one in codes):
        message = f"padding has Hounsfield units of tissue in {padded} of {len(codes)} slices"
        found.append(QualityNote(code="padding_in_tissue", message=message))
    if beyond := sum("undeclared_padding" in one for one in codes):
        message = f"padding that the header does not declare was read as air in {beyond} of {len(codes)} slices"
        found.append(QualityNote(code="undeclared_padding", message=message))
    return tuple(found)
