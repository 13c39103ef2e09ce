"""A study's report as PDF on A4, by ReportLab: no system library, no font to install."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle
from reportlab.platypus.flowables import Flowable

from hemoscope.inference.findings import Triage
from hemoscope.messages.catalogue import Catalogue
from hemoscope.reports.study_report_content import LabelLine, StudyDocument
from hemoscope.reports.typeface import DEJAVU, HELVETICA, Typeface, in_dejavu, register_dejavu, western
from hemoscope.version import __version__

# Pictures as bytes instead of ASCII85: writing that takes ReportLab, in plain Python, .3 s a picture.
rl_config.useA85 = 0
_MARGIN = 18 * mm
_FRAME_PADDING = 6  # of ReportLab's own frame, on each side
_WIDTH = A4[0] - 2 * _MARGIN
_GREY = colors.HexColor("#555555")
_COLUMNS = ("label", "probability", "threshold", "finding", "key-slices")
_TEXTS = (
    "report.title",
    "report.foot",
    "report.page",
    "report.readers-said",
    "report.readers-measured",
    "report.to-know",
    "report.thresholds",
    "report.key-slices",
    *(f"report.column-{name}" for name in _COLUMNS),
)
_COLOUR = {
    Triage.IMMEDIATE.value: "#b00020",
    Triage.PROMPT.value: "#8a5000",
    Triage.UNSURE.value: "#1d4f91",
    "incomplete": "#8a5000",
    Triage.ROUTINE.value: "#2e5e3e",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Styles:
    """How paragraphs look in one typeface."""

    typeface: Typeface
    body: ParagraphStyle
    small: ParagraphStyle
    title: ParagraphStyle
    section: ParagraphStyle
    headline: ParagraphStyle
    caution: ParagraphStyle


@cache
def _styles(typeface: Typeface) -> _Styles:
    body = ParagraphStyle("body", fontName=typeface.plain, fontSize=9.5, leading=13)
    return _Styles(
        typeface=typeface,
        body=body,
        small=ParagraphStyle("small", parent=body, fontSize=8, leading=10.5, textColor=_GREY),
        title=ParagraphStyle("title", parent=body, fontName=typeface.bold, fontSize=15, leading=19),
        section=ParagraphStyle(
            "section", parent=body, fontName=typeface.bold, fontSize=11, leading=15, spaceBefore=9, keepWithNext=1
        ),
        headline=ParagraphStyle("headline", parent=body, fontSize=11.5, leading=15),
        caution=ParagraphStyle(
            "caution", parent=body, fontName=typeface.bold, backColor=colors.HexColor("#fff4e5"), borderPadding=5
        ),
    )


def findings_pdf(study: StudyDocument) -> bytes:
    """The whole file; the disclaimer stands at the top and at the foot of every page.

    It is set in PDF's own Helvetica, in DejaVu Sans if a text has other than western letters. Letters that this lacks
    too are shown as ``?``, and that is said.
    """
    study, typeface = _in_known_letters(study)
    styles = _styles(typeface)
    stream = io.BytesIO()
    template = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=_MARGIN - _FRAME_PADDING,
        rightMargin=_MARGIN - _FRAME_PADDING,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=study.catalogue.text("report.title"),
        author="Hemoscope",
        invariant=1,  # no time stamp: the same study gives the same bytes
    )
    foot = partial(_foot, texts=study.catalogue, disclaimer=study.disclaimer, font=typeface.plain)
    template.build(_story(study, styles), onFirstPage=foot, onLaterPages=foot)
    return stream.getvalue()


def _in_known_letters(study: StudyDocument) -> tuple[StudyDocument, Typeface]:
    """The study in letters that a typeface has, and that typeface."""
    own = study.catalogue.fallback is not None  # any text of it may stand in the report
    if not own and _spelled(study, western) == study:
        return study, HELVETICA
    register_dejavu()
    spelled = _spelled(study, in_dejavu)
    if spelled != study:
        lost = in_dejavu(study.catalogue.text("report.letters-lost"))
        spelled = replace(spelled, remarks=(*spelled.remarks, lost))
    return spelled, DEJAVU


def _spelled(study: StudyDocument, spell: Callable[[str], str]) -> StudyDocument:
    """The study with every text that may hold any letter spelled anew."""

    def each(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(spell(text) for text in texts)

    return replace(
        study,
        catalogue=_spelled_catalogue(study.catalogue, spell),
        facts=tuple((spell(name), spell(value)) for name, value in study.facts),
        labels=tuple(
            replace(line, name=spell(line.name), verdict=spell(line.verdict), key_slices=spell(line.key_slices))
            for line in study.labels
        ),
        pictures=tuple((spell(caption), png) for caption, png in study.pictures),
        disclaimer=spell(study.disclaimer),
        headline=spell(study.headline),
        unread=spell(study.unread),
        remarks=each(study.remarks),
        thresholds=each(study.thresholds),
        reader=each(study.reader),
        measurements=each(study.measurements),
    )


def _spelled_catalogue(catalogue: Catalogue, spell: Callable[[str], str]) -> Catalogue:
    """The catalogue with the texts that this module takes from it spelled anew; the same one if none changes."""
    texts = {key: spell(text) for key in _TEXTS if isinstance(text := catalogue.texts.get(key), str)}
    if all(catalogue.texts[key] == text for key, text in texts.items()):
        return catalogue
    return replace(catalogue, texts={**catalogue.texts, **texts})


def _story(study: StudyDocument, styles: _Styles) -> list[Flowable]:
    t = study.catalogue.text
    headline = f'<font color="{_COLOUR[study.tone]}"><b>{escape(study.headline)}</b></font>'
    story: list[Flowable] = [
        Paragraph(escape(t("report.title")), styles.title),
        Spacer(0, 3 * mm),
        Paragraph(escape(study.disclaimer), styles.caution),
        Spacer(0, 4 * mm),
        Paragraph(headline, styles.headline),
        *(
            [Paragraph(f'<font color="{_COLOUR["incomplete"]}"><b>{escape(study.unread)}</b></font>', styles.body)]
            if study.unread
            else []
        ),
        Spacer(0, 2 * mm),
        *(Paragraph(f"{escape(name)}: {escape(value)}", styles.small) for name, value in study.facts),
        Spacer(0, 4 * mm),
        _labels(study.labels, study.catalogue, styles),
    ]
    sections = (
        ("report.readers-said", study.reader),
        ("report.readers-measured", study.measurements),
        ("report.to-know", study.remarks),
        ("report.thresholds", study.thresholds),
    )
    for key, texts in sections:
        if texts:
            story.append(Paragraph(escape(t(key)), styles.section))
            story += [Paragraph(f"• {escape(text)}", styles.body) for text in texts]
    # The heading goes with the first picture: alone at the foot of a page it announces nothing.
    heading = [Paragraph(escape(t("report.key-slices")), styles.section)]
    for place, (caption, png) in enumerate(study.pictures):
        figure = _figure(caption, png, styles.small)
        story.append(KeepTogether([*(heading if place == 0 else []), *figure]))
    return story


def _labels(lines: tuple[LabelLine, ...], texts: Catalogue, styles: _Styles) -> Table:
    plain, bold, slanted = styles.typeface
    head = tuple(texts.text(f"report.column-{name}") for name in _COLUMNS)
    rows = [(line.name, line.probability, line.threshold, line.verdict, line.key_slices) for line in lines]
    table = Table([head, *rows], colWidths=[width * _WIDTH for width in (0.24, 0.14, 0.13, 0.35, 0.14)])
    style = [
        ("FONT", (0, 0), (-1, -1), plain, 9),
        ("FONT", (0, 0), (-1, 0), bold, 9),
        ("ALIGN", (1, 0), (2, -1), "RIGHT"),
        ("LINEBELOW", (0, 0), (-1, 0), 1, colors.black),
        ("LINEBELOW", (0, 1), (-1, -1), 0.25, colors.lightgrey),
    ]
    for row, line in enumerate(lines, 1):
        if not line.established:
            style += [("TEXTCOLOR", (0, row), (-1, row), _GREY), ("FONT", (0, row), (-1, row), slanted, 9)]
        elif line.present:
            style.append(("FONT", (0, row), (-1, row), bold, 9))
    table.setStyle(TableStyle(style))
    return table


def _figure(caption: str, png: bytes, style: ParagraphStyle) -> list[Flowable]:
    image = Image(io.BytesIO(png))
    image.drawHeight *= _WIDTH / image.drawWidth
    image.drawWidth = _WIDTH
    return [image, Spacer(0, 1 * mm), Paragraph(escape(caption), style), Spacer(0, 3 * mm)]


def _foot(canvas: Canvas, _: SimpleDocTemplate, *, texts: Catalogue, disclaimer: str, font: str) -> None:
    canvas.saveState()
    canvas.setFont(font, 7.5)
    canvas.setFillColor(_GREY)
    canvas.drawString(_MARGIN, 9 * mm, texts.text("report.foot", version=__version__, disclaimer=disclaimer))
    canvas.drawRightString(A4[0] - _MARGIN, 9 * mm, texts.text("report.page", number=canvas.getPageNumber()))
    canvas.restoreState()
