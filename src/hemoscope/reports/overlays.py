"""Pictures of key slices: the slice through three windows, and where the model looked, with scale and caution.

Images are (rows, columns) as stored in DICOM: the first row is the top. Left and right are marked only where the
orientation is known, and a length in mm is drawn only where the pixel spacing is measured, not assumed.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hemoscope.inference.heat_maps import HeatMap, heat_on_slice
from hemoscope.inference.windows import BONE, BRAIN, SUBDURAL
from hemoscope.labels import Hemorrhage
from hemoscope.messages.catalogue import Catalogue, english
from hemoscope.reports.colours import heat_opacity, heat_over
from hemoscope.reports.report import shown_probability
from hemoscope.reports.typeface import PLAIN, font_file
from hemoscope.version import DISCLAIMER

_PANEL = 400
_GAP = 6
_TOP = 74
_BOTTOM = 40
_LEGEND = 112
PAPER = (16, 18, 22)
INK = (236, 238, 240)
FAINT_INK = (160, 166, 174)
_SEEN = 0.1  # the least share of heat in the mixture that stands out from the noise of a slice
_SCALE_MM = 50.0
_WINDOWS = (("brain", BRAIN), ("subdural", SUBDURAL), ("bone", BONE))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePicture:
    """What one overlay shows.

    Attributes:
        hounsfield: HU of the slice, shape (rows, columns).
        heat: the label's heat map over the slice.
        probability: the label's calibrated probability on this slice.
        also: further labels that the picture is shown for.
        established: False where the model's validation does not support the label.
        number: number of the slice in its series, from 1; ``count`` slices in all.
        position_mm: along the slice normal, or None where unknown or assumed.
        pixel_spacing_mm: between (rows, columns), or None where unknown or assumed.
        orientation: DICOM (0020,0037), or None where unknown or assumed.

    """

    hounsfield: NDArray[np.int16]
    heat: HeatMap
    label: Hemorrhage
    probability: float
    established: bool
    number: int
    count: int
    position_mm: float | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    orientation: tuple[float, ...] | None = None
    also: tuple[Hemorrhage, ...] = ()

    @property
    def labels(self) -> tuple[Hemorrhage, ...]:
        """Every label that the picture is shown for, that of the heat map first."""
        return (self.label, *self.also)

    @property
    def shows_heat(self) -> bool:
        """Whether anything of the heat map is seen: nobody sees a colour that covers less of the slice."""
        return bool((heat_opacity(heat_on_slice(self.heat, self.hounsfield.shape)) >= _SEEN).any())


def draw_overlay(picture: SlicePicture, catalogue: Catalogue | None = None) -> Image.Image:
    """Draw brain, subdural and bone window, then the heat map over the brain window with its colour scale.

    ``catalogue`` has the texts; without one, that which ships.
    """
    texts = catalogue or english()
    own = texts.fallback is not None
    width = 4 * _PANEL + 5 * _GAP + _LEGEND
    sheet = Image.new("RGB", (width, _TOP + _PANEL + _BOTTOM), PAPER)
    draw = ImageDraw.Draw(sheet)
    hounsfield = picture.hounsfield.astype(np.float32)
    for place, (name, window) in enumerate(_WINDOWS):
        grey = np.round(window.apply(hounsfield) * 255.0).astype(np.uint8)
        _panel(sheet, place, grey, picture)
        low, high = window.bounds
        bounds = {"low": f"{low:.0f}", "high": f"{high:.0f}"}
        _name_panel(draw, place, texts.text("picture.window", name=texts.text(f"window.{name}"), **bounds), own=own)
    painted = heat_over(BRAIN.apply(hounsfield), heat_on_slice(picture.heat, picture.hounsfield.shape))
    _panel(sheet, 3, painted, picture)
    _name_panel(draw, 3, texts.text("picture.looked"), own=own)
    _legend(sheet, draw, texts)
    _words(draw, picture, sheet.size, texts)
    return sheet


def side_letters(orientation: tuple[float, ...] | None) -> tuple[str, str] | None:
    """Return the letters for the left and right edge of the picture; None where they are unknown or not L and R.

    DICOM's x axis points to the patient's left, PS3.3 C.7.6.2.1.1. Oblique by more than about 45 degrees is None.

    Examples:
        >>> side_letters((1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
        ('R', 'L')

    """
    if orientation is None or abs(orientation[0]) < 0.7:
        return None
    return ("R", "L") if orientation[0] > 0 else ("L", "R")


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the typeface of pictures in English, in a size in pixels."""
    return _font(size)


def panel(colours: NDArray[np.uint8], picture: SlicePicture, side: int) -> Image.Image:
    """Return pixels of a slice, gray or color, in the middle of a black square, with left and right marked.

    Pixels that are not square keep their true shape.

    Args:
        colours: shape (rows, columns) or (rows, columns, 3).
        picture: what they show.
        side: of the square, in pixels of the picture.
    """
    row_scale, column_scale = _scales(picture, side)
    rows, columns = picture.hounsfield.shape
    size = (max(round(columns * column_scale), 1), max(round(rows * row_scale), 1))
    image = Image.fromarray(colours).resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    letters = side_letters(picture.orientation)
    if letters is not None:
        _mark_sides(ImageDraw.Draw(square), letters, side)
    return square


def _mark_sides(draw: ImageDraw.ImageDraw, letters: tuple[str, str], side: int) -> None:
    for letter, x, anchor in ((letters[0], 8, "lm"), (letters[1], side - 8, "rm")):
        place = (x, side // 2)
        draw.text(place, letter, font=_font(20), fill=INK, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _scales(picture: SlicePicture, side: int) -> tuple[float, float]:
    """Return screen pixels for one (row, column) of the slice."""
    rows, columns = picture.hounsfield.shape
    high, wide = picture.pixel_spacing_mm or (1.0, 1.0)
    scale = side / max(rows * high, columns * wide)
    return scale * high, scale * wide


def _panel_left(place: int) -> int:
    return _GAP + place * (_PANEL + _GAP)


def _panel(sheet: Image.Image, place: int, colours: NDArray[np.uint8], picture: SlicePicture) -> None:
    sheet.paste(panel(colours, picture, _PANEL), (_panel_left(place), _TOP))
    if place == 0 and picture.pixel_spacing_mm is not None:
        _length(ImageDraw.Draw(sheet), _scales(picture, _PANEL)[1] / picture.pixel_spacing_mm[1])


def _length(draw: ImageDraw.ImageDraw, pixels_a_mm: float) -> None:
    left, bottom, length = _panel_left(0) + 10, _TOP + _PANEL - 10, round(_SCALE_MM * pixels_a_mm)
    draw.line((left, bottom, left + length, bottom), fill=INK, width=2)
    for end in (left, left + length):
        draw.line((end, bottom - 5, end, bottom), fill=INK, width=2)
    draw.text((left, bottom - 8), f"{_SCALE_MM:.0f} mm", font=_font(18), fill=INK, anchor="lb")


def _name_panel(draw: ImageDraw.ImageDraw, place: int, name: str, *, own: bool) -> None:
    draw.text(
        (_panel_left(place) + 2, _TOP - 10),
        name,
        font=_fitted(draw, name, 20, _PANEL, own=own),
        fill=FAINT_INK,
        anchor="ls",
    )


def _legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, texts: Catalogue) -> None:
    """Draw the colours as they look over mid-grey brain, so that they match the picture beside them."""
    left, wide, margin = _panel_left(4) + 6, 20, 14
    high = _PANEL - 2 * margin
    values = np.repeat(np.linspace(1.0, 0.0, high, dtype=np.float32)[:, np.newaxis], wide, axis=1)
    sheet.paste(Image.fromarray(heat_over(np.full_like(values, 0.4), values)), (left, _TOP + margin))
    draw.rectangle((left - 1, _TOP + margin - 1, left + wide, _TOP + margin + high), outline=FAINT_INK)
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + margin + round((1.0 - value) * (high - 1))
        draw.line((left + wide, y, left + wide + 5, y), fill=FAINT_INK)
        draw.text((left + wide + 9, y), f"{value:.2f}", font=_font(19), fill=INK, anchor="lm")
    name, own = texts.text("picture.local"), texts.fallback is not None
    size = _fitted(draw, name, 20, _LEGEND, own=own)
    draw.text((left - 4, _TOP - 10), name, font=size, fill=FAINT_INK, anchor="ls")


def _words(draw: ImageDraw.ImageDraw, picture: SlicePicture, size: tuple[int, int], texts: Catalogue) -> None:
    width, height = size
    shown = {
        "label": texts.text(f"label.{picture.label.value}"),
        "probability": shown_probability(picture.probability),
    }
    title = texts.text("picture.title" if picture.established else "picture.title-not-established", **shown)
    where = {"number": picture.number, "total": picture.count}
    place = texts.text("viewer.slice-of", **where)
    if picture.position_mm is not None:
        place = texts.text("picture.place-mm", **where, mm=f"{picture.position_mm:.1f}")
    foot = texts.text("picture.foot", disclaimer=texts.instead("report.disclaimer", DISCLAIMER))
    own, half = texts.fallback is not None, width // 2
    draw.text((_GAP + 2, 12), title, font=_fitted(draw, title, 24, half + 200, own=own), fill=INK)
    draw.text((width - _GAP - 2, 14), place, font=_fitted(draw, place, 20, half - 220, own=own), fill=INK, anchor="ra")
    draw.text(
        (_GAP + 2, height - _BOTTOM // 2), foot, font=_fitted(draw, foot, 20, width, own=own), fill=INK, anchor="lm"
    )


def _fitted(
    draw: ImageDraw.ImageDraw, text: str, size: int, most: int, *, own: bool
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface in a size, or in the largest below it in which a text is at most so wide."""
    wide = draw.textlength(text, font=_font(size, own=own))
    return _font(size if wide <= most else max(int(size * most / wide), 8), own=own)


@cache
def _font(size: int, *, own: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface has English letters alone; texts of a site's own catalogue are set in DejaVu Sans."""
    return ImageFont.truetype(font_file(PLAIN), size=round(size * 0.9)) if own else ImageFont.load_default(size=size)
