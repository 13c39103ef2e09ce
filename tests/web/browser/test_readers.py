"""Two readers in two browsers: each sees within seconds what the other reads and has reviewed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from accessibility import faults
from reading_page import clear_failed_request

from hemoscope.testing.phantom import make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
PASSWORD = "correct horse battery"
SMALL = make_phantom(seed=1, shape=(3, 64, 64))


@pytest.fixture
def agnes(shared: Any) -> Iterator[httpx.Client]:
    """A program's view of the room, logged in as the administrator."""
    with httpx.Client(base_url=f"{shared.url}/api/v1", timeout=60) as client:
        given = {"user": "agnes", "password": PASSWORD}
        client.headers["X-CSRF-Token"] = client.post("/login", json=given).json()["csrf_token"]
        yield client


@pytest.fixture
def study_id(agnes: httpx.Client, series: list[Path]) -> str:
    """A study that is done."""
    files = [("files", (str(place), path.read_bytes())) for place, path in enumerate(series)]
    study_id = agnes.post("/uploads", files=files).json()["study"]["study_id"]
    for _ in range(1200):
        if agnes.get(f"/studies/{study_id}").json()["state"] == "done":
            return str(study_id)
        time.sleep(0.1)
    pytest.fail("the study was not read within 120 s")


def logged_in(open_page: OpenPage, url: str, user: str) -> "Page":
    page = open_page(f"{url}/login")
    page.locator("#name").fill(user)
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#studies tbody tr")
    return page


def wait_for_words(page: "Page", selector: str, words: str) -> None:
    condition = "([selector, words]) => document.querySelector(selector)?.textContent.includes(words)"
    page.wait_for_function(condition, arg=[selector, words])


def test_two_readers_see_what_the_other_reads_and_has_reviewed(
    shared: Any, agnes: httpx.Client, study_id: str, open_page: OpenPage
) -> None:
    row = f"tr[data-study='{study_id}']"
    first, second = (logged_in(open_page, shared.url, name) for name in ("agnes", "bert.muller"))
    first.locator(f"{row} .row-link").click()
    wait_for_words(first, "#readers", "You are reading this")
    wait_for_words(second, f"{row} .claimed", "AG is reading this")

    second.locator(f"{row} .row-link").click()
    wait_for_words(second, "#readers", "AG is reading this, since")
    second.keyboard.press("t")
    wait_for_words(second, "#readers", "You are reading this")
    wait_for_words(first, "#readers", "BM is reading this")

    second.keyboard.press("v")
    wait_for_words(first, "#readers", "Reviewed by BM")
    wait_for_words(second, "#readers", "Take back review")
    second.keyboard.press("w")  # a study that its reader leaves goes to the one who has it open
    wait_for_words(first, "#readers", "You are reading this")
    wait_for_words(second, f"{row} .claimed", "AG is reading this")
    assert "Reviewed BM" in second.locator(f"{row} .cell-state").inner_text().replace("\n", " ")

    first.context.close()
    second.wait_for_function("(row) => !document.querySelector(`${row} .claimed`)", arg=row)
    said = [one["action"] for one in agnes.get("/audit").json()["entries"] if one["study_id"] == study_id]
    assert [one for one in said if one in {"claim", "take over", "review", "release"}] == [
        "release", "claim", "release", "review", "take over", "claim",
    ]  # fmt: skip


def test_a_reader_chooses_initials(shared: Any, agnes: httpx.Client, study_id: str, open_page: OpenPage) -> None:
    page = logged_in(open_page, shared.url, "bert.muller")
    page.locator(".user-name").click()
    page.locator("#initials").fill("B M")
    page.keyboard.press("Enter")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser's own line about the 422
    wait_for_words(page, "dialog[open]", "one to four letters")
    page.locator("#initials").fill("BMü")
    page.keyboard.press("Enter")
    wait_for_words(page, ".own-initials", "BMü")
    page.complaints.clear()  # type: ignore[attr-defined]
    agnes.put(f"/studies/{study_id}/claim", json={})
    page.goto(f"{shared.url}/studies/{study_id}")
    wait_for_words(page, "#readers", "Mark as reviewed")
    page.get_by_role("button", name="Mark as reviewed").click()
    wait_for_words(page, "#readers", "Reviewed by BMü")
    assert agnes.get(f"/studies/{study_id}").json()["reviews"][0]["by"] == "bert.muller"


def test_the_one_local_user_is_told_of_nobody_and_may_review(fake: Any, open_page: OpenPage) -> None:
    study_id = fake.fake.add(SMALL, urgency="immediate")
    page = open_page(fake.url)
    page.wait_for_function("() => document.title.startsWith('(1)')")
    page.goto(f"{fake.url}/studies/{study_id}")
    wait_for_words(page, "#readers", "Not reviewed")
    page.keyboard.press("v")
    wait_for_words(page, "#readers", "Reviewed by LO")
    assert "reading this" not in page.locator("#readers").inner_text()
    page.keyboard.press("w")
    wait_for_words(page, "#studies tbody", "Reviewed")
    assert not page.title().startswith("(")
    page.go_back()
    wait_for_words(page, "#readers", "Take back review")
    page.keyboard.press("v")
    wait_for_words(page, "#readers", "Not reviewed")


def test_a_second_press_while_the_first_is_under_way_marks_nothing_again(fake: Any, open_page: OpenPage) -> None:
    study_id = fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/studies/{study_id}")
    wait_for_words(page, "#readers", "Not reviewed")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method) if request.url.endswith("/review") else None)
    held: list[Any] = []
    page.route("**/review", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.keyboard.press("v")
    page.keyboard.press("v")
    page.get_by_role("button", name="Mark as reviewed").click()
    while not held:
        page.wait_for_timeout(20)
    page.evaluate("() => fetch('/api/v1/site')")  # what the keys have asked for came before
    assert asked == ["PUT"]
    held[0].abort()
    page.wait_for_selector("#readers .remedy")
    clear_failed_request(page)
    page.unroute("**/review")
    page.keyboard.press("v")  # one that failed does not stand in the way
    wait_for_words(page, "#readers", "Reviewed by LO")
    page.keyboard.press("v")
    wait_for_words(page, "#readers", "Not reviewed")
    assert asked == ["PUT", "PUT", "DELETE"]


def test_a_page_gives_no_sign_of_life_once_its_reader_logs_out(fake: Any, open_page: OpenPage) -> None:
    fake.fake.login_required = True
    study_id = fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/studies/{study_id}")
    wait_for_words(page, "#readers", "You are reading this")
    claims: list[str] = []
    page.on("request", lambda request: claims.append(request.method) if request.url.endswith("/claim") else None)
    held: list[Any] = []
    page.route("**/logout", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.get_by_role("button", name="Log out").click()
    while not held:
        page.wait_for_timeout(20)
    fake.fake.change(study_id, claim=None)  # as the server does before it answers
    page.wait_for_function("() => !document.querySelector('#readers').textContent.includes('You are reading this')")
    page.wait_for_timeout(200)  # what would be sent has been
    held[0].fulfill(status=204)
    page.wait_for_url("**/login")
    assert claims == []


def test_a_logout_that_failed_says_that_the_session_is_open_and_the_page_stays_alive(
    fake: Any, open_page: OpenPage
) -> None:
    fake.fake.login_required = True
    study_id = fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/studies/{study_id}")
    wait_for_words(page, "#readers", "You are reading this")
    claims: list[str] = []
    page.on("request", lambda request: claims.append(request.method) if request.url.endswith("/claim") else None)
    page.route("**/logout", lambda route: route.abort())
    page.get_by_role("button", name="Log out").click()
    dialog = page.get_by_role("dialog", name="Not logged out")
    dialog.get_by_text("your session is still open. The server does not answer").wait_for()
    assert "lock the screen" in dialog.inner_text()
    while not claims:
        page.wait_for_timeout(20)
    assert claims == ["PUT"]
    assert not faults(page)
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    page.get_by_role("button", name="Log out").click()
    dialog.wait_for()
    page.unroute("**/logout")
    page.route("**/logout", lambda route: route.fulfill(status=204))
    dialog.get_by_role("button", name="Try again").click()
    page.wait_for_url("**/login")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser's own lines


def test_an_answer_under_way_does_not_undo_that_somebody_took_over(fake: Any, open_page: OpenPage) -> None:
    fake.fake.login_required = True
    study_id = fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/studies/{study_id}")
    wait_for_words(page, "#readers", "You are reading this")
    held: list[Any] = []
    page.route("**/claim", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")  # a sign of life
    while not held:
        page.wait_for_timeout(20)
    fake.fake.change(study_id, claim={"by": "agnes", "since": "2026-01-01T00:00:00Z"})
    wait_for_words(page, "#readers", "AG is reading this")
    with page.expect_response("**/claim"):
        held[0].fulfill(json={"by": "local", "since": "2026-01-01T00:00:00Z"})
    page.wait_for_timeout(200)
    assert "AG is reading this" in page.locator("#readers").inner_text()
    page.unroute("**/claim")
