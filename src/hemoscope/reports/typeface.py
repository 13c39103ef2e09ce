"""The typefaces of reports: those of PDF and Pillow, which have few letters, and DejaVu Sans for texts that need more.

DejaVu Sans lies in ``fonts`` with its licence: Latin, Greek, Cyrillic and more, but no Chinese, Japanese or Korean.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

PLAIN, BOLD = "DejaVuSans", "DejaVuSans-Bold"
_WESTERN = "cp1252"  # the letters of PDF's own fonts: PDF 32000-1, annex D


class Typeface(NamedTuple):
    """The names of a typeface's fonts in a PDF."""

    plain: str
    bold: str
    slanted: str


HELVETICA = Typeface("Helvetica", "Helvetica-Bold", "Helvetica-Oblique")
DEJAVU = Typeface(PLAIN, BOLD, PLAIN)


def font_file(name: str) -> Path:
    """The file of a font in ``fonts``."""
    return Path(str(resources.files("hemoscope.reports").joinpath("fonts", f"{name}.ttf")))


def is_western(text: str) -> bool:
    """Whether PDF's own fonts have every letter of a text."""
    return western(text) == text


def western(text: str) -> str:
    """The text with ``?`` for letters that PDF's own fonts lack."""
    return text.encode(_WESTERN, "replace").decode(_WESTERN)


def in_dejavu(text: str) -> str:
    """The text with ``?`` for letters that DejaVu Sans lacks."""
    letters = _letters()
    return "".join(one if ord(one) in letters or one.isspace() else "?" for one in text)


def register_dejavu() -> None:
    """Make DejaVu Sans known to ReportLab; it is part of a PDF with the letters that are used alone."""
    from reportlab.pdfbase import pdfmetrics

    _letters()
    pdfmetrics.registerFontFamily(PLAIN, normal=PLAIN, bold=BOLD, italic=PLAIN, boldItalic=BOLD)


@cache
def _letters() -> frozenset[int]:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    fonts = [TTFont(name, str(font_file(name))) for name in (PLAIN, BOLD)]
    for font in fonts:
        pdfmetrics.registerFont(font)
    return frozenset.intersection(*(frozenset(font.face.charToGlyph) for font in fonts))
