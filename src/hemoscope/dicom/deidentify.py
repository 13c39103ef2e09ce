"""De-identified copies of DICOM datasets: the Basic Profile of PS3.15 Annex E, with stable pseudonyms.

Which element is removed, emptied or replaced is Table E.1-1 as dicom-anonymizer keeps it; this module applies it at
every depth of nesting, and removes private elements and elements of unknown VR, whose content nobody can vouch for.
Geometry, rescale and pixels stay as they are: none of them stands in the table. The same key gives the same pseudonym
for the same identity, so that studies of one patient stay together; without the key nobody can follow them back. Faces
are not removed: a head CT can be rendered, so a de-identified study is still to be guarded.
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
_HALF = 8  # bytes of a pseudonym that carry the identity; as many again prove that it is one of this key's
# File meta information that says what the file is; the rest says who sent it, PS3.10 section 7.1.
_META = frozenset((0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013))
# A value that each VR accepts where the table asks for a dummy, PS3.5 section 6.2.
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
    """A copy without identity; the dataset given is left as it was. Twice with one key is the same as once.

    Args:
        dataset: a whole dataset, ``file_meta`` included where there is one.
        key: secret of the site, at least 16 bytes; whoever holds it can tie a known identity to its pseudonym.
        source: the input as the user named it, for errors.

    Raises:
        DicomReadError: the dataset says that identity is burned into its pixels, which no profile of elements cleans.
        ValueError: the key is too short to keep a secret.
    """
    if len(key) < _LEAST_KEY:
        msg = f"the key of pseudonyms needs at least {_LEAST_KEY} bytes, got {len(key)}"
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


def pseudonymous_uid(uid: str, key: bytes) -> str:
    """The UID that stands for another: of the form 2.25, PS3.5 B.2; a pseudonym of the same key stands for itself."""
    root, _, number = uid.partition("2.25.")
    if not root and number.isdecimal() and int(number) < 1 << 128 and _is_ours(int(number).to_bytes(16, "big"), key):
        return uid
    return f"2.25.{int.from_bytes(_pseudonym(uid, key), 'big')}"


def pseudonymous_id(patient_id: str, key: bytes) -> str:
    """The patient ID that stands for another; a pseudonym of the same key stands for itself."""
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
    """Apply the table to a dataset and everything nested in it, in place."""
    for element in list(dataset):  # decodes every element, so that its VR is known
        if element.tag.is_private or element.VR == "UN":
            del dataset[element.tag]
            continue
        rule = _rule(element.tag.group, element.tag.element)
        if rule is not None:
            rule(dataset, element, key)
        elif element.VR == "PN":
            element.value = ""  # no name is kept, not even one that the table does not know
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
    """New UIDs for old, many or one; a UID that breaks the standard is renamed like any other text."""
    if element.is_empty:
        return
    values = [element.value] if isinstance(element.value, str) else list(element.value)
    renamed = [pseudonymous_uid(str(value), key) for value in values]
    element.value = renamed if len(renamed) > 1 else renamed[0]


@cache
def _rules() -> dict[tuple[int, int], Action]:
    """The table's action for each element. Where it leaves a choice, the one that keeps the object valid.

    Referenced and source images (X/Z/U*) are emptied: what they point to may never have left the hospital.
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
    """The code of the profile, PS3.16 CID 7050."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    return code
