"""A de-identified copy of one DICOM file, bytes to bytes; ``deidentify`` says what is removed."""

import io

from pydicom import dcmread

from hemoscope.dicom.deidentify import deidentified
from hemoscope.dicom.elements import PARSE_ERRORS, quiet
from hemoscope.dicom.refusals import refusal


def deidentified_file(data: bytes, *, key: bytes, source: str) -> bytes:
    """Return a file without identity, its pixels and geometry as they were.

    Args:
        data: a file that ``open_archive`` admitted, so that its size, also inflated, is within the limits.
        key: secret of the site, at least 16 bytes.
        source: the input as the user named it.

    Raises:
        DicomReadError: ``burned_in_annotation``, or ``malformed`` where a value cannot be read or written again.
    """
    out = io.BytesIO()
    with quiet():
        try:
            clean = deidentified(dcmread(io.BytesIO(data), force=True), key=key, source=source)
            clean.save_as(out, enforce_file_format=False)
        except PARSE_ERRORS as error:
            reason = f"it cannot be written again without identity ({type(error).__name__})"
            raise refusal(source, "malformed", reason) from error
    return out.getvalue()
