"""The field cases: the condition that each was made after, and what is right."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import field_case_checks as checks
from field_case_reading import Bench, Seen


@dataclass(frozen=True)
class Case:
    """A case: its name, the condition, what is right, and the check."""

    name: str
    condition: str
    right: str
    check: Callable[[Bench, Path], Seen]


HU = "HU equal those of the same phantom in valid files"
CASES = (
    Case(
        "two_patients_one_series",
        "two patients under one series UID",
        "two studies, each as if alone",
        checks.two_patients,
    ),
    Case(
        "one_sop_uid",
        "all slices share a SOP Instance UID",
        "24 slices as with own UIDs, any >= .9, a note",
        checks.one_sop_uid,
    ),
    Case(
        "bone_and_soft_one_series", "two kernels in one series", "the 24 soft slices, as if alone", checks.bone_and_soft
    ),
    Case("two_passes_interleaved", "two acquisitions, 2 mm apart", "one of 24 slices, as if alone", checks.two_passes),
    Case(
        "sequential_acquisitions",
        "acquisition number and time change from slice to slice",
        "24 slices, one stack, as of one acquisition",
        checks.sequential,
    ),
    Case("hu_plus_1024", "offset of +1024 HU, in 16 and 12 bits", "refused; corrected: any >= .9", checks.offset),
    Case(
        "signed_declared_unsigned",
        "signed HU declared unsigned",
        "refused",
        checks.refused("implausible_hounsfield"),
    ),
    Case(
        "orientation_jitter",
        "cosines differ in the sixth decimal",
        "24 slices, any >= .9",
        checks.one_orientation(24, 0.9),
    ),
    Case("orientation_at_rounding_edge", "cosines .955 +- 1e-6", "28 slices, one stack", checks.one_orientation(28)),
    Case(
        "thin_then_thick",
        "1 mm, then 5 mm slices",
        "5 mm slices are not averaged; any as of the thick part alone",
        checks.thin_then_thick,
    ),
    Case("two_thickness_5_10", "10 slices of 5 mm, then 10 of 10 mm", "20 slices, none missing", checks.thickness_5_10),
    Case("slice_location_only", "only Slice Location", "order and note by Slice Location", checks.slice_location),
    Case(
        "agent_without",
        "agent W/O CONTRAST and six such wordings",
        "the soft series, no contrast note",
        checks.agent_without,
    ),
    Case(
        "mip_preferred",
        "a MIP beside thin plain CT",
        "the plain series; the MIP has a note",
        checks.projection_last(110),
    ),
    Case(
        "mip_beside_plain", "a MIP beside plain CT", "the plain series; the MIP has a note", checks.projection_last(28)
    ),
    Case("imagetype_mip", "a MIP alone", "a note", checks.noted("projection", 1)),
    Case("imagetype_perfusion_rcbf", "a perfusion map alone", "refused", checks.refused("parameter_map")),
    Case("perfusion_4d_8x10", "10 times, 16 places", "a note that it is dynamic", checks.noted("dynamic_series", 16)),
    Case("protocol_sheet", "a page of text of the CT class", "refused", checks.refused("sheet")),
    Case("prone", "stored rotated, as the header says", "the same answer as supine, to 1e-6", checks.prone),
    Case("padding_beyond_bits", "padding 63536 over 12 bits", "air", checks.padding),
    Case("excess_pixel_bytes", "surplus bytes after the pixels", HU, checks.as_plain()),
    Case("frames_0", "Number of Frames is 0", f"{HU}; a note", checks.as_plain("nonstandard_encoding")),
    Case(
        "no_sequence_delimiter",
        "compressed pixels without their end",
        f"{HU}; a note",
        checks.as_plain("nonstandard_encoding"),
    ),
    *(
        Case(
            f"CT0012.fragmented_no_bot_{syntax}",
            "several fragments a frame, empty offset table",
            "the same pixels as other decoders",
            checks.fragments,
        )
        for syntax in ("jpeg_baseline.51", "jpeg_lossless.57", "jpeg_lossless.70")
    ),
    Case("dicomdir_dcm_names", "DICOMDIR names IM0, the file is IM0.dcm", "4 slices", checks.dicomdir),
    Case("gbk_names", "folder names in GBK bytes", "valid Unicode in findings.json", checks.gbk_names),
    *(
        Case(name, "an element of a wrong length", "dropped or refused; the study goes on", checks.odd_element)
        for name in ("deid_FD_len_4", "deid_US_len_3", "fuzz_deid_fail_7962", "fuzz_deid_fail_13740")
    ),
    Case("deid_empty_contrast", "empty contrast agent", "stays empty; NONE stays none", checks.empty_contrast),
    Case("uid_names", "files named by UID, without .dcm", "1.2.7.1 has its own labels", checks.uid_names),
    Case("any_contradicts", "any 0 beside epidural 1", "refused, rows named", checks.any_contradicts),
)
