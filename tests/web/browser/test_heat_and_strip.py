"""The heat map's threshold and outline, and the strip's numbers under the pointer, in a real browser."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_room import heat_of
from reading_page import OpenPage, opened, until, wait_for_slice

from hemoscope.testing.phantom import Phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def page(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> "Page":
    """The asymmetric phantom's reading page under the heat map of its subdural bleed, on the slice with most of it."""
    shown = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    shown.locator(".finding[data-label=subdural] .finding-head").click()
    shown.keyboard.press("Home")
    for _ in range(most_bled(asymmetric)):
        shown.keyboard.press("ArrowUp")
    wait_for_slice(shown, most_bled(asymmetric))
    return shown


def most_bled(phantom: Phantom) -> int:
    return int(phantom.masks["subdural"].sum(axis=(1, 2)).argmax())


def coloured(shown: np.ndarray) -> np.ndarray:
    return np.asarray(np.ptp(shown.astype(int), axis=2) > 60)


def box_of(mask: np.ndarray) -> np.ndarray:
    """Top, bottom, left and right of a mask, as shares of its shorter side from the middle."""
    rows, columns = np.nonzero(mask)
    high, wide = mask.shape
    ends = np.array(
        [rows.min() - high / 2, rows.max() + 1 - high / 2, columns.min() - wide / 2, columns.max() + 1 - wide / 2]
    )
    return np.asarray(ends / min(high, wide))


def test_the_outline_lies_around_the_heat_that_reaches_the_threshold(page: "Page", asymmetric: Phantom) -> None:
    filled = coloured(until(page, lambda shown: coloured(shown).any())).sum()
    page.keyboard.press("o")
    for _ in range(8):
        page.keyboard.press("}")
    assert page.locator("#heat-from").inner_text() == "Outline at 0.50"
    outline = until(page, lambda shown: 0 < coloured(shown).sum() < filled)
    heat = heat_of(asymmetric, most_bled(asymmetric), "subdural") >= round(0.5 * 255)
    cell = 1 / heat.shape[0]
    assert box_of(coloured(outline)) == pytest.approx(box_of(heat), abs=cell), "within a cell of the map"


def test_a_higher_threshold_shows_less_and_says_from_where(page: "Page") -> None:
    before = coloured(until(page, lambda shown: coloured(shown).any())).sum()
    assert page.locator("#heat-from").inner_text() == "From 0.10"
    page.locator("#threshold").fill("0.9")
    assert page.locator("#heat-from").inner_text() == "From 0.90"
    until(page, lambda shown: coloured(shown).sum() < before)
    page.keyboard.press("{")
    assert page.locator("#heat-from").inner_text() == "From 0.85"


@pytest.mark.parametrize("width", [1440, 390])
def test_pointing_at_the_strip_gives_that_slices_numbers_and_goes_nowhere(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, width: int
) -> None:
    study_id = fake.fake.add(asymmetric)
    page = opened(open_page, f"{fake.url}/studies/{study_id}", viewport={"width": width, "height": 900})
    here = page.locator("#view").get_attribute("data-slice")
    page.locator("#strip-slider").scroll_into_view_if_needed()
    box = page.locator("#strip-slider").bounding_box()
    assert box
    geometry = fake.fake.studies[study_id].entry["geometry"]
    for index in (0, 5, 11):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * (11.5 - index) / 12)
        assert page.locator(".strip-hover p").inner_text() == f"Slice {index + 1}"
        shown = [float(text) for text in page.locator(".strip-hover dd").all_text_contents()]
        assert shown == pytest.approx(geometry["probabilities"][index], abs=0.0051)
        hover = page.locator(".strip-hover").bounding_box()
        assert hover
        assert hover["x"] >= 0
        assert hover["x"] + hover["width"] <= width
    assert page.locator("#view").get_attribute("data-slice") == here
    page.mouse.move(5, 5)
    assert not page.locator(".strip-hover").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_a_map_that_shows_nothing_on_a_slice_is_named(page: "Page", asymmetric: Phantom) -> None:
    until(page, lambda shown: coloured(shown).any())
    assert page.locator("#heat-none").is_hidden()
    assert not asymmetric.masks["epidural"].any()
    page.locator(".finding[data-label=epidural] .finding-head").click()
    page.get_by_text("Nothing to show on this slice").wait_for()
    page.keyboard.press("h")
    assert page.locator("#heat-none").is_hidden()


@pytest.mark.parametrize("slab", [False, True])
def test_faint_heat_heat_below_the_threshold_and_a_map_that_does_not_come_are_named(
    page: "Page", fake: Any, slab: bool
) -> None:
    if slab:
        page.locator("#slab-mode").select_option("average")
    until(page, lambda shown: coloured(shown).any())
    page.locator("#threshold").fill("0.95")
    page.get_by_text("Nothing from 0.95 on: at most 0.94 on this slice").wait_for()
    page.locator("#threshold").fill("0.1")
    page.locator("#heat-none").wait_for(state="hidden")
    page.route("**/heatmap/subarachnoid", lambda route: route.fulfill(body=bytes([40]) * 32 * 32))
    page.locator(".strip-head", has_text="SAH").click()
    page.get_by_text("Faint: at most 0.16 on this slice").wait_for()
    page.route("**/heatmap/epidural", lambda route: route.fulfill(status=503, body="{}"))
    page.locator(".strip-head", has_text="EDH").click()
    page.get_by_text("The heat map could not be loaded").wait_for()
    page.context.close()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser's own lines about the 503
