"""De-identifies DICOM images by the Basic Profile of PS3.15 Annex E, with stable pseudonyms.

``deidentify_rules`` says what happens to each element. Elements that stay are not decoded, so that a nonstandard value
reads the same before and after; an element that must be changed and cannot be decoded is removed. Geometry, rescale and
pixels are unchanged. The same key gives the same pseudonym for the same identity, so that studies of one patient stay
together; without the key, pseudonyms cannot be traced back. Faces are not removed: a head CT can be rendered in 3D, so
protect de-identified studies too.
"""

import hashlib
import hmac
import io
import re
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from hemoscope.dicom import tags
from hemoscope.dicom.deidentify_pseudonyms import pseudonymous_id, pseudonymous_uid
from hemoscope.dicom.deidentify_rules import (
    BINARY_VRS,
    CODE_MEANING,
    CODE_VALUES,
    CODING_SCHEME,
    STANDARD_SCHEMES,
    TEXT_VRS,
    Action,
    action_of,
    table_action,
)
from hemoscope.dicom.deidentify_words import cleaned_description
from hemoscope.dicom.elements import PARSE_ERRORS, quiet, sequence_of
from hemoscope.dicom.encapsulation import with_delimiter
from hemoscope.dicom.part10 import parse, read_whole
from hemoscope.dicom.read_budget import FileBudget, ReadBudget
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.wording import name_words
from hemoscope.errors import DicomReadError

METHOD = "Hemoscope, PS3.15 Basic Application Confidentiality Profile"
FACES = "Faces are not removed: a head CT can be rendered in 3D. Protect de-identified studies too."

LEAST_KEY_BYTES = 16
# File meta information about the file itself; the rest is about the sender, PS3.10 section 7.1.
_META = frozenset((0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013))
# A valid dummy value for each VR, PS3.5 section 6.2.
_DUMMY: dict[str, object] = {
    **dict.fromkeys(("CS", "PN", *TEXT_VRS), "REMOVED"),
    **dict.fromkeys(("DS", "IS", "FD", "FL", "SS", "US", "SL", "UL", "SV", "UV"), 0),
    **dict.fromkeys(BINARY_VRS, b"\0\0"),
    "AS": "000Y",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "urn:removed",
}
_STANDARD_UIDS = "1.2.840.10008."
_NUMERIC = re.compile(rb"[0-9+\-.,eE \\\0]*")
_SIZES = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
_AGE = re.compile(r"(\d{1,3})([DWMY])")
_OLDEST_YEARS = 90
_FURTHEST_DAYS = 3650
_CODES = {
    "113100": "Basic Application Confidentiality Profile",
    "113105": "Clean Descriptors Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeidentifyOptions:
    """What a site may choose.

    Attributes:
        shift_dates: move all dates of a patient by the same number of days (code 113107) in place of removing them.
        allow_unknown_annotation: accept screen captures that do not say whether identity is burned into their pixels.
    """

    shift_dates: bool = False
    allow_unknown_annotation: bool = False


def deidentified_file(
    data: bytes,
    *,
    key: bytes,
    source: str,
    options: DeidentifyOptions = DeidentifyOptions(),
    limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
    together: ReadBudget | None = None,
) -> bytes:
    """Return a de-identified file with unchanged pixels and geometry.

    Args:
        data: a file that was parsed within limits, so that its size, also when inflated, is bounded.
        key: secret of the site, at least 16 bytes; with it, a known identity can be linked to its pseudonym.
        source: the input as the user named it.
        options: of the site.
        limits: of one input.
        together: what all files that are opened together may still cost.

    Raises:
        DicomReadError: as :func:`deidentified`, or ``malformed`` if it cannot be parsed or written again.
        ValueError: the key is too short.
    """
    out = io.BytesIO()
    together = together or ReadBudget(limits)
    budget = together.open(source)
    with quiet(), budget:
        try:
            found = parse(data, source=source, limits=limits, together=together)
            if found.pixels is None:
                raise _not_an_image(source)
            if found.pixels.length is None:
                data = with_delimiter(found.pixels, source=source)  # pydicom drops pixels that have none
            dataset = read_whole(data, found, budget)
            _clean(dataset, key, source, options, budget).save_as(out, enforce_file_format=False)
        except PARSE_ERRORS as error:
            reason = f"it cannot be de-identified ({type(error).__name__})"
            raise refusal(source, "malformed", reason) from error
    return out.getvalue()


def deidentified(
    dataset: Dataset,
    *,
    key: bytes,
    source: str,
    options: DeidentifyOptions = DeidentifyOptions(),
) -> Dataset:
    """Return a de-identified copy; the original is unchanged. Idempotent for the same key and options.

    Args:
        dataset: a complete dataset, with its ``file_meta`` if it has one.
        key: secret of the site, at least 16 bytes.
        source: the input as the user named it, for errors.
        options: of the site.

    Raises:
        DicomReadError: ``burned_in_annotation`` if identity is, or may be, burned into the pixels, which the profile
            does not clean; ``not_an_image`` for reports, documents and presentation states: their text is free.
        ValueError: the key is too short.
    """
    return _clean(deepcopy(dataset), key, source, options, ReadBudget(ReadLimits()).open(source))


def _clean(dataset: Dataset, key: bytes, source: str, options: DeidentifyOptions, budget: FileBudget) -> Dataset:
    """De-identify a dataset in place; what is parsed for it counts from ``budget``."""
    if len(key) < LEAST_KEY_BYTES:
        msg = f"the pseudonym key needs at least {LEAST_KEY_BYTES} bytes, got {len(key)}"
        raise ValueError(msg)
    _check_pixels(dataset, source, options)
    patient_id = _text(dataset, "PatientID")
    again = pseudonymous_id(patient_id, key) == patient_id
    work = _Work(
        key=key,
        patient_id=patient_id,
        again=again,
        budget=budget,
        shift=_shift(dataset, patient_id, key, again=again) if options.shift_dates else None,
    )
    name = _pseudonymous_name(dataset, patient_id, key)
    work.clean(dataset)
    _cut_surplus(dataset)
    dataset.PatientID, dataset.PatientName = pseudonymous_id(patient_id, key), name
    _state_method(dataset, options)
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        for tag in [element.tag for element in meta if element.tag not in _META]:
            del meta[tag]
        if "MediaStorageSOPInstanceUID" in meta:
            meta.MediaStorageSOPInstanceUID = pseudonymous_uid(str(meta.MediaStorageSOPInstanceUID), key)
    dataset.preamble = bytes(128)
    return dataset


def _pseudonymous_name(dataset: Dataset, patient_id: str, key: bytes) -> str:
    """Return a pseudonym that still tells apart patients who share an ID, as their names and birth dates did."""
    name = _text(dataset, "PatientName")
    birth_date = _text(dataset, "PatientBirthDate")
    # As in reading, a name does not count where an ID and a birth date are given.
    words = "" if patient_id and birth_date else name_words(name)
    person = f"{patient_id} {words} {birth_date}".strip()
    return pseudonymous_id(name if pseudonymous_id(name, key) == name else person, key)


def _text(dataset: Dataset, keyword: str) -> str:
    """Return a text value; empty if it is missing or cannot be decoded."""
    try:
        return str(dataset.get(keyword) or "")
    except PARSE_ERRORS:
        return ""


def _cut_surplus(clean: Dataset) -> None:
    """Remove bytes after the declared pixels of a native image, which are not pixels and can hold anything."""
    try:
        if "PixelData" not in clean or clean.PixelData.startswith(b"\xfe\xff\x00\xe0"):  # items are encapsulated
            return
        samples = int(clean.get("SamplesPerPixel") or 1) * max(int(clean.get("NumberOfFrames") or 1), 1)
        size = clean.Rows * clean.Columns * samples * clean.BitsAllocated // 8
        if 0 < size < len(clean.PixelData) - size % 2:
            clean["PixelData"].value = clean.PixelData[:size] + b"\0" * (size % 2)
    except PARSE_ERRORS:
        return  # such a header is refused when the copy is read


def _not_an_image(source: str) -> DicomReadError:
    return refusal(source, "not_an_image", "a report, document or presentation state, whose text is free")


def _check_pixels(dataset: Dataset, source: str, options: DeidentifyOptions) -> None:
    if not any(tag in dataset for tag in (tags.PIXEL_DATA, tags.FLOAT_PIXEL_DATA, tags.DOUBLE_PIXEL_DATA)):
        raise _not_an_image(source)
    stated = _text(dataset, "BurnedInAnnotation").upper()
    if stated == "YES":
        raise refusal(source, "burned_in_annotation", "burned-in annotation is YES, so its pixels may show who it is")
    kind = f"{_text(dataset, 'SOPClassUID')} {_text(dataset, 'ConversionType')}".strip()
    captured = kind.startswith(_SECONDARY_CAPTURE) or " " in kind or "SCREEN" in _text(dataset, "ImageType").upper()
    if captured and stated != "NO" and not options.allow_unknown_annotation:
        reason = "a screen capture or converted picture that does not say whether identity is burned into its pixels"
        raise refusal(source, "burned_in_annotation", reason)


def _shift(dataset: Dataset, patient_id: str, key: bytes, *, again: bool) -> timedelta:
    """Return the patient's shift: 1 to 3,650 days into the past; none if this key shifted the dates before."""
    if again and _text(dataset, "LongitudinalTemporalInformationModified") == "MODIFIED":
        return timedelta(0)
    digest = hmac.digest(key, f"days of {patient_id}".encode("utf-8", "surrogatepass"), hashlib.sha256)
    return timedelta(days=-1 - int.from_bytes(digest[:8], "big") % _FURTHEST_DAYS)


def _state_method(clean: Dataset, options: DeidentifyOptions) -> None:
    """Write the attributes that PS3.15 E.1.1 requires of a de-identified object."""
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = METHOD
    clean.LongitudinalTemporalInformationModified = "MODIFIED" if options.shift_dates else "REMOVED"
    used = [code for code in _CODES if code != "113107" or options.shift_dates]
    clean.DeidentificationMethodCodeSequence = Sequence([_code(code) for code in used])


def _code(value: str) -> Dataset:
    """Return a code of PS3.16 CID 7050."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", _CODES[value]
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """Cleans datasets in place; ``shift`` of dates, or None to remove them; ``again`` if they were cleaned before."""

    key: bytes
    budget: FileBudget
    patient_id: str
    again: bool
    shift: timedelta | None

    def clean(self, dataset: Dataset) -> None:
        """Apply the rules to a dataset and all nested items."""
        for tag in list(dataset.keys()):
            self.budget.look()
            try:
                self._apply(dataset, int(tag))
            except PARSE_ERRORS:  # a value that cannot be decoded may hold anything
                del dataset[tag]
        _clean_code(dataset)

    def _apply(self, dataset: Dataset, tag: int) -> None:
        vr = _vr(dataset, tag)
        action = action_of(tag, vr)
        if action is Action.KEEP:
            _check_number(dataset, tag, vr)
            return
        if action in (Action.DATE, Action.TIME) and self.shift is not None:
            action = Action.DATE
        elif action is Action.DATE:
            action = table_action(tag)
        if action is Action.REMOVE:
            del dataset[tag]
            return
        if action is Action.DESCEND:
            sequence_of(dataset.get_item(tag), self.budget)  # counted before pydicom keeps an object for each element
        element = dataset[tag]
        if action is Action.DESCEND:
            for item in element.value:
                self.clean(item)
        else:
            element.value = self._changed(element, action)

    def _changed(self, element: DataElement, action: Action) -> object:
        if action is Action.EMPTY or (element.is_empty and not _needs_dummy(element, action)):
            return Sequence() if element.VR == "SQ" else None
        if action is Action.DUMMY:
            return self._dummy(element)
        if action is Action.RENAME:
            return self._renamed(element)
        if action is Action.DATE:
            return self._shifted(element)
        if action is Action.TIME:
            return self._other_time(str(element.value))
        return _age(element) if action is Action.AGE else _described(element)

    def _dummy(self, element: DataElement) -> object:
        if element.VR == "UI":
            return self._renamed(element)
        return Sequence() if element.VR == "SQ" else _DUMMY[element.VR]

    def _renamed(self, element: DataElement) -> object:
        """Replace UIDs, except those that the standard defines; an invalid UID is replaced like any other text."""
        values = [element.value] if isinstance(element.value, str) else list(element.value or ())
        renamed = [
            str(value) if str(value).startswith(_STANDARD_UIDS) else pseudonymous_uid(str(value), self.key)
            for value in values
        ]
        return renamed if len(renamed) != 1 else renamed[0]

    def _other_time(self, value: str) -> str:
        """Return a time of day that the key derives from the patient and the time."""
        if self.again:
            return value
        identity = f"time {value} of {self.patient_id}".encode("utf-8", "surrogatepass")
        seconds = int.from_bytes(hmac.digest(self.key, identity, hashlib.sha256)[:8], "big") % 86_400
        return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"

    def _shifted(self, element: DataElement) -> object:
        """Shift dates; the time of day is kept. A value that is no date is removed (ValueError)."""
        values = [str(value) for value in (element.value if element.VM > 1 else [element.value])]
        if element.VR == "TM":
            if all(re.fullmatch(r"\d{2,6}(?:\.\d{1,6})?", value) for value in values):
                return element.value
            msg = "not a time"
            raise ValueError(msg)
        assert self.shift is not None
        moved = [f"{datetime.strptime(value[:8], '%Y%m%d') + self.shift:%Y%m%d}{value[8:]}" for value in values]
        if not all(re.fullmatch(r"\d{8}(?:\d{2,6}(?:\.\d{1,6})?)?(?:[+-]\d{4})?", value) for value in moved):
            msg = "not a date"
            raise ValueError(msg)
        return moved if len(moved) > 1 else moved[0]


def _vr(dataset: Dataset, tag: int) -> str:
    """Return the VR of an element in the dictionary, as reading takes it; that of the file if there is none."""
    known = dictionary_VR(tag) if dictionary_has_tag(tag) else str(dataset.get_item(tag).VR or "UN")
    return known.split(" or ")[0]


def _check_number(dataset: Dataset, tag: int, vr: str) -> None:
    """Remove a number that is not written with digits, or has a wrong length: it may be any text."""
    value = dataset.get_item(tag).value
    if not isinstance(value, bytes):
        return
    if (vr in ("DS", "IS") and not _NUMERIC.fullmatch(value)) or len(value) % _SIZES.get(vr, 1):
        del dataset[tag]


def _needs_dummy(element: DataElement, action: Action) -> bool:
    """Whether the table asks for a value; a text that it does not list may stay empty."""
    return action is Action.DUMMY and table_action(int(element.tag)) is Action.DUMMY


def _age(element: DataElement) -> str | None:
    """Return an age as the standard writes it (PS3.5 section 6.2), 90 years at most."""
    found = _AGE.fullmatch(str(element.value).strip().upper())
    if found is None:
        return None
    number = int(found[1])
    return f"{min(number, _OLDEST_YEARS) if found[2] == 'Y' else number:03d}{found[2]}"


def _described(element: DataElement) -> str | None:
    values = element.value if element.VM > 1 else [element.value]
    return cleaned_description(" ".join(str(value) for value in values), tag=int(element.tag)) or None


def _clean_code(item: Dataset) -> None:
    """Replace a code and its meaning unless its scheme is published."""
    if CODING_SCHEME not in item or _text(item, "CodingSchemeDesignator") in STANDARD_SCHEMES:
        return
    for tag in (*CODE_VALUES, CODE_MEANING):
        if tag in item:
            item[tag].value = _DUMMY[item[tag].VR]
    item.CodingSchemeDesignator = "99REMOVED"
