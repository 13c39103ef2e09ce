"""Another series beside the one that was read: at the same place of the table, with a window of its own."""

import base64
import dataclasses
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from accessibility import faults
from PIL import Image
from reading_page import wait_until

from hemoscope.testing.phantom import Phantom, make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
THIN = make_phantom(seed=3, shape=(21, 256, 256), spacing_mm=(2.0, 0.9, 0.9))
OTHER = "#beside canvas"


@pytest.fixture
def both(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> "Page":
    study_id = fake.fake.add(asymmetric)
    page = open_page(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector(".finding")
    assert page.locator("#beside-choice").is_hidden()
    fake.fake.add_series(study_id, THIN, "2 mm, kernel H60s")  # after the findings, as the worker does
    page.locator("#beside-choice").wait_for()
    page.keyboard.press("x")
    page.wait_for_function(f"() => document.querySelector('{OTHER}')?.dataset.rendered")
    return page


def shown(page: "Page") -> tuple[int, int]:
    """Which slice of the read series and of the other one are asked for."""
    return tuple(int(page.get_attribute(one, "data-slice") or -1) for one in ("#view", OTHER))  # type: ignore[return-value]


def middles(phantom: Phantom) -> np.ndarray:
    """LPS z of each slice's middle; the phantom's slices are not tilted."""
    origins = phantom.volume.origins_mm
    assert origins is not None
    return np.array([z for _, _, z in origins])


def test_the_slice_at_the_same_position_is_beside_it_and_scrolling_leads_both_ways(
    both: "Page", asymmetric: Phantom
) -> None:
    read, thin = middles(asymmetric), middles(THIN)
    for key in ("Home", "PageUp", "ArrowUp", "End"):
        both.keyboard.press(key)
        mine, other = shown(both)
        assert abs(thin[other] - read[mine]) == np.abs(thin - read[mine]).min()
    before = shown(both)[1]
    both.locator(OTHER).hover()
    for _ in range(4):
        both.mouse.wheel(0, 120)
    arrived = "([selector, slice]) => document.querySelector(selector).dataset.slice === slice"
    both.wait_for_function(arrived, arg=[OTHER, str(before - 4)])
    mine, other = shown(both)
    assert abs(read[mine] - thin[other]) == np.abs(read - thin[other]).min()


def test_the_page_says_that_it_is_not_read_and_where_no_slice_lies(both: "Page", asymmetric: Phantom) -> None:
    both.keyboard.press("Home")
    words = both.locator("#beside").inner_text()
    assert "Not read by the model" in words
    assert "2 mm, kernel H60s" in words
    away = np.abs(middles(THIN) - middles(asymmetric)[0]).min()
    assert f"the nearest is {away:.0f} mm away" in words
    both.keyboard.press("PageUp")
    assert "away" not in both.locator("#beside").inner_text()


def test_its_window_is_its_own_and_a_bone_kernel_opens_in_the_bone_window(both: "Page") -> None:
    assert both.get_attribute(OTHER, "data-window") == "600/2800"
    both.keyboard.press("2")
    assert both.get_attribute(OTHER, "data-window") == "600/2800"
    both.get_by_label("Window of the other series").select_option("1")
    assert both.get_attribute(OTHER, "data-window") == "40/80"
    assert both.get_attribute("#view", "data-window") == "80/200"
    both.keyboard.press("x")
    assert both.locator("#beside").is_hidden()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (768, 1024), (390, 844)])
def test_nothing_is_clipped_on_smaller_screens(both: "Page", width: int, height: int) -> None:
    both.set_viewport_size({"width": width, "height": height})
    assert both.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = both.locator(OTHER).bounding_box()
    assert box is not None
    assert box["width"] > 150
    assert box["height"] > 150


def test_a_slice_that_is_late_or_lost_is_said_until_it_has_come(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    fake.fake.add_series(study_id, THIN, "2 mm, kernel H60s")
    page = open_page(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector(".finding")
    held: list[Any] = []
    last = "**/series/1/slices/20/pixels"
    page.route(last, lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.keyboard.press("Home")
    page.keyboard.press("x")
    page.wait_for_function(f"() => document.querySelector('{OTHER}')?.dataset.rendered === '0'")
    page.keyboard.press("z")
    page.locator(OTHER).hover()
    for _ in range(20):
        page.mouse.wheel(0, -120)
    message = page.locator("#beside .stage-message")
    message.get_by_text("Loading slice 21", exact=True).wait_for()
    wait_until(page, lambda: held)
    for route in held:
        route.abort()
    message.get_by_text("The server does not answer.").wait_for()
    held.clear()
    page.keyboard.press("2")  # the page follows the window of the other side, and asks for the slice again
    wait_until(page, lambda: held)
    page.wait_for_timeout(300)  # what would replace the error has done so
    assert "The server does not answer." in message.inner_text()
    assert page.get_attribute(OTHER, "data-rendered") != "20"
    for route in held:
        route.continue_()
    message.wait_for(state="hidden")
    assert page.get_attribute(OTHER, "data-slice") == "20"
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_a_tilted_gantry_shows_the_reports_position_and_with_another_series_the_tables_height(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    step, row_mm, column_mm = asymmetric.spacing_mm
    count, rows, columns = asymmetric.hounsfield.shape
    tilt = np.radians(20)
    down = np.array([0.0, np.cos(tilt), -np.sin(tilt)])
    first = np.array([-columns / 2 * column_mm, -150.0, 700.0])
    origins = [first + np.array([0.0, 0.0, index * step / np.cos(tilt)]) for index in range(count)]
    middles = [origin + down * row_mm * (rows - 1) / 2 for origin in origins]
    normal = np.cross([1.0, 0.0, 0.0], down)
    along = [float(origin @ normal) for origin in origins]
    geometry = {
        "orientation": [1.0, 0.0, 0.0, *down.tolist()],
        "origins_mm": [one.tolist() for one in origins],
        "positions_mm": along,
    }
    study_id = fake.fake.add(asymmetric, geometry=geometry)
    kept = {"number": 1, "description": "tilted", "geometry": fake.fake.studies[study_id].entry["geometry"]}
    fake.fake.others[study_id] = asymmetric
    fake.fake.change(study_id, series=[kept], kept_series=1)
    page = open_page(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector(".finding")
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    place = page.locator("#corner-slice")
    assert place.inner_text().split() == ["6", "/", "12", f"{along[5]:.1f}", "mm"]
    page.keyboard.press("x")
    for words in ("#corner-slice", "#beside .corner-tl p >> nth=0"):
        heights = ["6", "/", "12", "table", f"{middles[5][2]:.1f}", "mm"]
        assert page.locator(words).inner_text().split() == heights, words
    page.keyboard.press("x")
    assert place.inner_text().split() == ["6", "/", "12", f"{along[5]:.1f}", "mm"]


def test_a_series_that_comes_together_with_a_mark_is_offered(fake: Any, open_page: OpenPage) -> None:
    study_id = fake.fake.add(THIN)
    page = open_page(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector(".finding")
    claim = {"by": "agnes", "since": "2026-03-02T09:00:00Z"}
    fake.fake.add_series(study_id, THIN, "2 mm, kernel H60s", claim=claim)
    page.locator("#beside-choice").wait_for()


def head(page: "Page", selector: str, side: int = 240) -> np.ndarray:
    """The grey of the middle of a stage, (side, side) CSS pixels."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    data = page.evaluate(f"document.querySelector('{selector}').toDataURL().split(',')[1]")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")).astype(float)
    top, left = ((length - side) // 2 for length in shown.shape)
    return shown[top : top + side, left : left + side]


def apart(page: "Page") -> float:
    """How far the middles of both stages are from each other, in grey levels."""
    return float(np.abs(head(page, "#view") - head(page, OTHER)).mean())


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (768, "dark"), (390, "light")])
def test_zoom_and_pan_are_linked_in_millimetres_until_they_are_unlinked(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, width: int, scheme: str
) -> None:
    # The same head in a field of view of half the size: only in millimetres of the patient do they lie alike.
    middle = asymmetric.hounsfield[:, 64:192, 64:192].copy()
    narrow = dataclasses.replace(asymmetric, hounsfield=middle)
    study_id = fake.fake.add(asymmetric)
    fake.fake.add_series(study_id, narrow, "5 mm, kernel H30s")
    page = open_page(f"{fake.url}/studies/{study_id}", viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page.wait_for_selector(".finding")
    for key in ("h", "x"):
        page.keyboard.press(key)
    page.wait_for_function(f"() => document.querySelector('{OTHER}')?.dataset.rendered")
    page.keyboard.press("r")
    for _ in range(4):
        page.keyboard.press("+")
    wait_until(page, lambda: apart(page) < 3)
    page.set_viewport_size({"width": width, "height": 1100})  # another stage for both: still the same part of the head
    wait_until(page, lambda: apart(page) < 3)
    before = head(page, "#view")
    stage = page.locator("#beside canvas").bounding_box()
    assert stage
    at = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(*at)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(at[0] + 24, at[1] + 10, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    wait_until(page, lambda: apart(page) < 3 and np.abs(head(page, "#view") - before).mean() > 5)
    moved = head(page, "#view")
    assert np.abs(moved[40:200, 64:200] - before[30:190, 40:176]).mean() < 3, "the slice went where the mouse went"
    assert not faults(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("z")
    page.get_by_text("Not linked", exact=True).wait_for()
    other, before_shown = head(page, OTHER), shown(page)
    for key in ("+", "+", "ArrowUp"):
        page.keyboard.press(key)
    wait_until(page, lambda: apart(page) > 5)
    assert np.abs(head(page, OTHER) - other).mean() < 2, "it stays, drawn plainly or at its best"
    assert shown(page) == (before_shown[0] + 1, before_shown[1])
    page.keyboard.press("z")
    wait_until(page, lambda: apart(page) < 3)
    assert shown(page)[0] == shown(page)[1]
    assert page.get_attribute(OTHER, "data-window") == "40/80"
    page.keyboard.press("3")
    assert page.get_attribute(OTHER, "data-window") == "40/80", "windows are not linked"
