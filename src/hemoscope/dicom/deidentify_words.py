"""De-identified descriptors: technical words that are read as the original text was.

The words that are kept are those of ``deidentify_rules``. Where reading understands more of a text than they hold, such
as another script or an inflected word, words of this module say what was understood.
"""

from hemoscope.dicom import tags
from hemoscope.dicom.contrast import ContrastEvidence, stated_contrast, states_contrast
from hemoscope.dicom.deidentify_rules import technical_words
from hemoscope.dicom.image_kind import ImageEvidence, ImageKind, image_kind
from hemoscope.dicom.quality import is_sharp_kernel, names_other_anatomy

__all__ = ["cleaned_description"]

_KINDS = {
    ImageKind.VIRTUAL: "VIRTUAL MONO",
    ImageKind.PROJECTION: "MIP",
    ImageKind.PARAMETER_MAP: "PARAMETER MAP",
    ImageKind.LOCALIZER: "SCOUT",
    ImageKind.SHEET: "TEXT PAGE",
}
_CONTRAST = {True: "WITH CONTRAST", False: "WITHOUT CONTRAST", None: ""}
_TYPES = ((), ("DERIVED", "SECONDARY"), ("ORIGINAL", "PRIMARY"))


def cleaned_description(text: str, *, tag: int) -> str:
    """Return a descriptor without words that can identify, which is read as ``text`` is.

    Examples:
        >>> cleaned_description("HEAD_Mueller 5.0mm W/O CONTRAST", tag=tags.SERIES_DESCRIPTION)
        'HEAD 5.0mm W/O CONTRAST'
        >>> cleaned_description("Schädel von Müller, o. KM", tag=tags.SERIES_DESCRIPTION)
        'WITHOUT CONTRAST'
    """
    words = technical_words(text)
    if tag == tags.CONTRAST_AGENT:
        given = _is_given(text)
        return words if words and _is_given(words) == given else "CONTRAST AGENT" if given else "NONE"
    read = _reading(text)
    if _reading(words) == read:
        return words
    *kinds, contrast, other, sharp = read
    # An acquired image is a projection only if its description begins with the word for it.
    parts = ["SERIES"] if kinds[1] is not kinds[2] else []
    parts += [_KINDS.get(kinds[1], ""), _CONTRAST[contrast], "BONE" if sharp else ""]
    parts.append(" ".join(word for word in words.split() if names_other_anatomy(word)) if other else "")
    return " ".join(part for part in parts if part)


def _is_given(agent: str) -> bool:
    return stated_contrast(ContrastEvidence(agent=agent)) is not None


def _reading(text: str) -> tuple[ImageKind, ImageKind, ImageKind, bool | None, bool, bool]:
    """Return the kind of an image without Image Type, a derived and an acquired one; contrast, other part, kernel."""
    unknown, derived, original = (image_kind(ImageEvidence(image_type=one, description=text)) for one in _TYPES)
    return unknown, derived, original, states_contrast(text), names_other_anatomy(text), is_sharp_kernel(None, text)
