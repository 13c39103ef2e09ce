"""A worklist in a real browser that is longer than one page of it, and what is counted and notified beyond its rows."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from hemoscope.testing.phantom import make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
WAIT_S = 60.0
SECOND_PAGE = "**/api/v1/studies?*offset=500*"
SMALL = make_phantom(seed=1, shape=(3, 64, 64))


@pytest.fixture
def long(fake: Any, open_page: OpenPage) -> "Page":
    """A worklist of 620 routine studies, the newest scan last."""
    for number in range(620):
        fake.fake.add(SMALL, urgency="routine", waiting=timedelta(minutes=700 - number), geometry={"slices": 3})
    page = open_page(fake.url)
    page.get_by_text("The first 500 of 620 studies in this order").first.wait_for()
    return page


def listed(page: "Page") -> list[str]:
    ids: list[str] = page.locator("#studies tbody tr").evaluate_all("rows => rows.map((row) => row.dataset.study)")
    return ids


def hold_second_page(page: "Page") -> list[Any]:
    """Keep the answer for the second page of the list from coming; returns where the request will be."""
    held: list[Any] = []
    page.route(SECOND_PAGE, lambda route: held.append(route), times=1)  # noqa: PLW0108  # Playwright marks what it calls
    return held


def held_until(page: "Page", held: list[Any]) -> None:
    end = time.monotonic() + WAIT_S
    while not held and time.monotonic() < end:
        page.wait_for_timeout(20)


def test_a_long_list_is_in_the_order_chosen_and_shows_more_on_request(long: "Page", fake: Any) -> None:
    ids = list(fake.fake.studies)
    assert listed(long) == ids[:500]
    long.get_by_role("button", name="Scan age").click()
    long.get_by_role("button", name="Scan age").click()
    long.wait_for_function("(id) => document.querySelector('#studies tbody tr').dataset.study === id", arg=ids[-1])
    assert listed(long) == ids[:-501:-1], "the newest of all"
    long.get_by_role("button", name="Show more").click()
    long.get_by_text("620 studies", exact=True).first.wait_for()
    assert listed(long) == ids[::-1]
    assert not long.get_by_role("button", name="Show more").is_visible()
    assert long.evaluate("document.activeElement.closest('tr').dataset.study") == ids[-501], "the first that is new"
    long.reload()
    long.get_by_text("620 studies", exact=True).first.wait_for()


def test_show_more_leaves_the_focus_where_the_reader_has_moved_it(long: "Page") -> None:
    held = hold_second_page(long)
    long.get_by_role("button", name="Show more").click()
    held_until(long, held)
    long.keyboard.press("/")
    held[0].continue_()
    long.get_by_text("620 studies", exact=True).first.wait_for()
    long.wait_for_function("() => !document.querySelector('#show-more').disabled")
    assert long.evaluate("document.activeElement.id") == "search"


def test_show_more_goes_to_the_first_study_behind_the_old_end_not_to_one_that_came_above_it(
    long: "Page", fake: Any
) -> None:
    ids = list(fake.fake.studies)
    long.wait_for_selector("[data-line=live]")
    held = hold_second_page(long)
    long.get_by_role("button", name="Show more").click()
    held_until(long, held)
    top = fake.fake.add(SMALL)
    held[0].continue_()
    long.get_by_text("621 studies").first.wait_for()
    assert listed(long)[0] == top
    assert long.evaluate("document.activeElement.closest('tr').dataset.study") == ids[500]


def test_a_page_that_does_not_come_is_asked_for_again_by_the_same_button(long: "Page", fake: Any) -> None:
    ids = list(fake.fake.studies)
    long.route(SECOND_PAGE, lambda route: route.abort())
    button = long.get_by_role("button", name="Show more")
    button.click()
    long.locator("#trouble .problem").wait_for()
    long.wait_for_function("() => document.activeElement.id === 'show-more'")
    assert len(listed(long)) == 500
    long.unroute(SECOND_PAGE)
    long.keyboard.press("Enter")
    long.get_by_text("620 studies", exact=True).first.wait_for()
    long.wait_for_function("(id) => document.activeElement.closest('tr')?.dataset.study === id", arg=ids[500])
    assert long.evaluate("sessionStorage.getItem('hemoscope.pages')") == "2", "one page more, not two"
    long.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_what_is_in_progress_is_in_sight_in_a_long_list_also_after_a_reload(long: "Page", fake: Any) -> None:
    waiting = fake.fake.add(SMALL, urgency=None, waiting=timedelta(0))
    for _ in range(2):
        long.wait_for_function("(id) => document.querySelector('#studies tbody tr').dataset.study === id", arg=waiting)
        long.get_by_text("of 621 studies").first.wait_for()
        long.reload()
        long.wait_for_selector("#studies tbody tr")
        long.wait_for_selector("[data-line=live]")
    fake.fake.change(waiting, state="done", urgency="routine")
    long.get_by_text("1 other in progress or changed just now").first.wait_for()
    assert listed(long)[-1] == waiting


def test_the_keys_of_the_reading_page_go_on_behind_the_end_of_the_first_page(long: "Page", fake: Any) -> None:
    ids = list(fake.fake.studies)
    long.goto(f"{fake.url}/studies/{ids[499]}")
    long.get_by_text("500 of 620").wait_for()
    long.keyboard.press("j")
    long.wait_for_url(f"**/studies/{ids[500]}")
    long.get_by_text("501 of 620").wait_for()


def test_the_title_counts_what_nobody_has_reviewed_whatever_the_filters_show_and_while_the_tab_is_hidden(
    fake: Any, open_page: OpenPage
) -> None:
    fake.fake.add(SMALL)
    fake.fake.add(SMALL, urgency="routine")
    page = open_page(f"{fake.url}/login")
    page.clock.install()
    page.goto(f"{fake.url}/?urgency=routine")
    page.wait_for_selector("#studies tbody tr")
    assert page.title().startswith("(1) ")
    page.wait_for_selector("[data-line=live]")
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(f"Object.defineProperty(document, 'hidden', {{value: true, configurable: true}}); {look}")
    end = time.monotonic() + WAIT_S
    while fake.fake.listeners and time.monotonic() < end:
        time.sleep(0.02)
    fake.fake.add(SMALL)
    page.clock.fast_forward(31_000)
    page.wait_for_function("() => document.title.startsWith('(2) ')")


def test_a_claim_on_a_study_that_the_filter_hides_notifies_of_nothing(fake: Any, open_page: OpenPage) -> None:
    old = fake.fake.add(SMALL)
    page = open_page(f"{fake.url}/?urgency=routine")
    page.wait_for_selector("#line[data-line=live]")
    page.evaluate(
        """() => {
          window.notified = [];
          window.Notification = class {
            static async requestPermission() { return "granted"; }
            constructor(title, { body }) { window.notified.push(body); }
          };
        }"""
    )
    page.get_by_role("button", name="Notify me").click()
    page.get_by_role("button", name="Notifications on").wait_for()
    page.evaluate("() => Object.defineProperty(document, 'hidden', { get: () => true })")
    for claim in ({"by": "agnes", "since": "2026-01-01T00:00:00Z"}, None):
        fake.fake.change(old, claim=claim)
    fresh = fake.fake.add(SMALL)
    page.wait_for_function("() => notified.length > 0")
    assert page.evaluate("notified") == [f"Study {fresh[:8]} waits for a reader"]
