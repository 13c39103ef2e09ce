"""The list of what nobody has reviewed, and a study that is not in the list: in a real browser."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from accessibility import faults

from hemoscope.testing.phantom import make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
SMALL = make_phantom(seed=1, shape=(3, 64, 64))
REVIEW = {"by": "agnes", "at": "2026-03-01T10:32:00+00:00"}


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (768, "dark"), (390, "dark")])
def test_what_nobody_has_reviewed_can_be_listed_counted_and_walked_through(
    fake: Any, open_page: OpenPage, width: int, scheme: str
) -> None:
    fake.fake.add(SMALL, reviews=[REVIEW])
    first, second = (fake.fake.add(SMALL, waiting=timedelta(hours=hours)) for hours in (3, 2))
    third = fake.fake.add(SMALL, urgency="routine")
    page = open_page(fake.url, viewport={"width": width, "height": 900}, color_scheme=scheme)
    rows = page.locator("#studies tbody tr")
    page.get_by_text("4 studies").wait_for()
    page.locator("#review").focus()
    page.keyboard.press("ArrowDown")
    page.get_by_text("3 studies, 2 immediate").wait_for()
    assert page.url.endswith("/?review=none")
    assert page.title() == "(2) Worklist · Hemoscope"
    assert not faults(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.reload()
    page.get_by_text("3 studies, 2 immediate").wait_for()
    assert page.locator("#review").input_value() == "none"
    fake.fake.change(second, reviews=[REVIEW])  # by another reader
    page.get_by_text("2 studies, 1 immediate").wait_for()
    assert page.title() == "(1) Worklist · Hemoscope"
    assert rows.evaluate_all("rows => rows.map(({ dataset }) => dataset.study)") == [first, third]
    fake.fake.change(second, reviews=[])  # taken back
    page.get_by_text("3 studies, 2 immediate").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.get_by_text("1 of 3 shown").wait_for()
    page.wait_for_selector(".finding")
    page.keyboard.press("v")
    page.get_by_text("Take back review").wait_for()
    late = fake.fake.add(SMALL, urgency="routine")  # events come in order: the page has heard of the review before
    page.get_by_text("1 of 4 shown").wait_for()
    fake.fake.change(late, reviews=[REVIEW])
    page.get_by_text("1 of 3 shown").wait_for()
    page.keyboard.press("j")
    page.wait_for_url(f"**/studies/{second}?review=none")
    page.get_by_text("1 of 2 shown").wait_for()
    page.keyboard.press("j")
    page.wait_for_url(f"**/studies/{third}?review=none")
    page.keyboard.press("w")
    page.wait_for_url("**/?review=none")
    page.get_by_text("2 studies, 1 immediate").wait_for()


def test_a_study_outside_the_list_is_loaded_once(fake: Any, open_page: OpenPage) -> None:
    study_id = fake.fake.add(SMALL, reviews=[REVIEW])
    fake.fake.add(SMALL)
    page = open_page(fake.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{fake.url}/studies/{study_id}?review=none")
    page.wait_for_selector(".finding")
    page.wait_for_timeout(500)  # whatever else would be fetched has been asked for
    study = f"{fake.url}/api/v1/studies/{study_id}"
    assert [one for one in asked if one == study] == [study]


def test_what_changes_while_the_list_is_on_its_way_is_not_missed(fake: Any, open_page: OpenPage) -> None:
    study_id = fake.fake.add(SMALL, reviews=[REVIEW])
    held: list[Any] = []
    page = open_page(fake.url)
    page.route("**/api/v1/studies?*", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    with page.expect_response(f"**/api/v1/studies/{study_id}"):
        page.goto(f"{fake.url}/studies/{study_id}?review=none")
    fake.fake.change(study_id, reviews=[])
    for _ in range(600):
        if held:
            break
        page.wait_for_timeout(50)
    held[0].continue_()
    page.get_by_text("Not reviewed", exact=True).wait_for()


def test_findings_do_not_wait_for_the_list_nor_go_with_it(fake: Any, open_page: OpenPage) -> None:
    first, _ = fake.fake.add(SMALL), fake.fake.add(SMALL)
    page = open_page(fake.url)
    held: list[Any] = []
    page.route("**/api/v1/studies?*", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.goto(f"{fake.url}/studies/{first}")
    page.locator(".finding").first.wait_for()
    held[0].abort()
    again = page.locator("#place").get_by_role("button", name="Try again")
    again.wait_for()
    assert page.locator(".finding").count() > 0
    fake.fake.change(first, reviews=[REVIEW])  # the study is followed without the list
    page.get_by_text("Not reviewed", exact=True).wait_for(state="hidden")
    page.unroute("**/api/v1/studies?*")
    again.click()
    page.get_by_text("of 2", exact=False).first.wait_for()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_the_next_study_says_that_zoom_and_window_of_the_last_one_are_still_on(fake: Any, open_page: OpenPage) -> None:
    first, second = fake.fake.add(SMALL), fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/studies/{first}")
    page.wait_for_selector(".finding")
    for key in ("+", "+", "3"):
        page.keyboard.press(key)
    page.goto(f"{fake.url}/studies/{second}")
    page.get_by_text("Kept from the last study: zoom, window. Reset with r", exact=True).wait_for()
    page.reload()
    page.get_by_text("Kept from the last study: zoom, window. Reset with r", exact=True).wait_for()
    page.keyboard.press("2")
    page.get_by_text("Kept from the last study: zoom. Reset with r", exact=True).wait_for()
    page.keyboard.press("r")
    page.wait_for_function("() => document.querySelector('#kept-words').textContent === ''")
