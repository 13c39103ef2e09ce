"""A study's report as PDF on A4, by ReportLab: no system library, no font to install."""

import io
from dataclasses import replace
from functools import partial
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
from hemoscope.reports.study_report_content import LabelLine, StudyDocument
from hemoscope.version import __version__

# Pictures as bytes instead of ASCII85: writing that takes ReportLab, in plain Python, .3 s a picture.
rl_config.useA85 = 0
_MARGIN = 18 * mm
_FRAME_PADDING = 6  # of ReportLab's own frame, on each side
_WIDTH = A4[0] - 2 * _MARGIN
_GREY = colors.HexColor("#555555")
_BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=9.5, leading=13)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=8, leading=10.5, textColor=_GREY)
_TITLE = ParagraphStyle("title", parent=_BODY, fontName="Helvetica-Bold", fontSize=15, leading=19)
_SECTION = ParagraphStyle(
    "section", parent=_BODY, fontName="Helvetica-Bold", fontSize=11, leading=15, spaceBefore=9, keepWithNext=1
)
_HEADLINE = ParagraphStyle("headline", parent=_BODY, fontSize=11.5, leading=15)
_CAUTION = ParagraphStyle(
    "caution", parent=_BODY, fontName="Helvetica-Bold", backColor=colors.HexColor("#fff4e5"), borderPadding=5
)
_LETTERS_LOST = "Letters that this PDF cannot show stand as ?. The HTML report has them."
_COLOUR = {
    Triage.IMMEDIATE.value: "#b00020",
    Triage.PROMPT.value: "#8a5000",
    Triage.UNSURE.value: "#1d4f91",
    "incomplete": "#8a5000",
    Triage.ROUTINE.value: "#2e5e3e",
}


def findings_pdf(study: StudyDocument) -> bytes:
    """The whole file; the disclaimer stands at the top and at the foot of every page.

    PDF's own fonts have western letters alone (PDF 32000-1, annex D): others are shown as ``?``, and that is said.
    """
    study = _in_western_letters(study)
    stream = io.BytesIO()
    template = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=_MARGIN - _FRAME_PADDING,
        rightMargin=_MARGIN - _FRAME_PADDING,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title="Head CT: suspected hemorrhage",
        author="Hemoscope",
        invariant=1,  # no time stamp: the same study gives the same bytes
    )
    foot = partial(_foot, text=f"Hemoscope {__version__}. {study.disclaimer}")
    template.build(_story(study), onFirstPage=foot, onLaterPages=foot)
    return stream.getvalue()


def _in_western_letters(study: StudyDocument) -> StudyDocument:
    facts = tuple((name, _western(value)) for name, value in study.facts)
    reader = tuple(_western(text) for text in study.reader)
    measurements = tuple(_western(text) for text in study.measurements)
    if (facts, reader, measurements) == (study.facts, study.reader, study.measurements):
        return study
    return replace(
        study, facts=facts, reader=reader, measurements=measurements, remarks=(*study.remarks, _LETTERS_LOST)
    )


def _western(text: str) -> str:
    return text.encode("cp1252", "replace").decode("cp1252")


def _story(study: StudyDocument) -> list[Flowable]:
    headline = f'<font color="{_COLOUR[study.tone]}"><b>{escape(study.headline)}</b></font>'
    story: list[Flowable] = [
        Paragraph("Head CT: suspected hemorrhage", _TITLE),
        Spacer(0, 3 * mm),
        Paragraph(escape(study.disclaimer), _CAUTION),
        Spacer(0, 4 * mm),
        Paragraph(headline, _HEADLINE),
        *(
            [Paragraph(f'<font color="{_COLOUR["incomplete"]}"><b>{escape(study.unread)}</b></font>', _BODY)]
            if study.unread
            else []
        ),
        Spacer(0, 2 * mm),
        *(Paragraph(f"{escape(name)}: {escape(value)}", _SMALL) for name, value in study.facts),
        Spacer(0, 4 * mm),
        _labels(study.labels),
    ]
    sections = (
        ("What readers said", study.reader),
        ("What readers measured", study.measurements),
        ("To know when reading this", study.remarks),
        ("What the thresholds mean", study.thresholds),
    )
    for title, texts in sections:
        if texts:
            story += [Paragraph(title, _SECTION), *(Paragraph(f"• {escape(text)}", _BODY) for text in texts)]
    if study.pictures:
        story.append(Paragraph("Key slices", _SECTION))
    story += [_figure(caption, png) for caption, png in study.pictures]
    return story


def _labels(lines: tuple[LabelLine, ...]) -> Table:
    head = ("Label", "Probability", "Threshold", "Finding", "Key slices")
    rows = [(line.name, line.probability, line.threshold, line.verdict, line.key_slices) for line in lines]
    table = Table([head, *rows], colWidths=[width * _WIDTH for width in (0.24, 0.14, 0.13, 0.35, 0.14)])
    style = [
        ("FONT", (0, 0), (-1, -1), "Helvetica", 9),
        ("FONT", (0, 0), (-1, 0), "Helvetica-Bold", 9),
        ("ALIGN", (1, 0), (2, -1), "RIGHT"),
        ("LINEBELOW", (0, 0), (-1, 0), 1, colors.black),
        ("LINEBELOW", (0, 1), (-1, -1), 0.25, colors.lightgrey),
    ]
    for row, line in enumerate(lines, 1):
        if not line.established:
            style += [("TEXTCOLOR", (0, row), (-1, row), _GREY), ("FONT", (0, row), (-1, row), "Helvetica-Oblique", 9)]
        elif line.present:
            style.append(("FONT", (0, row), (-1, row), "Helvetica-Bold", 9))
    table.setStyle(TableStyle(style))
    return table


def _figure(caption: str, png: bytes) -> KeepTogether:
    image = Image(io.BytesIO(png))
    image.drawHeight *= _WIDTH / image.drawWidth
    image.drawWidth = _WIDTH
    return KeepTogether([image, Spacer(0, 1 * mm), Paragraph(escape(caption), _SMALL), Spacer(0, 3 * mm)])


def _foot(canvas: Canvas, _: SimpleDocTemplate, *, text: str) -> None:
    canvas.saveState()
    canvas.setFont("Helvetica", 7.5)
    canvas.setFillColor(_GREY)
    canvas.drawString(_MARGIN, 9 * mm, text)
    canvas.drawRightString(A4[0] - _MARGIN, 9 * mm, f"Page {canvas.getPageNumber()}")
    canvas.restoreState()
