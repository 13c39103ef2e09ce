"""De-identifies DICOM datasets by the Basic Profile of PS3.15 Annex E, with stable pseudonyms.

Elements are removed, emptied or replaced according to Table E.1-1 as provided by dicom-anonymizer, at every depth of
nesting. Private elements and elements of unknown VR are removed too, because their content is unknown. Geometry,
rescale and pixels are unchanged: they are not in the table. The same key gives the same pseudonym for the same
identity, so that studies of one patient stay together; without the key, pseudonyms cannot be traced back. Faces are not
removed: a head CT can be rendered in 3D, so protect de-identified studies too.
"""

import hashlib
import hmac
import io
from collections.abc import Callable
from copy import deepcopy
from functools import cache

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from hemoscope.dicom.elements import PARSE_ERRORS, quiet
from hemoscope.dicom.refusals import refusal
from hemoscope.errors import DicomReadError

METHOD = "Hemoscope, PS3.15 Basic Application Confidentiality Profile"

_LEAST_KEY = 16
_HALF = 8  # bytes of a pseudonym derived from the identity; as many again authenticate it by the key
# File meta information about the file itself; the rest is about the sender, PS3.10 section 7.1.
_META = frozenset((0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013))
# A valid dummy value for each VR, PS3.5 section 6.2.
_DUMMY: dict[str, object] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS", "FD", "FL", "SS", "US", "SL", "UL", "SV", "UV"), 0),
    **dict.fromkeys(("OB", "OW", "OD", "OF", "OL", "OV"), b"\0\0"),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "urn:removed",
}

Action = Callable[[Dataset, DataElement, bytes], None]


def deidentified(dataset: Dataset, *, key: bytes, source: str) -> Dataset:
    """Return a de-identified copy; the original is unchanged. Idempotent for the same key.

    Args:
        dataset: a complete dataset, with its ``file_meta`` if it has one.
        key: secret of the site, at least 16 bytes; with it, a known identity can be linked to its pseudonym.
        source: the input as the user named it, for errors.

    Raises:
        DicomReadError: the dataset states that identity is burned into its pixels, which the profile does not clean.
        ValueError: the key is too short.
    """
    if len(key) < _LEAST_KEY:
        msg = f"the pseudonym key needs at least {_LEAST_KEY} bytes, got {len(key)}"
        raise ValueError(msg)
    if str(dataset.get("BurnedInAnnotation", "NO")).upper() == "YES":
        reason, remedy = "burned-in annotation is YES, so its pixels may show who it is", "Remove it at its source"
        raise DicomReadError(source=source, code="burned_in_annotation", reason=reason, remedy=remedy)
    clean = deepcopy(dataset)
    patient = pseudonymous_id(str(dataset.get("PatientID", "")), key)
    _clean(clean, key)
    clean.PatientID = clean.PatientName = patient
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = METHOD
    clean.DeidentificationMethodCodeSequence = Sequence([_profile_code()])
    meta = getattr(clean, "file_meta", None)
    if meta is not None:
        for element in [element for element in meta if element.tag not in _META]:
            del meta[element.tag]
        _clean(meta, key)
    clean.preamble = bytes(128)
    return clean


def deidentified_file(data: bytes, *, key: bytes, source: str) -> bytes:
    """Return a de-identified file with unchanged pixels and geometry.

    Args:
        data: a file that ``open_archive`` accepted, so that its size, also when inflated, is within the limits.
        key: secret of the site, at least 16 bytes.
        source: the input as the user named it.

    Raises:
        DicomReadError: ``burned_in_annotation``, or ``malformed`` if a value cannot be read or written again.
    """
    out = io.BytesIO()
    with quiet():
        try:
            clean = deidentified(dcmread(io.BytesIO(data), force=True), key=key, source=source)
            clean.save_as(out, enforce_file_format=False)
        except PARSE_ERRORS as error:
            reason = f"it cannot be de-identified ({type(error).__name__})"
            raise refusal(source, "malformed", reason) from error
    return out.getvalue()


def pseudonymous_uid(uid: str, key: bytes) -> str:
    """Return the pseudonym of a UID (under 2.25, PS3.5 B.2); a pseudonym of the same key is returned unchanged."""
    root, _, number = uid.partition("2.25.")
    if not root and number.isdecimal() and int(number) < 1 << 128 and _is_ours(int(number).to_bytes(16, "big"), key):
        return uid
    return f"2.25.{int.from_bytes(_pseudonym(uid, key), 'big')}"


def pseudonymous_id(patient_id: str, key: bytes) -> str:
    """Return the pseudonym of a patient ID; a pseudonym of the same key is returned unchanged."""
    try:
        known = bytes.fromhex(patient_id.removeprefix("H"))
    except ValueError:
        known = b""
    return patient_id if _is_ours(known, key) else f"H{_pseudonym(patient_id, key).hex()}"


def _pseudonym(identity: str, key: bytes) -> bytes:
    head = hmac.digest(key, identity.encode("utf-8", "surrogatepass"), hashlib.sha256)[:_HALF]
    return head + hmac.digest(key, head, hashlib.sha256)[:_HALF]


def _is_ours(value: bytes, key: bytes) -> bool:
    head, proof = value[:_HALF], value[_HALF:]
    return len(value) == 2 * _HALF and hmac.compare_digest(proof, hmac.digest(key, head, hashlib.sha256)[:_HALF])


def _clean(dataset: Dataset, key: bytes) -> None:
    """Apply the table to a dataset and all nested items, in place."""
    for element in list(dataset):  # decodes every element, so that its VR is known
        if element.tag.is_private or element.VR == "UN":
            del dataset[element.tag]
            continue
        rule = _rule(element.tag.group, element.tag.element)
        if rule is not None:
            rule(dataset, element, key)
        elif element.VR == "PN":
            element.value = ""  # no person name is kept, not even one that is not in the table
        elif element.VR == "SQ":
            for item in element.value:
                _clean(item, key)


def _remove(dataset: Dataset, element: DataElement, _: bytes) -> None:
    del dataset[element.tag]


def _empty(_: Dataset, element: DataElement, __: bytes) -> None:
    element.value = None if element.VR != "SQ" else Sequence()


def _replace(_: Dataset, element: DataElement, key: bytes) -> None:
    if element.VR == "UI":
        _rename(_, element, key)
    elif element.VR == "SQ":
        element.value = Sequence()
    else:
        element.value = _DUMMY[element.VR]


def _rename(_: Dataset, element: DataElement, key: bytes) -> None:
    """Replace one or more UIDs; an invalid UID is replaced like any other text."""
    if element.is_empty:
        return
    values = [element.value] if isinstance(element.value, str) else list(element.value)
    renamed = [pseudonymous_uid(str(value), key) for value in values]
    element.value = renamed if len(renamed) > 1 else renamed[0]


@cache
def _rules() -> dict[tuple[int, int], Action]:
    """The table's action for each element; if there is a choice, the one that keeps the object valid.

    References to other images (X/Z/U*) are emptied: those images may not have left the hospital.
    """
    columns: tuple[tuple[Action, list[tuple[int, ...]]], ...] = (
        (_remove, table.X_TAGS),
        (_empty, [*table.Z_TAGS, *table.X_Z_TAGS, *table.X_Z_U_STAR_TAGS]),
        (_replace, [*table.D_TAGS, *table.Z_D_TAGS, *table.X_D_TAGS, *table.X_Z_D_TAGS]),
        (_rename, table.U_TAGS),
    )
    return {(tag[0], tag[1]): rule for rule, tags in columns for tag in tags if len(tag) == 2}


@cache
def _repeating() -> tuple[tuple[int, ...], ...]:
    return tuple(tag for tag in table.X_TAGS if len(tag) == 4)


def _rule(group: int, element: int) -> Action | None:
    for wanted_group, wanted_element, group_mask, element_mask in _repeating():
        if group & group_mask == wanted_group and element & element_mask == wanted_element & element_mask:
            return _remove
    return _rules().get((group, element))


def _profile_code() -> Dataset:
    """Return the code of the profile, PS3.16 CID 7050."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    return code
