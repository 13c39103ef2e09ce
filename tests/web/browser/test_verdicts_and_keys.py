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
    finding.get_by_text("Disagreed: no intraparenchymal").wait_for()
    finding.get_by_role("button", name="Add slices or a note").click()
    finding.locator("textarea").fill("calcified <b>falx</b>")
    finding.get_by_role("button", name="Save").click()
    finding.get_by_text("Disagreed: no intraparenchymal").wait_for()
    study.reload()
    finding.locator(".finding-head").click()
    assert finding.locator(".reader-mark").inner_text() == "Reader disagrees"
    assert "calcified <b>falx</b>" in finding.inner_text(), "a note is text, never markup"


def test_a_disagreement_is_stored_by_one_key_and_no_second_key_turns_it_round(study: "Page") -> None:
    finding = study.locator(".finding[data-label=subdural]")
    finding.locator(".finding-head").click()
    agree, disagree = (finding.locator(".feedback-buttons button").nth(place) for place in (0, 1))
    disagree.focus()
    study.keyboard.press("Enter")
    finding.get_by_text("Disagreed: no subdural").wait_for()
    assert [one.get_attribute("aria-pressed") for one in (agree, disagree)] == ["false", "true"]
    looks = [one.evaluate("node => getComputedStyle(node).backgroundColor") for one in (agree, disagree)]
    assert looks[0] != looks[1], "the chosen button looks pressed"
    for key in ("Enter", "Space", "Enter"):  # the focus is on no button: nothing happens
        study.keyboard.press(key)
    finding.get_by_role("button", name="Add slices or a note").click()
    finding.locator("textarea").fill("not kept")
    study.keyboard.press("Escape")
    assert finding.locator("form").count() == 0
    study.keyboard.press("Enter")
    study.keyboard.press("w")  # a page key, not a letter of a note
    study.wait_for_url("**/")
    study.go_back()
    finding.locator(".finding-head").click()
    finding.get_by_text("Disagreed: no subdural").wait_for()
    assert "not kept" not in finding.inner_text()
    finding.get_by_role("button", name="Take back").click()
    finding.get_by_text("Disagreed: no subdural").wait_for(state="detached")
    study.keyboard.press("Enter")
    assert finding.locator(".feedback [aria-pressed=true]").count() == 0


def test_a_and_d_answer_for_the_chosen_finding_and_for_the_one_with_the_focus(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    page.keyboard.press("n")
    chosen = page.locator(".finding.is-chosen")
    page.keyboard.press("d")
    chosen.get_by_text("Disagreed: ").wait_for()
    page.locator(".finding[data-label=subdural] .finding-head").focus()
    page.keyboard.press("a")
    page.locator(".finding[data-label=subdural] .said").wait_for(state="attached")
    assert {one["label"]: one["verdict"] for one in fake.fake.studies[study_id].feedback} == {
        "any": "corrected", "subdural": "agree",
    }  # fmt: skip
    page.keyboard.press("a")  # again: nothing new
    page.keyboard.press("?")
    assert "Agree with the finding in focus" in page.locator("#help").inner_text()
    assert len(fake.fake.studies[study_id].feedback) == 2


def test_after_a_walk_the_keys_answer_for_the_finding_on_screen(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    page.locator(".finding[data-label=subdural] .finding-head").click()
    chosen = page.locator(".finding.is-chosen")
    while chosen.get_attribute("data-label") == "subdural":  # through its key slices
        page.keyboard.press("n")
    on_screen = chosen.get_attribute("data-label")
    assert page.evaluate("document.activeElement.closest('.finding').dataset.label") == on_screen
    page.keyboard.press("a")
    chosen.locator(".said").wait_for()
    assert [one["label"] for one in fake.fake.studies[study_id].feedback] == [on_screen]


def test_an_answer_that_could_not_be_stored_is_said_where_it_was_meant(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    page.route("**/feedback", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    finding = page.locator(".finding[data-label=subdural]")
    assert not finding.locator(".finding-body").is_visible()
    finding.locator(".finding-head").focus()
    for _ in range(2):
        with page.expect_event("requestfailed"):
            page.keyboard.press("a")
    finding.locator(".problem").get_by_text("The server does not answer.").wait_for()
    assert finding.locator(".remedy").inner_text().endswith("then try again."), "nothing sends it again by itself"
    page.locator("#announcement").get_by_text("The server does not answer.").wait_for(state="attached")
    assert finding.locator(".problem").count() == 1
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_a_note_outlasts_a_key_another_readers_answer_and_a_connection_that_fails(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    url = f"{fake.url}/studies/{fake.fake.add(asymmetric)}"
    page, other = opened(open_page, url), opened(open_page, url)
    finding = page.locator(".finding[data-label=any]")
    page.keyboard.press("a")
    finding.get_by_role("button", name="Add slices or a note").click()
    finding.locator("textarea").fill("a long note")
    finding.locator("textarea").blur()
    page.keyboard.press("d")
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    other.locator(".finding[data-label=any] .said").wait_for(state="attached")
    other.keyboard.press("d")
    finding.locator(".reader-mark").get_by_text("Reader disagrees").wait_for()
    assert finding.locator("textarea").input_value() == "a long note"
    page.route("**/feedback", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        other.keyboard.press("a")
    page.wait_for_timeout(200)  # what would replace the panel has done so
    assert finding.locator("textarea").input_value() == "a long note"
    page.unroute("**/feedback")
    finding.locator("textarea").press("Escape")
    finding.get_by_text("Disagreed: no hemorrhage").wait_for()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_the_worklist_says_which_finding_readers_agree_with_and_an_open_page_shows_it(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    url = f"{fake.url}/studies/{fake.fake.add(asymmetric)}"
    here, there, worklist = opened(open_page, url), opened(open_page, url), open_page(fake.url)
    for label, name, words in (
        ("subdural", "Agree: subdural", "Reader agrees"),
        ("intraparenchymal", "Disagree: no intraparenchymal", "Reader disagrees"),
    ):
        finding = f".finding[data-label={label}]"
        here.locator(f"{finding} .finding-head").click()
        here.locator(finding).get_by_role("button", name=name, exact=True).click()
        there.wait_for_function(
            "([finding, words]) => document.querySelector(`${finding} .reader-mark`).textContent === words",
            arg=[finding, words],
        )
    worklist.get_by_text("IPH no, SDH yes").wait_for()
    assert worklist.locator(".chip-corrected").inner_text() == "Intraparenchymal"
    assert worklist.locator(".chip-agree").inner_text().startswith("Subdural")


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
