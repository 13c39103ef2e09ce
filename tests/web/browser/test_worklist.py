"""The worklist in a real browser: live, sorted, searched, and open to whatever is dropped on it."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reading_page import wait_until

from hemoscope.testing.phantom import make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
WAIT_S = 60.0
SMALL = make_phantom(seed=1, shape=(3, 64, 64))


@pytest.fixture
def three(fake: Any, open_page: OpenPage) -> "Page":
    """A worklist of a routine, an immediate and a failed study."""
    fake.fake.add(SMALL, urgency="routine", waiting=timedelta(hours=2))
    fake.fake.add(SMALL, urgency="immediate")
    fake.fake.add(SMALL, urgency=None, state="failed", error_code="no_series", error_message="Only a scout was found.")
    page = open_page(fake.url)
    page.wait_for_selector("#studies tbody tr")
    return page


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def words(page: "Page") -> list[str]:
    return page.locator("#studies .urgency").all_inner_texts()


def test_an_empty_worklist_says_what_to_do(fake: Any, open_page: OpenPage) -> None:
    page = open_page(fake.url)
    page.get_by_text("Drop a head CT anywhere on this page").wait_for()


def test_the_most_urgent_study_is_first_and_a_failed_one_shows_cause_and_remedy(three: "Page") -> None:
    assert words(three) == ["Immediate", "Failed", "Routine"]  # nobody knows what the failed one shows
    failed = three.locator("tr[data-state=failed]").inner_text()
    assert "Only a scout was found." in failed
    assert "Export the study again" in failed


def test_a_row_says_what_was_not_read_which_study_came_before_and_the_title_what_waits(
    fake: Any, open_page: OpenPage
) -> None:
    first = fake.fake.add(SMALL, unread="10 slices cover 50 mm, less than a head")
    fake.fake.add(SMALL, urgency="unsure", same_as=first)
    page = open_page(fake.url)
    rows = page.locator("#studies tbody tr")
    rows.first.wait_for()
    immediate, unsure = rows.all_inner_texts()
    assert "Incomplete" in immediate
    assert "Not the whole head was read: 10 slices cover 50 mm, less than a head" in immediate
    assert "The model is unsure" in unsure
    assert page.title().startswith("(1) ")
    page.get_by_role("link", name=first[:8], exact=True).click()
    page.wait_for_url(f"**/studies/{first}")
    initials = {"anna.larsen": "AL", "agnes": "AG"}
    fake.fake.change(first, verdicts={"any": "agree"}, readers=list(initials), initials=initials,
                     reviews=[{"by": "agnes", "at": "2026-01-01T00:00:00Z"}])  # fmt: skip
    page.go_back()
    page.wait_for_function("() => document.title.startsWith('Worklist')")
    assert page.locator(".reviewed-findings .readers").inner_text() == "AL AG"


def test_permission_for_notifications_is_asked_on_a_click_and_an_immediate_study_notifies_in_the_background(
    fake: Any, open_page: OpenPage
) -> None:
    page = open_page(fake.url)
    page.wait_for_selector("#line[data-line=live]")  # a page that is hidden from the start does not listen
    page.evaluate(
        """() => {
          window.notified = [];
          window.asked = 0;
          window.Notification = class {
            static async requestPermission() { window.asked += 1; return "granted"; }
            constructor(title, { body }) { window.notified.push(`${title}: ${body}`); }
          };
          Object.defineProperty(document, "hidden", { get: () => true });
        }"""
    )
    fake.fake.add(SMALL)
    page.locator("#studies tbody tr").wait_for()
    assert page.evaluate("[notified.length, asked]") == [0, 0]
    page.get_by_role("button", name="Notify me").click()
    page.get_by_role("button", name="Notifications on").wait_for()
    fake.fake.add(SMALL, urgency="routine")
    second = fake.fake.add(SMALL)
    page.wait_for_function("() => notified.length > 0")
    assert page.evaluate("notified") == [f"Immediate study: Study {second[:8]} waits for a reader"]


def test_a_file_that_is_not_dicom_fails_on_the_real_server_with_cause_and_remedy(
    real: Any, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    page = open_page(real.url)
    page.set_input_files("#choose-files", tmp_path / "letter.txt")
    failed = page.locator("tr[data-state=failed]").first
    failed.wait_for()
    assert "Give DICOM files" in failed.locator(".remedy").inner_text()
    failed.locator(".row-link").click()
    page.get_by_text("This study could not be read").wait_for()
    assert "not_dicom" in page.locator("#panel").inner_text()


def test_the_disclaimer_stays_in_sight_however_far_one_scrolls(fake: Any, open_page: OpenPage) -> None:
    for _ in range(40):
        fake.fake.add(SMALL, urgency="routine")
    page = open_page(fake.url)
    page.locator("#studies tbody tr").last.scroll_into_view_if_needed()
    assert page.evaluate("() => scrollY") > 100
    box = page.locator(".disclaimer").bounding_box()
    assert box
    assert 0 <= box["y"] < 60


def test_a_study_that_becomes_urgent_moves_up_by_itself(three: "Page", fake: Any) -> None:
    routine = next(iter(fake.fake.studies))
    fake.fake.change(routine, urgency="immediate", suspected=["any"])
    three.wait_for_function("() => document.querySelectorAll('.urgency-immediate').length === 2")
    assert three.locator("#studies tbody tr").first.get_attribute("data-study") == routine, "it waits longest"


def test_progress_is_shown_as_it_is_made(three: "Page", fake: Any) -> None:
    study_id = fake.fake.add(SMALL, urgency=None, waiting=timedelta(0))
    fake.fake.change(study_id, state="scoring", stage_done=7, stage_total=30)
    three.get_by_text("Scoring slices 7 of 30").wait_for()


def test_search_and_filters_narrow_the_list_and_can_be_cleared(three: "Page") -> None:
    three.select_option("#urgency", "immediate")
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 1")
    three.fill("#search", "no such study")
    three.get_by_text("No study matches").wait_for()
    three.get_by_role("button", name="Show all studies").click()
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 3")


def test_escape_in_the_search_shows_all_studies_again(three: "Page") -> None:
    three.locator("#search").fill("nothing is called so")
    three.get_by_text("No study matches").wait_for()
    three.keyboard.press("Escape")
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 3")
    assert three.locator("#search").input_value() == ""


def test_keys_move_through_the_studies_and_open_one(three: "Page") -> None:
    three.keyboard.press("j")
    three.keyboard.press("j")
    three.keyboard.press("k")
    first = three.locator("#studies tbody tr").first.get_attribute("data-study")
    three.keyboard.press("Enter")
    three.wait_for_url(f"**/studies/{first}")


def test_a_live_change_leaves_the_focus_where_it_was(three: "Page", fake: Any) -> None:
    three.keyboard.press("j")
    focused = "document.activeElement.closest('tr')?.dataset.study"
    before = three.evaluate(focused)
    fake.fake.add(SMALL, urgency="prompt")
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 4")
    assert three.evaluate(focused) == before


def test_a_click_counts_while_the_study_makes_progress(three: "Page", fake: Any) -> None:
    study_id = fake.fake.add(SMALL, urgency=None, waiting=timedelta(0))
    box = three.locator(f"tr[data-study='{study_id}'] .row-link").bounding_box()
    assert box
    three.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    three.mouse.down()
    fake.fake.change(study_id, state="scoring", stage_done=7, stage_total=30)
    three.get_by_text("Scoring slices 7 of 30").wait_for()
    three.mouse.up()
    three.wait_for_url(f"**/studies/{study_id}")


def test_a_hidden_page_closes_its_connection_and_misses_nothing(three: "Page", fake: Any) -> None:
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    three.wait_for_selector("[data-line=live]")
    three.evaluate(f"Object.defineProperty(document, 'hidden', {{value: true, configurable: true}}); {look}")
    until(lambda: fake.fake.listeners == 0)
    fake.fake.add(SMALL, urgency="prompt")
    three.evaluate(f"delete document.hidden; {look}")
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 4")
    assert fake.fake.listeners == 1


def test_a_deleted_study_is_asked_about_and_then_gone(three: "Page", fake: Any) -> None:
    three.locator("tr[data-state=failed] .row-delete").click()
    three.get_by_role("button", name="Keep it").click()
    assert three.locator("#studies tbody tr").count() == 3
    three.locator("tr[data-state=failed] .row-delete").click()
    three.get_by_role("button", name="Delete", exact=True).click()
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 2")


def test_files_can_be_dropped_anywhere_and_their_names_stay_here(fake: Any, open_page: OpenPage) -> None:
    page = open_page(fake.url)
    page.get_by_text("No studies yet").wait_for()
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["one"], "DOE^JANE.dcm"));
          transfer.items.add(new File(["two"], ".DS_Store"));
          window.dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer }));
          window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        }"""
    )
    page.locator("tr[data-state=done]").wait_for()
    assert fake.fake.uploads == [[("000001", b"one")]]
    assert not page.locator("#curtain").is_visible()


def test_a_folder_is_uploaded_with_all_that_lies_in_it(fake: Any, open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b", "deep/.hidden"):
        (tmp_path / name).write_bytes(name.encode())
    page = open_page(fake.url)
    page.set_input_files("#choose-folder", tmp_path)
    page.locator("tr[data-state=done]").wait_for()
    assert sorted(content for _, content in fake.fake.uploads[0]) == [b"a", b"deep/b"]


def test_an_answer_that_arrives_after_a_later_event_does_not_undo_it(
    fake: Any, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    fake.fake.late_answers = True
    page = open_page(fake.url)
    page.wait_for_selector("[data-line=live]")
    with page.expect_response("**/uploads"):
        page.set_input_files("#choose-files", tmp_path / "letter.txt")
    page.locator("#uploads").wait_for(state="hidden")
    page.locator("#studies tbody tr[data-state=failed]").wait_for()  # the event may be on its way still
    page.wait_for_timeout(200)  # what would undo it has done so
    assert page.locator("#studies tbody tr").get_attribute("data-state") == "failed"


def test_a_list_that_arrives_after_a_later_one_is_left_out(three: "Page") -> None:
    held: list[Any] = []
    three.route("**/studies?*urgency=routine*", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    with three.expect_request("**/studies?*urgency=routine*"):
        three.select_option("#urgency", "routine")
    three.select_option("#urgency", "")
    three.get_by_text("3 studies").wait_for()
    with three.expect_response("**/studies?*urgency=routine*"):
        held[0].continue_()
    three.wait_for_timeout(200)  # what would be drawn has been
    assert three.locator("#studies tbody tr").count() == 3


def test_a_rejected_upload_shows_cause_and_remedy_and_can_be_retried(
    fake: Any, open_page: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "scan.zip").write_bytes(b"PK")
    fake.fake.refuse_upload = {
        "status": 413, "code": "upload_too_large", "detail": "The upload is larger than 1 MB.",
        "remedy": "Upload one study at a time",
    }  # fmt: skip
    page = open_page(fake.url)
    page.set_input_files("#choose-files", tmp_path / "scan.zip")
    page.get_by_text("The upload is larger than 1 MB.").wait_for()
    assert page.get_by_text("Upload one study at a time").is_visible()
    fake.fake.refuse_upload = None
    page.get_by_role("button", name="Try again").click()
    page.locator("tr[data-state=done]").wait_for()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the 413


def test_a_page_asks_before_it_is_left_while_it_uploads(fake: Any, open_page: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "scan.zip").write_bytes(b"PK")
    held: list[Any] = []
    page = open_page(fake.url)
    page.wait_for_selector("[data-line=live]")
    page.route("**/uploads", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    asks = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert not page.evaluate(asks)
    for _ in range(2):
        page.set_input_files("#choose-files", tmp_path / "scan.zip")
    while len(held) < 2:
        page.wait_for_timeout(20)
    assert page.evaluate(asks)
    page.locator("#uploads").get_by_role("button", name="Cancel").first.click()
    page.wait_for_function("() => document.querySelectorAll('#uploads li').length === 1")
    assert page.evaluate(asks), "the other is still under way"
    held[1].continue_()
    page.locator("#uploads").wait_for(state="hidden")
    assert not page.evaluate(asks)


def test_only_the_list_says_that_it_tries_again_by_itself(fake: Any, open_page: OpenPage) -> None:
    fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/login")
    page.route("**/api/v1/studies?*", lambda route: route.abort())
    page.goto(fake.url)
    page.get_by_text("this page tries again automatically").wait_for()
    page.unroute("**/api/v1/studies?*")
    page.get_by_role("button", name="Try again").click()
    page.locator("#studies tbody tr").wait_for()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_filters_outlast_a_login(fake: Any, open_page: OpenPage) -> None:
    fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/login")
    page.route("**/api/v1/studies?*", lambda route: route.fulfill(status=401, json={"code": "login_required"}))
    page.goto(f"{fake.url}/?urgency=immediate&sort=-scan")
    page.wait_for_url("**/login?next=*")
    page.unroute("**/api/v1/studies?*")
    page.get_by_label("Password").fill("right")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{fake.url}/?urgency=immediate&sort=-scan")
    page.wait_for_function("() => document.querySelector('#urgency').value === 'immediate'")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the 401


def test_the_list_reconnects_after_the_connection_was_lost(fake: Any, open_page: OpenPage) -> None:
    page = open_page(fake.url)
    page.wait_for_selector("[data-line=live]")
    page.context.set_offline(True)
    page.evaluate("window.dispatchEvent(new Event('offline'))")
    fake.fake.add(SMALL, urgency="prompt")
    page.context.set_offline(False)
    page.locator("#studies tbody tr").wait_for()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_logging_in_reports_a_wrong_password_and_accepts_the_right_one(fake: Any, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/login?next=%2F")
    page.get_by_label("User name").fill("reader")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("That name and password are not known.").wait_for()
    page.get_by_label("Password").fill("right")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{fake.url}/")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the 401


@pytest.mark.parametrize("onward", ["/%09/evil.example", "/%0a/evil.example", "/%0d%5cevil.example"])
def test_after_the_login_no_address_leads_to_another_site(fake: Any, open_page: OpenPage, onward: str) -> None:
    page = open_page(f"{fake.url}/login?next={onward}")
    page.get_by_label("Password").fill("right")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{fake.url}/")  # a request to another site would be a complaint
    page.wait_for_selector("[data-line=live]")


def test_without_its_script_the_login_sends_the_password_in_no_address(guarded: Any, open_page: OpenPage) -> None:
    page = open_page(f"{guarded.url}/login?next=%2F", java_script_enabled=False)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(f"{request.method} {request.url}"))
    page.get_by_label("User name").fill("agnes")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{guarded.url}/login")
    assert f"POST {guarded.url}/login" in seen
    assert not [one for one in seen if "correct" in one]


def test_a_list_that_failed_at_first_names_the_fault_and_is_complete_after_it(fake: Any, open_page: OpenPage) -> None:
    fake.fake.add(SMALL, urgency="prompt")
    fake.fake.faulty = True
    page = open_page(fake.url)
    page.get_by_text("The database does not answer.").wait_for()
    assert not page.get_by_text("No studies yet").is_visible()
    fake.fake.faulty = False
    page.locator(".row-delete").wait_for()  # the page knows its user now, too
    assert page.locator(".problem").count() == 0
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the 503


def test_a_reader_logs_in_reads_and_logs_out_of_the_real_server(
    guarded: Any, open_page: OpenPage, series: list[Path]
) -> None:
    page = open_page(guarded.url)
    page.wait_for_url("**/login*")
    page.get_by_label("User name").fill("agnes")
    page.get_by_label("Password").fill("wrong password here")
    page.get_by_role("button", name="Log in").click()
    page.locator(".problem").wait_for()
    refused = page.complaints  # type: ignore[attr-defined]
    wait_until(page, lambda: refused)  # the browser logs the 401, perhaps after the page has shown it
    refused.clear()
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    page.set_input_files("#choose-files", series)
    page.locator("tr[data-state=done]").wait_for()
    assert page.locator(".row-delete").count() == 0, "deleting is for administrators"
    page.locator(".row-link").click()
    page.wait_for_selector(".finding")
    page.get_by_role("button", name="Model card").click()
    page.get_by_text("10% of the studies here").wait_for()  # setting it is for administrators
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login*")
    page.goto(f"{guarded.url}/")
    page.wait_for_url("**/login*")
    refused[:] = [one for one in refused if "401" not in one]  # what was under way at the end of the session


def test_escape_in_the_search_shows_all_studies_and_enter_and_the_arrow_lead_to_the_first(three: "Page") -> None:
    three.keyboard.press("/")
    three.keyboard.type("no such study")
    three.get_by_text("No study matches").wait_for()
    three.keyboard.press("Escape")
    three.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 3")
    for key in ("ArrowDown", "Enter"):
        three.keyboard.press("/")
        three.keyboard.press(key)
        three.wait_for_function("() => document.activeElement === document.querySelector('.row-link')")


def test_the_list_has_its_place_again_and_reviewed_studies_follow_the_others_of_their_urgency(
    fake: Any, open_page: OpenPage
) -> None:
    first, second, third = (fake.fake.add(SMALL, waiting=timedelta(hours=hours)) for hours in (3, 2, 1))
    page = open_page(fake.url)
    page.wait_for_selector("#studies tbody tr")
    assert page.title().startswith("(3) ")
    assert "3 immediate to review" in page.locator("#count").inner_text()
    for _ in range(2):
        page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{second}")
    page.wait_for_selector("#readers button")
    page.keyboard.press("v")
    page.get_by_text("Reviewed by").wait_for()
    page.keyboard.press("w")
    page.wait_for_function("(id) => document.activeElement?.closest('tr')?.dataset.study === id", arg=second)
    order = page.locator("#studies tbody tr").evaluate_all("rows => rows.map((row) => row.dataset.study)")
    assert order == [first, third, second]
    assert page.title().startswith("(2) ")
    assert "2 immediate to review" in page.locator("#count").inner_text()
