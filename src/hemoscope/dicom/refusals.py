"""Error codes for inputs that are not accepted, and for each code the remedy that the user reads.

Reasons name tags, sizes and codes; they never contain a value that could identify a patient. So they never include the
message of a third-party exception, which may quote the file.
"""

from hemoscope.errors import DicomReadError

REMEDIES: dict[str, str] = {
    "not_dicom": "Give DICOM files (CT slices); leave other files out",
    "unreadable": "Check that it exists, is an ordinary file and may be read",
    "malformed": "Export the study again from its source; this copy is damaged",
    "not_ct": "Give CT images (CT or Enhanced CT Image Storage)",
    "localizer": "Nothing to do: a scout shows no axial slice; the other series are read",
    "dose_report": "Nothing to do: a dose report holds no slice; the other series are read",
    "secondary_capture": "Export the original slices; a screen capture has no Hounsfield units",
    "sheet": "Nothing to do: a page of text shows no slice; the other series are read",
    "parameter_map": "Give the CT slices themselves; a computed map (perfusion, iodine, error) has no Hounsfield units",
    "picture": "Export the original slices; an 8-bit picture has no Hounsfield units",
    "no_pixels": "Export the image with its pixels",
    "colour": "Export the original slices; Hounsfield units are in grey",
    "monochrome1": "Export the original slices as MONOCHROME2; inverted values are no Hounsfield units",
    "truncated_pixel_data": "Copy or export the file again; part of it is missing",
    "inconsistent_pixel_data": "Export the slice again; its header and its pixels contradict each other",
    "decoder_died": "Export the slice again, uncompressed if possible; nothing else was lost",
    "no_rescale": "Export with Rescale Slope and Intercept; without them values are no Hounsfield units",
    "implausible_hounsfield": "Export the series again; check Rescale Intercept, Pixel Representation and Bits Stored",
    "mixed_scans": "Export each scan as a series of its own, with its instance numbers and acquisition times",
    "too_large": "If it is genuine, raise that limit with the option --limit NAME=VALUE",
    "unsupported_syntax": "Convert it first, for example with: gdcmconv --raw INPUT OUTPUT",
    "burned_in_annotation": "Remove the text from its pixels at its source, or leave it out",
    "not_an_image": "Nothing to do: only images are de-identified; send no report or document with them",
    "changed_file": "Give the files again once no program writes to them any more",
    "lost_upload": "Upload the study again",
    "hidden_file": "Give it a name without a leading dot, outside of __MACOSX, and pack the archive again",
    "system_files": "Nothing to do: they are no files of yours",
    "bad_archive": "Make the archive again as a plain ZIP (stored or deflated, no password), or give its folder",
}
# A note among the refusals; no command fails for it.
HARMLESS = frozenset({"system_files"})


def refusal(source: str, code: str, reason: str) -> DicomReadError:
    """Return the error for one refused input. Raises KeyError for an unknown ``code``: every code has a remedy."""
    return DicomReadError(source=source, code=code, reason=reason, remedy=REMEDIES[code])
