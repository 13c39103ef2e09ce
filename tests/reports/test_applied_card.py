"""The card in the shape of CHAI's applied model card: every field is filled from the card or says why it is not."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.card import ModelCard
from hemoscope.inference.card_statements import STATEMENTS, CardError, Statements
from hemoscope.reports.applied_card import AppliedCard, CardField, applied_card
from hemoscope.reports.applied_card_pages import card_html, card_markdown, style_sha256

METRIC = (
    "Goal of metrics",
    "Results",
    "Interpretation",
    "Test type",
    "Testing data description",
    "Validation process and justification",
)
# Sections and fields of schema 0.2, in its order.
SHAPE = {
    "Release information": (
        "Model name",
        "Model developer",
        "Developer contact",
        "Release stage",
        "Release date",
        "Release version",
        "Availability",
        "Compatibility with health records",
        "Regulatory approval",
    ),
    "Model summary": ("Summary", "Keywords"),
    "Uses and directions": (
        "Intended use and workflow",
        "Primary intended users",
        "How to use",
        "Targeted patient population",
        "Cautioned out-of-scope settings and use cases",
    ),
    "Warnings": ("Known risks and limitations", "Known biases or ethical considerations", "Clinical risk level"),
    "Trust ingredients: AI system facts": (
        "Outcomes and outputs",
        "Model type",
        "Foundation models",
        "Input data source",
        "Output and input data types",
        "Development data characterization",
        "Bias mitigation approaches",
        "Ongoing maintenance",
        "Security and compliance environment",
        "Transparency, intelligibility and accountability",
    ),
    "Trust ingredients: transparency information": (
        "Funding source of the technical implementation",
        "Third-party information",
        "Stakeholders consulted during design",
    ),
    "Key metrics: usefulness, usability and efficacy": METRIC,
    "Key metrics: fairness and equity": METRIC,
    "Key metrics: safety and reliability": METRIC,
    "Resources": (
        "Evaluation references",
        "Clinical trial",
        "Peer-reviewed publications",
        "Reimbursement status",
        "Patient consent or disclosure",
    ),
}


@pytest.fixture(scope="module")
def shipped() -> ModelCard:
    return load_bundle(None).card


def fields_of(card: AppliedCard) -> dict[str, CardField]:
    return {f"{section.name}/{field.name}": field for section in card.sections for field in section.fields}


def rows_of(field: CardField) -> list[str]:
    return [" | ".join(row) for table in field.tables for row in table.rows]


@pytest.mark.parametrize("bare", [False, True])
def test_every_field_is_there_and_filled_or_says_why_not(shipped: ModelCard, bare: bool) -> None:
    """Also of a card without anything that may be missing, as an earlier version wrote it."""
    removed = dict.fromkeys(("statements", "errors", "strata", "unsure", "slice_rule"), None)
    empty = {"scores": (), "training_data": (), "limits_of_use": (), "description": ""}
    card = replace(shipped, **empty, **removed) if bare else shipped
    composed = applied_card(card, "ab" * 32)
    assert {one.name: tuple(field.name for field in one.fields) for one in composed.sections} == SHAPE
    for name, field in fields_of(composed).items():
        assert bool(field.missing) != bool(field.paragraphs or field.items or field.tables), name


def test_the_shipped_card_states_all_but_what_nobody_can_say(shipped: ModelCard) -> None:
    missing = {name.partition("/")[2] for name, one in fields_of(applied_card(shipped, "")).items() if one.missing}
    assert missing == {
        "Developer contact",
        "Funding source of the technical implementation",
        "Stakeholders consulted during design",
        "Reimbursement status",
        "Patient consent or disclosure",
    }


def test_every_statement_is_shown(shipped: ModelCard) -> None:
    texts = {name: f"the words about {name}" for name in STATEMENTS}
    page = card_markdown(applied_card(replace(shipped, statements=Statements(**texts)), "")).replace("\\", "")
    assert [name for name, text in texts.items() if text not in page] == []


def test_strata_gallery_intervals_and_abstention_are_in_it(shipped: ModelCard) -> None:
    fields = fields_of(applied_card(shipped, ""))
    assert shipped.strata
    assert shipped.errors
    assert shipped.unsure
    fairness = rows_of(fields["Key metrics: fairness and equity/Results"])
    assert len(fairness) == len(shipped.strata[0].strata)
    assert any(
        re.fullmatch(r"outline: under 300 px \| 0\.\d\d \(0\.\d\d to \d\.\d\d\), \d+ of 20 \| -", row)
        for row in fairness
    )
    safety = fields["Key metrics: safety and reliability/Results"]
    gallery = next(table for table in safety.tables if table.caption.startswith("Error gallery"))
    assert len(gallery.rows) == len(shipped.errors)
    assert {row[0] for row in gallery.rows} == {
        "slice, missed",
        "slice, false alarm",
        "study, missed",
        "study, false alarm",
    }
    assert any("conformal, alpha 0.1" in text and "19 of 82" in text for text in safety.paragraphs)
    found = shipped.scores[0].labels["any"].auroc
    assert found
    ranking = rows_of(fields["Key metrics: usefulness, usability and efficacy/Results"])
    assert f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" in ranking[0]


def test_the_interpretation_counts_misses_and_false_alarms(shipped: ModelCard) -> None:
    found = fields_of(applied_card(shipped, ""))["Key metrics: safety and reliability/Interpretation"]
    assert "Missed: 4 of 36 studies with hemorrhage. Flagged: 13 of 46 without." in found.paragraphs


def test_a_reason_is_shown_and_only_for_what_is_missing(shipped: ModelCard) -> None:
    words = Statements(funding="a grant", not_stated={"contact": "it is secret"})
    fields = fields_of(applied_card(replace(shipped, statements=words), ""))
    assert fields["Release information/Developer contact"].missing == "it is secret"
    assert fields[
        "Trust ingredients: transparency information/Funding source of the technical implementation"
    ].paragraphs
    for name in ("funding", "found"):
        with pytest.raises(ValueError, match=f"a reason for {name}"):
            Statements(funding="a grant", not_stated={name: "why"})


class Page(HTMLParser):
    """Collects tags and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"} or name.startswith("on")]


HOSTILE = "<script>alert(1)</script> | [a](http://b.example) *c* `d"


def test_texts_of_a_foreign_card_are_no_markup(shipped: ModelCard) -> None:
    error = CardError(level="slice", kind="missed", case=HOSTILE, probability=0.1, types=(), strata=(HOSTILE,))
    card = replace(
        shipped, name=HOSTILE, limits_of_use=(HOSTILE,), errors=(error,), statements=Statements(funding=HOSTILE)
    )
    composed = applied_card(card, "")
    page = Page()
    page.feed(card_html(composed))
    assert "script" not in page.tags
    assert page.addresses == []
    markdown = card_markdown(composed)
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[a|(?<!\\)\*c|(?<!\\)`d", markdown)
    table = [line for line in markdown.splitlines() if line.startswith("| slice, missed")]
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 6  # five cells


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("``` <b> ` x", "``` <b> ` x"),
        ("`` ` <b> ``` y", "`` ` <b> ``` y"),
        ("\\`<b>\\` `c`", "\\<b>\\ c"),
        ("`a|b` | c", "a|b | c"),
        ("`a` <b> ` c", "`a` <b> ` c"),
    ],
)
def test_backquotes_of_a_foreign_card_let_no_markup_through(shipped: ModelCard, text: str, shown: str) -> None:
    error = CardError(level="slice", kind="missed", case=text, probability=0.1, types=(), strata=())
    markdown = card_markdown(applied_card(replace(shipped, limits_of_use=(text,), errors=(error,)), ""))
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    inline = ["".join(part.content for part in one.children or ()) for one in tokens if one.type == "inline"]
    assert inline.count(shown) == 2, "a list's item and a table's cell"
    assert not [part for one in tokens for part in one.children or () if part.type == "html_inline"]


def test_the_page_allows_its_own_style_alone(shipped: ModelCard) -> None:
    style = re.search(r"<style>(.*?)</style>", card_html(applied_card(shipped, "")), re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert style_sha256() == f"'sha256-{digest}'"
