"""Pages with a site's own catalogue: every text comes from it, and longer ones still fit.

The catalogue marks each text as ``⟦text ööö⟧``, 30% longer. What has no marks about it is data: numbers, dates, names.
"""

import io
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pypdf import PdfReader

from hemoscope.messages.catalogue import read_catalogue
from hemoscope.testing.catalogues import pseudo_catalogue, write_catalogue
from hemoscope.testing.phantom import Phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
WIDTHS = (390, 768, 1440)
# Texts that are seen, in the order of the page, and those of attributes. What is marked as English is the server's.
TEXTS = """() => {
  const isData = (element) => Boolean(element.closest("kbd, .mark, [lang=en]:not(html), .brand, script, style"));
  const isOption = (element) => element.tagName === "OPTION" && element.parentElement.checkVisibility();
  const isShown = (element) => element.checkVisibility() || isOption(element);
  const whole = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (isShown(node.parentElement) && !isData(node.parentElement)) whole.push(node.data);
  }
  const named = ["aria-label", "title", "placeholder", "alt", "aria-valuetext", "label"];
  const attributes = [...document.querySelectorAll("*")].flatMap((element) =>
    isData(element) ? [] : named.map((name) => element.getAttribute(name)).filter(Boolean));
  return { whole: whole.join("\\n"), attributes: [document.title, ...attributes] };
}"""
PRODUCT = "Hemoscope"
SEPARATORS = " \t,.:;()·•\u2013"


def unmarked(text: str, data: frozenset[str]) -> list[str]:
    """The parts of a text outside all marks that hold letters, without what is data."""
    while (less := re.sub(r"⟦[^⟦⟧]*⟧", "\x00", text)) != text:
        text = less
    parts = (part.strip(SEPARATORS) for part in re.split(r"[\x00\n]", re.sub(r"\b[AP]M\b", "", text)))
    return [part for part in parts if re.search(r"[^\W\d_]", part) and part != PRODUCT and part not in data]


def strings_in(document: Any) -> Iterator[str]:
    """Every string of a JSON document, and its lines as a page shows them."""
    if isinstance(document, dict):
        for value in document.values():
            yield from strings_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from strings_in(value)
    elif isinstance(document, str):
        yield document.strip(" .")


def check(page: "Page", data: frozenset[str]) -> None:
    """Nothing that is seen or heard lacks the marks, and at no width the page scrolls sideways."""
    found = page.evaluate(TEXTS)
    assert "⟦" in found["whole"]
    faults = [part for text in (found["whole"], *found["attributes"]) for part in unmarked(text, data)]
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        faults += [f"scrolls sideways by {wide} px at {width} px"] if wide else []
    assert not faults


@pytest.fixture(scope="module")
def catalogue_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of marked texts, as a file."""
    return write_catalogue(tmp_path_factory.mktemp("messages") / "marked.json", pseudo_catalogue())


@pytest.fixture
def marked(fake: Any, asymmetric: Phantom, catalogue_file: Path) -> Any:
    """A fake room with marked texts and every kind of row."""
    room = fake.fake
    room.catalogue = read_catalogue(catalogue_file)
    room.login_required = True
    marks: dict[str, Any] = {
        "claim": {"by": "agnes", "since": "2026-03-01T10:32:00+00:00"},
        "reviews": [{"by": "local", "at": "2026-03-01T10:32:00+00:00"}],
        "readers": ["agnes"],
    }
    first = room.add(asymmetric, deliveries=[
        {"destination": "archive", "state": state, "sent_at": "2026-03-01T10:32:00+00:00", "error": error}
        for state, error in (("failed", "refused"), ("waiting", ""), ("sent", ""), ("committed", ""))
    ])  # fmt: skip
    room.add_series(first, asymmetric, "5 mm, kernel H60s", same_as="0" * 32, reading=2, earlier=["1" * 32])
    for urgency in ("prompt", "unsure", "routine"):
        room.add(asymmetric, urgency=urgency, feedback={"agree": 1}, **marks)
    room.add(asymmetric, urgency="incomplete", unread="3 slices were not read", feedback={"corrected": 1})
    room.add(asymmetric, urgency=None, state="failed", error_code="not_ct", error_message="No CT was found.")
    room.add(asymmetric, urgency=None, state="scoring", stage_done=3, stage_total=12, waiting=timedelta(days=70))
    room.add(asymmetric, urgency=None, acquired_at=None)
    return fake


def data_of(room: Any) -> frozenset[str]:
    entries = [study.entry for study in room.fake.studies.values()]
    short = {study[:8] for study in room.fake.studies}
    initials = {" ".join(pair) for pair in (("AG", "AG"), ("LO", "LO"))} | {"AG", "LO"}
    card = {f"{one['kind']}: {one['name']}" for table in room.fake.card.get("strata", []) for one in table["strata"]}
    model = f"{room.fake.card['name']} {room.fake.card['version']}"
    names = {"local", "agnes", model}
    return frozenset({*strings_in(entries), *strings_in(room.fake.card), *short, *initials, *card, *names})


def test_every_text_of_the_worklist_comes_from_the_catalogue(marked: Any, open_page: OpenPage) -> None:
    page = open_page(marked.url)
    page.wait_for_selector("#studies tbody tr")
    data = data_of(marked)
    check(page, data)
    page.locator("#filters select").first.select_option("prompt")
    page.locator("#filters select").first.select_option("unknown")
    page.keyboard.press("?")
    check(page, data)
    page.keyboard.press("Escape")
    page.locator(".row-delete").first.click()
    check(page, data)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="⟦Notify me").click()
    page.locator("#search").fill("nothing like it")
    page.wait_for_selector("#no-match:visible")
    check(page, data)


def test_every_text_of_an_upload_and_of_an_empty_worklist_comes_from_the_catalogue(
    fake: Any, catalogue_file: Path, open_page: OpenPage
) -> None:
    fake.fake.catalogue = read_catalogue(catalogue_file)
    fake.fake.refuse_upload = {"status": 413, "code": "upload_too_large", "detail": "Too large.", "remedy": "Send less"}
    page = open_page(fake.url)
    page.wait_for_selector("#empty:visible")
    page.set_input_files("#choose-files", [{"name": "head.zip", "mimeType": "application/zip", "buffer": b"PK"}])
    page.wait_for_selector(".upload .problem")
    check(page, frozenset({"head.zip", "local"}))
    page.complaints.clear()  # type: ignore[attr-defined]  # the refused upload is in the console
    fake.fake.faulty = True
    page.locator("#filters select").first.select_option("prompt")
    page.wait_for_selector("#trouble .problem")
    check(page, frozenset({"head.zip", "local"}))
    page.complaints.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize("urgency", ["immediate", "unsure", "routine", "incomplete"])
def test_every_text_of_the_reading_page_comes_from_the_catalogue(
    marked: Any, open_page: OpenPage, urgency: str
) -> None:
    study_id = next(key for key, study in marked.fake.studies.items() if study.entry["urgency"] == urgency)
    page = open_page(f"{marked.url}/studies/{study_id}")
    page.wait_for_selector(".finding")
    data = data_of(marked)
    check(page, data)
    if urgency != "immediate":
        return
    page.set_viewport_size({"width": 1440, "height": 900})
    page.locator("#view").hover()
    page.locator("#strip-slider").hover()
    for key in ("h", "o", "i", "s", "m", "x"):
        page.keyboard.press(key)
    page.wait_for_selector(".plane[data-drawn]")
    check(page, data)
    page.set_viewport_size({"width": 1440, "height": 900})
    finding = page.locator(".finding[data-label=subdural]")
    finding.locator(".finding-head").click()
    finding.get_by_role("button", name="Disagree").click()
    finding.locator(".said").wait_for()
    check(page, data)
    finding.get_by_role("button", name="Add slices or a note").click()
    check(page, data)
    finding.get_by_role("button", name="Save").click()
    finding.locator("form").wait_for(state="detached")
    page.get_by_role("button", name="⟦Model card").click()
    check(page, data)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    check(page, data)
    page.keyboard.press("Escape")
    page.locator(".user-name").click()
    check(page, data)


@pytest.mark.parametrize("state", ["failed", "scoring", "queued"])
def test_every_text_of_an_unfinished_study_comes_from_the_catalogue(
    marked: Any, open_page: OpenPage, state: str
) -> None:
    study_id = next(key for key, study in marked.fake.studies.items() if study.entry["state"] == state)
    page = open_page(f"{marked.url}/studies/{study_id}")
    page.wait_for_selector(".waiting")
    check(page, data_of(marked))


def test_every_text_of_the_login_comes_from_the_catalogue(marked: Any, open_page: OpenPage) -> None:
    page = open_page(f"{marked.url}/login")
    check(page, frozenset())
    page.locator("#name").fill("r")
    page.locator("#password").fill("wrong")
    page.locator("[type=submit]").click()
    page.wait_for_selector(".problem")
    page.complaints.clear()  # type: ignore[attr-defined]  # the refused login is in the console
    check(page, frozenset())
    page.locator("#switch").click()
    check(page, frozenset())


def test_a_text_of_a_catalogue_is_never_markup(fake: Any, open_page: OpenPage, tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)><b>&amp;\"'"
    texts = {"locale": "de", "common.worklist": hostile, "worklist.search": hostile, "worklist.empty": hostile}
    fake.fake.catalogue = read_catalogue(write_catalogue(tmp_path / "de.json", texts))
    page = open_page(fake.url)
    page.wait_for_selector("#empty:visible")
    assert page.locator("h1").inner_text() == hostile
    assert page.locator("#empty h2").inner_text() == hostile
    assert page.locator("#search").get_attribute("placeholder") == hostile
    assert page.title() == f"{hostile} · Hemoscope"
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("html").get_attribute("lang") == "de"


def test_reports_and_unknown_addresses_of_the_real_room(
    distinct_bundle: Path, catalogue_file: Path, tmp_path: Path, open_page: OpenPage, real_reading: Callable[..., Any]
) -> None:
    with real_reading(tmp_path / "storage", distinct_bundle, "--messages", str(catalogue_file)) as (room, study_id):
        report = httpx.get(f"{room.url}/api/v1/studies/{study_id}/report.html", timeout=60).text
        page = open_page(f"{room.url}/nowhere")
        page.complaints.clear()  # type: ignore[attr-defined]  # the status 404 is in the console
        check(page, frozenset())
        page.goto(f"{room.url}/api/v1/studies/{study_id}/report.html")
        check(page, frozenset({study_id[:8]}))
        pdf = httpx.get(f"{room.url}/api/v1/studies/{study_id}/report.pdf", timeout=60).content
    assert "⟦Head CT: suspected hemorrhage ööö" in report
    words = " ".join(" ".join(one.extract_text() for one in PdfReader(io.BytesIO(pdf)).pages).split())
    assert words.count("⟦") == words.count("⟧") > 40
    for text in (
        "⟦Head CT: suspected hemorrhage",
        "⟦Intraparenchymal",
        "⟦Not established",
        "⟦What the thresholds mean",
        "⟦Page 1",
    ):
        assert text in words
    assert not unmarked(words, frozenset({study_id[:8]}))
