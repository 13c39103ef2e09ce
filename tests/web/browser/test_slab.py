"""Slabs of thin series in a real browser: what is painted is the average of the phantom's slices, and is called so."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from reading_page import OpenPage, opened, picture, wait_for_slice

from hemoscope.testing.phantom import Phantom, make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIDE = 128


@pytest.fixture(scope="module")
def thin() -> Phantom:
    """A head in slices of 1 mm, noisy as such slices are."""
    return make_phantom(seed=6, shape=(60, SIDE, SIDE), spacing_mm=(1.0, 230 / SIDE, 230 / SIDE))


def reading(fake: Any, open_page: OpenPage, phantom: Phantom, index: int) -> "Page":
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(phantom, urgency='routine')}")
    go_to(page, index)
    return page


def go_to(page: "Page", index: int) -> None:
    page.keyboard.press("Home")
    for _ in range(index):
        page.keyboard.press("ArrowUp")
    wait_for_slice(page, index)


def slab_shown(page: "Page", name: str) -> None:
    page.wait_for_function("name => document.querySelector('#view').dataset.slab === name", arg=name)


def greys(page: "Page") -> np.ndarray:
    """The grey at the middle of each pixel of the slice, zoomed so that a pixel is painted without smoothing."""
    shown = picture(page)[..., 0].astype(int)
    rows, columns = shown.shape
    side = min(rows, columns)
    at = ((np.arange(SIDE) + 0.5) * side / SIDE).astype(int)
    return shown[np.ix_(at + (rows - side) // 2, at + (columns - side) // 2)]


def windowed(hounsfield: np.ndarray) -> np.ndarray:
    return np.round(np.clip(hounsfield / 80, 0, 1) * 255)


def test_a_thin_series_opens_as_the_average_of_five_millimetres_and_says_so(
    fake: Any, open_page: OpenPage, thin: Phantom
) -> None:
    page = reading(fake, open_page, thin, 30)
    slab_shown(page, "average 5")
    assert page.locator("#slab-name").inner_text() == "5 mm average"
    assert "single slice" in page.locator("#slab-caution").inner_text()
    near = thin.hounsfield[28:33].astype(float)
    inner = np.s_[40:90, 40:90]  # inside the skull, where neighbouring pixels smooth little
    errors = {
        name: float(np.abs(greys(page)[inner] - windowed(hu)[inner]).mean())
        for name, hu in {"average": near.mean(axis=0), "slice": near[2], "mip": near.max(axis=0)}.items()
    }
    assert min(errors, key=lambda name: errors[name]) == "average", errors
    for key, name in (("s", "mip"), ("s", "slice")):
        page.keyboard.press(key)
        slab_shown(page, "mip 5" if name == "mip" else "")
        hu = near.max(axis=0) if name == "mip" else near[2]
        assert np.abs(greys(page)[inner] - windowed(hu)[inner]).mean() < 3 * errors["average"] + 1
    assert page.locator("#slab-name").inner_text() == ""


def test_a_measuring_tool_shows_the_single_slice_that_it_measures(
    fake: Any, open_page: OpenPage, thin: Phantom
) -> None:
    page = reading(fake, open_page, thin, 30)
    slab_shown(page, "average 5")
    page.keyboard.press("e")
    slab_shown(page, "")
    assert page.locator("#slab-name").inner_text() == "Single slice"
    page.keyboard.press("e")
    slab_shown(page, "average 5")


def test_the_slice_stays_until_its_whole_slab_has_come(fake: Any, open_page: OpenPage, thin: Phantom) -> None:
    held: dict[str, Any] = {}
    page = open_page(fake.url)
    page.route("**/slices/29/pixels", lambda route: held.update(one=route))
    page.goto(f"{fake.url}/studies/{fake.fake.add(thin, urgency='routine')}")
    page.wait_for_selector(".finding")  # which go to their key slice
    go_to(page, 30)
    page.wait_for_function("() => document.querySelector('#slab-caution').textContent === '5 mm average is loading'")
    assert page.locator("#slab-name").inner_text() == "Single slice"
    held["one"].continue_()
    slab_shown(page, "average 5")


def test_a_slab_that_lacks_a_slice_says_which_and_may_be_tried_again(
    fake: Any, open_page: OpenPage, thin: Phantom
) -> None:
    page = open_page(fake.url)
    page.route("**/slices/29/pixels", lambda route: route.abort())
    page.goto(f"{fake.url}/studies/{fake.fake.add(thin, urgency='routine')}")
    page.wait_for_selector(".finding")  # which go to their key slice
    go_to(page, 30)
    page.get_by_text("5 mm average not possible: slice 30 could not be loaded").wait_for()
    assert page.locator("#slab-name").inner_text() == "Single slice"
    page.unroute("**/slices/29/pixels")
    page.locator("#slab-again").click()
    slab_shown(page, "average 5")
    assert not page.locator("#slab-again").is_visible()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_thickness_is_typed_kept_for_the_next_thin_study_and_never_for_a_thick_one(
    fake: Any, open_page: OpenPage, thin: Phantom, asymmetric: Phantom
) -> None:
    page = reading(fake, open_page, thin, 30)
    page.fill("#slab-mm", "9")
    page.keyboard.press("Enter")
    page.keyboard.press(".")
    slab_shown(page, "average 10")
    page.goto(f"{fake.url}/studies/{fake.fake.add(thin, urgency='routine')}")
    slab_shown(page, "average 10")
    page.goto(f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    page.wait_for_selector(".finding")
    wait_for_slice(page)
    assert page.locator("#slab-mode").input_value() == "off"
    assert page.locator("#slab-name").inner_text() == ""


def test_no_slab_is_offered_where_the_positions_are_assumed(fake: Any, open_page: OpenPage, thin: Phantom) -> None:
    url = f"{fake.url}/studies/{fake.fake.add(thin, urgency='routine', geometry={'assumed': True})}"
    page = opened(open_page, url)
    assert page.locator("#slab-mode").is_disabled()
    page.keyboard.press("s")
    assert page.locator("#slab-name").inner_text() == ""


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_nothing_scrolls_sideways_or_is_printed_over(fake: Any, open_page: OpenPage, thin: Phantom, width: int) -> None:
    url = f"{fake.url}/studies/{fake.fake.add(thin, urgency='routine')}"
    page = opened(open_page, url, viewport={"width": width, "height": 900})
    slab_shown(page, "average 5")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    places = "document.querySelectorAll('#corner-slice, #slab-name, #slab-caution, #corner-window, #mark-top')"
    boxes = page.evaluate(f"[...{places}].map(e => e.getBoundingClientRect().toJSON())")
    for place, a in enumerate(boxes):
        for b in boxes[place + 1 :]:
            apart = (
                a["right"] <= b["left"] or b["right"] <= a["left"] or a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
            )
            assert apart, (a, b)
