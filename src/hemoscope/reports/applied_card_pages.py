"""The applied model card as Markdown and as one HTML page; see ``applied_card``."""

import base64
import hashlib
from collections.abc import Iterator

from hemoscope.reports.applied_card import AppliedCard, CardField, CardTable
from hemoscope.reports.html_templates import render, template_text
from hemoscope.reports.report import printable

SHAPE = "In the shape of the Applied Model Card of the Coalition for Health AI (CHAI), version 0.2."
_PACKAGE = "hemoscope.reports"
# Characters that mean something in Markdown, in a text that is not ours; a code span keeps its backquotes.
_SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\*_[]<>|#"})


def card_markdown(card: AppliedCard) -> str:
    """Return the card as Markdown (CommonMark with tables)."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: AppliedCard) -> Iterator[str]:
    yield f"# {_text(card.title)}\n\n**{_text(card.disclaimer)}**\n\n{SHAPE}\n\nBundle SHA-256 `{card.sha256}`"
    for section in card.sections:
        yield f"\n## {_text(section.name)}"
        for field in section.fields:
            yield f"\n### {_text(field.name)}\n"
            yield "\n\n".join(_blocks(field))


def _blocks(field: CardField) -> Iterator[str]:
    if field.missing is not None:
        yield f"*Not stated: {_text(field.missing)}.*"
    yield from map(_text, field.paragraphs)
    if field.items:
        yield "\n".join(f"- {_text(item)}" for item in field.items)
    for table in field.tables:
        yield f"{_text(table.caption)}:\n\n{_table(table)}"


def _table(table: CardTable) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    return "\n".join(
        f"| {' | '.join(cell if cell == '---' else _text(cell, in_table=True) for cell in line)} |" for line in lines
    )


def _text(text: str, *, in_table: bool = False) -> str:
    """Return a text in one line, in which nothing is markup except code spans.

    Backquotes are code spans only if each stands alone and has a partner: runs of several pair by their length.
    """
    line = " ".join(printable(text).split())
    parts = line.split("`")
    if len(parts) % 2 == 0 or "``" in line:
        return line.translate(_SPECIAL | {ord("`"): "\\`"})
    # In a table a pipe divides cells even in a code span. There a backslash before it is not shown, elsewhere it is.
    pipe = "\\|" if in_table else "|"
    return "`".join(
        part.replace("|", pipe) if place % 2 else part.translate(_SPECIAL) for place, part in enumerate(parts)
    )


def card_html(card: AppliedCard) -> str:
    """Return the card as one self-contained page without scripts."""
    return render(_PACKAGE, "card.html", card=card, shape=SHAPE, style=template_text(_PACKAGE, "card.css"))


def style_sha256() -> str:
    """Return the page's style as a source of a content security policy."""
    digest = hashlib.sha256(template_text(_PACKAGE, "card.css").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
