"""Pages of pictures for viewers that show no structured report: a summary, then each key slice beside its heat map.

Every page has one size and the sentence that this is research. No page holds identity: the object's elements do.
"""

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemoscope.inference.card import ModelCard
from hemoscope.inference.findings import Finding, StudyFindings
from hemoscope.inference.heat_maps import heat_on_slice
from hemoscope.inference.study_reading import StudyReading
from hemoscope.inference.windows import BRAIN
from hemoscope.labels import Hemorrhage
from hemoscope.messages.catalogue import english
from hemoscope.reports.colours import heat_over
from hemoscope.reports.overlays import FAINT_INK, INK, PAPER, SlicePicture, font, panel
from hemoscope.reports.picture_choice import picture_of
from hemoscope.reports.report import ModelIdentity, shown_probability, unread_words
from hemoscope.reports.study_report_content import INCOMPLETE, headline_key
from hemoscope.version import DISCLAIMER

PAGE = (1024, 640)  # columns, rows
_SIDE = 502
_MARGIN = 10
_TOP = 62
_WARNING = (255, 196, 92)
_BANNER = "RESEARCH USE ONLY"
_COLUMNS = (0, 330, 520, 690)
_LINE = 34
_WIDEST = 110  # characters of a remark's line
_LINES = 9
_MOST_SLICES = 6  # a page holds 2 MB, and a study that is only suspected should not fill an archive


def pages(
    reading: StudyReading, card: ModelCard, model: ModelIdentity, *, note: str = ""
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pages of a study, each uint8 (rows, columns, 3): the summary, then the key slices from feet to head.

    ``note`` stands above the table of the summary.

    Raises:
        ValueError: the study was read without its heat maps.
    """
    chosen = _shown(reading.findings)
    yield _array(_summary(reading.findings, model, len(chosen), note))
    for index, label in chosen:
        yield _array(_key_slice(picture_of(reading, card, reading.findings.slices[index].ref, label)))


def _shown(findings: StudyFindings) -> tuple[tuple[int, Hemorrhage], ...]:
    """Return the key slices to show, each once, with its label: an established one, a type rather than ``any``."""
    chosen: dict[int, tuple[tuple[bool, bool, float], Hemorrhage]] = {}
    for finding in findings.findings:
        for ref in finding.slices:
            chance = findings.slices[ref.index].probabilities[finding.label]
            weight = (finding.established, finding.label is not Hemorrhage.ANY, chance)
            if ref.index not in chosen or weight > chosen[ref.index][0]:
                chosen[ref.index] = (weight, finding.label)
    most = sorted(chosen.items(), key=lambda one: one[1][0], reverse=True)[:_MOST_SLICES]
    return tuple((index, label) for index, (_, label) in sorted(most))


def _sheet() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", PAGE, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((PAGE[0] - _MARGIN, 12), _BANNER, font=font(20), fill=_WARNING, anchor="ra")
    draw.text((_MARGIN, PAGE[1] - 14), f"Hemoscope. {DISCLAIMER}", font=font(16), fill=INK, anchor="lm")
    return sheet, draw


def _key_slice(picture: SlicePicture) -> Image.Image:
    sheet, draw = _sheet()
    hounsfield = picture.hounsfield.astype(np.float32)
    gray = BRAIN.apply(hounsfield)
    heat = heat_over(gray, heat_on_slice(picture.heat, picture.hounsfield.shape))
    sheet.paste(panel(np.round(gray * 255.0).astype(np.uint8), picture, _SIDE), (_MARGIN, _TOP))
    sheet.paste(panel(heat, picture, _SIDE), (PAGE[0] - _MARGIN - _SIDE, _TOP))
    draw.text((_MARGIN, 8), _title(picture), font=font(22), fill=INK)
    place = "" if picture.position_mm is None else f" at {picture.position_mm:.1f} mm"
    low, high = BRAIN.bounds
    draw.text(
        (_MARGIN, 38),
        f"Slice {picture.number} of {picture.count}{place}. Brain window {low:.0f} to {high:.0f} HU",
        font=font(16),
        fill=FAINT_INK,
    )
    draw.text((PAGE[0] - _MARGIN, 38), "Where the model looked", font=font(16), fill=FAINT_INK, anchor="ra")
    return sheet


def _title(picture: SlicePicture) -> str:
    named = f"{picture.label.display}: {shown_probability(picture.probability)} on this slice"
    return named if picture.established else f"{named} (label not established)"


def _summary(findings: StudyFindings, model: ModelIdentity, following: int, note: str) -> Image.Image:
    sheet, draw = _sheet()
    incomplete = findings.urgency == INCOMPLETE
    headline = english().text(headline_key(INCOMPLETE if incomplete else findings.triage.value))  # archives: English
    draw.text((_MARGIN, 10), "Hemoscope: intracranial hemorrhage", font=font(24), fill=INK)
    draw.text((_MARGIN, 52), headline, font=font(20), fill=_WARNING if incomplete else INK)
    draw.text((PAGE[0] - _MARGIN, 54), note, font=font(16), fill=_WARNING, anchor="ra")
    rows = [("Label", "Probability", "Threshold", "Result"), *(_row(finding) for finding in findings.findings)]
    for number, row in enumerate(rows):
        for left, text in zip(_COLUMNS, row, strict=True):
            place = (_MARGIN + left, 100 + number * _LINE)
            draw.text(place, text, font=font(20), fill=FAINT_INK if number == 0 else INK)
    for number, line in enumerate(_remarks(findings, model, following)):
        draw.text((_MARGIN, 360 + number * 26), line, font=font(16), fill=FAINT_INK)
    return sheet


def _row(finding: Finding) -> tuple[str, str, str, str]:
    if finding.established:
        verdict = "Suspected" if finding.present else "Below threshold"
    else:
        verdict = "Not established, suspected" if finding.present else "Not established"
    shown = shown_probability(finding.probability), shown_probability(finding.threshold)
    return finding.label.display, *shown, verdict


def _remarks(findings: StudyFindings, model: ModelIdentity, following: int) -> Sequence[str]:
    """Return the lines below the table, as many as there is room for; none quotes a text of the files."""
    remarks = [
        f"{len(findings.slices)} slices read. Model {model.name} {model.version}, bundle {model.sha256[:12]}.",
        "Below threshold does not rule out hemorrhage. Not established: validation does not support this label.",
    ]
    if following:
        remarks.append(
            "The next page shows a key slice." if following == 1 else f"{following} pages of key slices follow."
        )
    remarks += [f"{unread_words(one.count, one.message)}." for one in findings.unread_reasons]
    remarks += [f"{note.message}." for note in findings.quality]
    ascii_only = (remark.encode("ascii", "replace").decode() for remark in dict.fromkeys(remarks))
    lines = [line for remark in ascii_only for line in textwrap.wrap(remark[:1].upper() + remark[1:], _WIDEST)]
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "More remarks stand in the findings."]


def _array(page: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(page, dtype=np.uint8)
