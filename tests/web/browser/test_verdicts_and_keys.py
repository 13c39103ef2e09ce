"""What a reader says of findings, and the ways through findings and studies, in a real browser."""

from typing import TYPE_CHECKING, Any

import pytest
from reading_page import OpenPage, opened, wait_for_slice

from hemoscope.testing.phantom import Phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_a_disagreement_with_a_note_cannot_be_taken_for_agreement_and_stays(study: "Page") -> None:
    finding = study.locator(".finding[data-label=intraparenchymal]")
    finding.locator(".finding-head").click()
    finding.get_by_role("button", name="Disagree: no intraparenchymal").click()
    finding.locator("textarea").fill("calcified <b>falx</b>")
    finding.get_by_role("button", name="Save").click()
    finding.get_by_text("Disagreed: no intraparenchymal").wait_for()
    study.reload()
    finding.locator(".finding-head").click()
    assert finding.locator(".reader-mark").inner_text() == "Reader disagrees"
    assert "calcified <b>falx</b>" in finding.inner_text(), "a note is text, never markup"


def test_a_finding_is_agreed_with_by_one_click_and_that_is_taken_back(study: "Page") -> None:
    any_finding = study.locator(".finding[data-label=any]")
    any_finding.get_by_role("button", name="Agree: hemorrhage", exact=True).click()
    any_finding.get_by_text("Agreed: hemorrhage").wait_for()
    assert any_finding.locator(".reader-mark").inner_text() == "Reader agrees"
    any_finding.get_by_role("button", name="Take back").click()
    any_finding.get_by_text("Agreed: hemorrhage").wait_for(state="detached")
    study.reload()
    study.wait_for_selector(".finding")
    assert any_finding.locator(".reader-mark").inner_text() == ""


def test_slices_are_marked_in_ranges(study: "Page") -> None:
    finding = study.locator(".finding[data-label=subdural]")
    finding.locator(".finding-head").click()
    finding.get_by_role("button", name="Agree: subdural", exact=True).click()
    finding.get_by_role("button", name="Add slices or a note").click()
    finding.get_by_label("Seen on slices").fill("3-5, 9, 400")
    finding.get_by_role("button", name="Save").click()
    assert finding.locator("form").count() == 1, "there is no slice 400"
    finding.get_by_label("Seen on slices").fill("3-5, 9")
    finding.get_by_role("button", name="Save").click()
    finding.get_by_text("slices 3\u20135, 9").wait_for()


def test_n_shows_each_suspected_finding_at_its_key_slices_under_its_map(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    keys = fake.fake.studies[study_id].entry["geometry"]["key_slices"]
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    page.locator(".finding[data-label=any] .finding-head").click()
    wait_for_slice(page, keys["any"][0])
    assert page.locator("#heat").get_attribute("aria-pressed") == "true"
    stops = [(label, index) for label in ("any", "intraparenchymal", "subdural") for index in keys[label]]
    for label, index in [*stops[1:], stops[0]]:
        page.keyboard.press("n")
        wait_for_slice(page, index)
        assert page.locator(".finding.is-chosen").get_attribute("data-label") == label
    page.keyboard.press("p")
    wait_for_slice(page, stops[-1][1])


def test_the_arrows_scroll_again_after_the_opacity_slider(study: "Page") -> None:
    study.keyboard.press("Home")
    wait_for_slice(study, 0)
    box = study.locator("#opacity").bounding_box()
    assert box
    study.mouse.click(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    study.keyboard.press("ArrowUp")
    wait_for_slice(study, 1)


def test_keys_work_under_a_cyrillic_layout(study: "Page") -> None:
    study.evaluate(
        """() => document.dispatchEvent(
          new KeyboardEvent("keydown", { key: "ц", code: "KeyW", bubbles: true, cancelable: true }))"""
    )
    study.wait_for_url("**/")


def test_both_pages_work_where_the_site_may_keep_no_data(room: Any, browser: Any, real_study: str) -> None:
    context = browser.new_context()
    context.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) {
          Object.defineProperty(window, name, { get() { throw new DOMException("blocked", "SecurityError"); } });
        }"""
    )
    page = context.new_page()
    page.goto(room.url)
    page.wait_for_selector("#line[data-line=live]")
    page.keyboard.press("?")
    page.get_by_label("Single-key shortcuts on").uncheck()
    if room.fake is None:
        page.goto(f"{room.url}/studies/{real_study}")
        page.wait_for_selector(".finding")
        page.keyboard.press("h")
    context.close()


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_scrolls_sideways_on_small_screens(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, width: int
) -> None:
    study_id = fake.fake.add(asymmetric)
    fake.fake.add(asymmetric, urgency="incomplete")
    page = open_page(fake.url, viewport={"width": width, "height": 844})
    page.wait_for_selector("#studies tbody tr")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.goto(f"{fake.url}/studies/{study_id}")
    page.locator(".finding[data-label=subdural] .finding-head").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_filters_survive_reading_a_study_and_the_next_study_is_of_the_same_list(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    first, _, last = (fake.fake.add(asymmetric, urgency=one) for one in ("routine", "immediate", "routine"))
    page = open_page(fake.url)
    page.select_option("#urgency", "routine")
    page.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 2")
    page.locator(".row-link").first.click()
    page.wait_for_selector("#next:enabled")
    assert page.locator("#place").inner_text() == "1 of 2 shown"
    page.keyboard.press("j")
    page.wait_for_url(f"**/{last}?urgency=routine")
    page.wait_for_selector("#previous:enabled")
    assert first != last
    page.keyboard.press("w")
    page.wait_for_url("**/?urgency=routine")
    page.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 2")
    assert page.locator("#urgency").input_value() == "routine"


def test_single_keys_can_be_switched_off(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    page.keyboard.press("?")
    page.get_by_label("Single-key shortcuts on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    assert page.locator("#corner-window").inner_text().startswith("Brain")


def test_j_and_k_go_through_the_studies_in_the_worklists_order(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    routine = fake.fake.add(asymmetric, urgency="routine")
    urgent = fake.fake.add(asymmetric, urgency="immediate")
    page = open_page(f"{fake.url}/studies/{urgent}")
    page.wait_for_selector("#next:enabled")
    page.keyboard.press("j")
    page.wait_for_url(f"**/{routine}")
    page.wait_for_selector("#previous:enabled")
    page.keyboard.press("k")
    page.wait_for_url(f"**/{urgent}")
