"""Several readings of one study, and what became of its results, in a real browser."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hemoscope.testing.phantom import make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
SMALL = make_phantom(seed=1, shape=(3, 64, 64))


def test_a_later_reading_takes_the_place_of_the_earlier_one(fake: Any, open_page: OpenPage) -> None:
    earlier = fake.fake.add(SMALL)
    fake.fake.add(SMALL)
    page = open_page(fake.url)
    page.wait_for_selector("#studies tbody tr")
    later = fake.fake.add(SMALL, urgency="prompt", reading=2, earlier=[earlier])
    page.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 3")
    fake.fake.change(earlier, superseded_by=later)
    page.wait_for_function("() => document.querySelectorAll('#studies tbody tr').length === 2")
    assert page.locator(f"[data-study='{earlier}']").count() == 0
    assert "reading 2" in page.locator(f"[data-study='{later}']").inner_text()
    assert "2 studies" in page.locator("#count").inner_text()


def test_the_page_says_what_became_of_the_results_and_links_to_the_earlier_reading(
    fake: Any, open_page: OpenPage
) -> None:
    sent = {"destination": "archive", "state": "waiting", "sent_at": None, "error": "no association"}
    earlier = fake.fake.add(SMALL)
    study_id = fake.fake.add(SMALL, reading=2, earlier=[earlier], deliveries=[sent])
    page = open_page(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector(".finding")
    assert page.locator("#sent p").all_inner_texts() == [
        "Reading 2, of more images than the earlier reading",
        "Waits to be sent to archive: no association",
    ]
    assert page.locator("#sent a").get_attribute("href") == f"/studies/{earlier}"
    done = {**sent, "state": "committed", "error": "", "sent_at": "2026-03-01T10:32:00+00:00"}
    fake.fake.change(study_id, deliveries=[done])
    page.wait_for_function("() => document.querySelector('#sent').textContent.includes('committed')")
