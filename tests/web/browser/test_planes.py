"""Coronal and sagittal planes in a real browser, compared with the phantom's own numbers."""

import base64
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from accessibility import faults
from PIL import Image
from reading_page import OpenPage, opened, wait_for_slice

from hemoscope.testing.phantom import Phantom, make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page

THIN = make_phantom(seed=6, shape=(48, 184, 184), spacing_mm=(1.25, 1.25, 1.25))
MIDDLE = 128  # row and column of the cross-hair when the planes open


def stored(phantom: Phantom, mirrored: bool, upside_down: bool) -> tuple[Phantom, dict[str, Any]]:
    """The same head in another order of columns and rows, and the geometry that says so."""
    _, rows_mm, columns_mm = phantom.spacing_mm
    _, rows, columns = phantom.hounsfield.shape
    right, down = -1.0 if mirrored else 1.0, -1.0 if upside_down else 1.0
    x, y = (-side * (count - 1) / 2 * mm for side, count, mm in ((right, columns, columns_mm), (down, rows, rows_mm)))
    turned = phantom.hounsfield[:, :: int(down), :: int(right)]
    geometry = {
        "orientation": [right, 0.0, 0.0, 0.0, down, 0.0],
        "origins_mm": [[x, y, z] for z in phantom.positions_mm],
    }
    return dataclasses.replace(phantom, hounsfield=np.ascontiguousarray(turned)), geometry


def with_planes(fake: Any, open_page: OpenPage, phantom: Phantom, **options: Any) -> "Page":
    geometry = options.pop("geometry", None)
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(phantom, geometry=geometry)}", **options)
    page.keyboard.press("h")
    page.keyboard.press("m")
    page.wait_for_function(
        "n => document.querySelector('#planes').dataset.come === n", arg=str(len(phantom.hounsfield))
    )
    for plane in ("coronal", "sagittal"):
        page.wait_for_selector(f".plane[data-plane={plane}][data-of='{len(phantom.hounsfield)}'][data-drawn]")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page


def places(page: "Page", plane: str, phantom: Phantom, across: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """Where pixels of the phantom lie on a plane's canvas, in CSS pixels: (slices, across, 2)."""
    box = page.locator(f".plane[data-plane={plane}] canvas").bounding_box()
    assert box
    step_mm, side_mm, _ = phantom.spacing_mm
    columns, rows = phantom.hounsfield.shape[2], round(len(phantom.hounsfield) * step_mm / side_mm)
    scale = min(box["width"] / columns, box["height"] / rows)
    x = (box["width"] - columns * scale) / 2 + (across + 0.5) * scale
    y = (box["height"] + rows * scale) / 2 - (slices + 0.5) * step_mm / side_mm * scale
    return np.stack(np.meshgrid(x, y), axis=-1)


def greys(page: "Page", plane: str, at: np.ndarray) -> np.ndarray:
    data = page.evaluate(f"document.querySelector('.plane[data-plane={plane}] canvas').toDataURL().split(',')[1]")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")).astype(float)
    return np.asarray(shown[at[..., 1].astype(int), at[..., 0].astype(int)])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("upside_down", [False, True])
def test_planes_show_the_phantom_head_up_and_on_its_sides_however_it_is_stored(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, mirrored: bool, upside_down: bool
) -> None:
    phantom, geometry = stored(asymmetric, mirrored, upside_down)
    page = with_planes(fake, open_page, phantom, geometry=geometry)
    across, slices = np.r_[8:118:3, 139:248:3], np.arange(len(phantom.hounsfield))  # beside the cross-hair
    for plane, axis in (("coronal", 1), ("sagittal", 2)):
        shown = greys(page, plane, places(page, plane, asymmetric, across, slices))
        # Of a stack stored the other way, pixel 128 is the 127th from the other side.
        middle = MIDDLE - (upside_down if plane == "coronal" else mirrored)
        expected = np.clip(asymmetric.hounsfield.take(middle, axis)[np.ix_(slices, across)] / 80, 0, 1) * 255
        errors = np.abs(np.stack([shown - expected, shown - expected[::-1], shown - expected[:, ::-1]]))
        off = (errors > 60).mean(axis=(1, 2))
        assert np.median(errors[0][(expected > 20) & (expected < 240)]) < 6, "grey by grey, within the noise"
        assert off[0] < 0.1, (plane, off)  # at the edges of bone, and under the lines of the cross-hair
        assert off[0] < 0.8 * off[1:].min(), (plane, off)  # the head is nearly symmetric from front to back
    for plane, letters in (("coronal", ["R", "L", "H", "F"]), ("sagittal", ["A", "P", "H", "F"])):
        edges = [
            page.locator(f".plane[data-plane={plane}] .mark-{edge}") for edge in ("left", "right", "top", "bottom")
        ]
        assert [edge.inner_text() for edge in edges] == letters


def test_the_cross_hair_links_the_slice_and_the_planes(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = with_planes(fake, open_page, asymmetric)
    before = page.locator(".plane[data-plane=sagittal]").get_attribute("data-drawn")
    ((place,),) = places(page, "coronal", asymmetric, np.array([180]), np.array([8]))
    page.locator(".plane[data-plane=coronal]").click(position={"x": float(place[0]), "y": float(place[1])})
    wait_for_slice(page, 8)
    x_mm = (180 + 0.5 - 128) * asymmetric.spacing_mm[2]
    drawn = "x => Math.abs(Number(document.querySelector('.plane[data-plane=sagittal]').dataset.drawn) - x) < 1"
    page.wait_for_function(drawn, arg=x_mm)
    assert page.locator(".plane[data-plane=sagittal]").get_attribute("data-drawn") != before
    box = page.locator("#stage").bounding_box()
    assert box
    side = min(box["width"], box["height"])
    page.mouse.click(box["x"] + box["width"] / 2 - side / 4, box["y"] + box["height"] / 2)
    page.wait_for_function(drawn, arg=-asymmetric.spacing_mm[2] * 64)
    assert page.locator("#corner-window").inner_text().startswith("Brain"), "a click windows nothing"


def test_planes_follow_the_window_and_close(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = with_planes(fake, open_page, asymmetric)
    at = places(page, "coronal", asymmetric, np.arange(8, 248, 3), np.arange(12))
    brain = greys(page, "coronal", at)
    page.keyboard.press("3")
    assert greys(page, "coronal", at).mean() < brain.mean(), "bone is not all white in its own window"
    page.keyboard.press("m")
    assert not page.locator("#planes").is_visible()


def test_the_wheel_over_a_plane_goes_through_the_planes(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = with_planes(fake, open_page, asymmetric)
    coronal = page.locator(".plane[data-plane=coronal]")
    before = float(coronal.get_attribute("data-drawn") or "nan")
    coronal.hover()
    page.mouse.wheel(0, 120)
    moved = "y => Math.abs(Number(document.querySelector('.plane[data-plane=coronal]').dataset.drawn) - y) < 0.02"
    page.wait_for_function(moved, arg=before + 2)


@pytest.mark.parametrize(("mirrored", "upside_down"), [(False, False), (True, False), (False, True)])
def test_the_arrow_keys_move_the_cross_hair_of_the_planes_as_the_screen_shows_it(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, mirrored: bool, upside_down: bool
) -> None:
    phantom, geometry = stored(asymmetric, mirrored, upside_down)
    page = with_planes(fake, open_page, phantom, geometry=geometry)
    for plane, other, name in (("coronal", "sagittal", "Coronal plane"), ("sagittal", "coronal", "Sagittal plane")):
        canvas = page.locator(f".plane[data-plane={plane}] canvas")
        assert (canvas.get_attribute("aria-label") or "").startswith(name)
        drawn = page.locator(f".plane[data-plane={other}]")
        canvas.focus()
        before = float(drawn.get_attribute("data-drawn") or "nan")
        for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Shift+ArrowLeft"):
            page.keyboard.press(key)
        moved = "([at, mm]) => Math.abs(document.querySelector(at).dataset.drawn - mm) < 0.02"
        mm = (3 - 5) * asymmetric.spacing_mm[2]
        page.wait_for_function(moved, arg=[f".plane[data-plane={other}]", before + mm])
        index = int(page.get_attribute("#view", "data-slice") or -1)
        page.keyboard.press("ArrowUp")
        wait_for_slice(page, index + 1)
        page.keyboard.press("ArrowDown")
        wait_for_slice(page, index)
    assert not faults(page)
    canvas.click()
    assert canvas.evaluate("node => node !== document.activeElement"), "after a click the arrows scroll slices"


@pytest.mark.parametrize("missing", [{"assumed": True}, {"origins_mm": None}, {"orientation": None}])
def test_planes_are_refused_where_the_places_of_the_slices_are_unknown(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, missing: dict[str, Any]
) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric, geometry=missing)}")
    assert page.locator("#planes-button").is_disabled()
    page.keyboard.press("m")
    assert not page.locator("#planes").is_visible()


def test_a_slice_that_cannot_be_loaded_is_said_beside_the_planes(fake: Any, open_page: OpenPage) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(THIN)}")
    page.route("**/pixels?first=1&*", lambda route: route.abort())
    page.keyboard.press("m")
    page.get_by_text("the planes are not complete").wait_for()
    page.wait_for_selector(".plane[data-plane=coronal][data-drawn]")
    assert "the planes are not complete" in page.locator("#planes-state").inner_text(), "what came later hides it not"
    page.unroute("**/pixels?first=1&*")
    for _ in range(2):
        page.keyboard.press("m")
    page.wait_for_function("() => document.querySelector('#planes-state').textContent === ''")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_a_program_for_planes_that_does_not_run_is_said(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    page.route("**/planes_worker.js*", lambda route: route.abort())
    page.keyboard.press("m")
    page.get_by_text("The program that cuts the planes stopped: the planes are not complete").wait_for()
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (768, "dark"), (390, "light")])
def test_a_coarse_plane_comes_first_and_says_what_is_missing_then_all_slices(
    fake: Any, open_page: OpenPage, width: int, scheme: str
) -> None:
    held: list[Any] = []
    url = f"{fake.url}/studies/{fake.fake.add(THIN)}"
    page = opened(open_page, url, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.keyboard.press("h")
    for later in (1, 2):  # the passes between the slices of the first
        page.route(f"**/pixels?first={later}&*", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.keyboard.press("m")
    page.get_by_text("12 of 48 slices, interpolated between them").wait_for()
    page.wait_for_selector(".plane[data-plane=coronal][data-drawn]")
    full, middle = THIN.hounsfield[:, 92].astype(float), np.r_[40:82:2, 104:146:2]
    heights = np.arange(48)
    coarse = np.stack([np.interp(heights, heights[::4], column) for column in full[::4].T], axis=-1)
    inner = np.arange(6, 42)

    def errors() -> tuple[float, float]:
        """How far the plane shown is from the coarse and from the whole one, in grey levels."""
        shown = greys(page, "coronal", places(page, "coronal", THIN, middle, inner))
        pair = [np.abs(shown - np.clip(one[np.ix_(inner, middle)] / 80, 0, 1) * 255).mean() for one in (coarse, full)]
        return float(pair[0]), float(pair[1])

    assert errors()[0] < 0.75 * errors()[1], errors()
    assert not faults(page)
    for route in held:
        route.continue_()
    page.wait_for_selector(".plane[data-plane=coronal][data-of='48'][data-drawn]")
    page.wait_for_function("() => document.querySelector('#planes-state').textContent === ''")
    assert errors()[1] < 0.75 * errors()[0], errors()  # a phone shows it smaller
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for _ in range(2):
        page.keyboard.press("m")
    page.wait_for_selector(".plane[data-plane=coronal][data-drawn]")
    assert not [one for one in requests if "/pixels" in one], "the slices were kept"


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_open_planes_scroll_nothing_sideways(fake: Any, open_page: OpenPage, asymmetric: Phantom, width: int) -> None:
    page = with_planes(fake, open_page, asymmetric, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    boxes = [page.locator(name).bounding_box() for name in ("#stage", ".plane >> nth=0", ".plane >> nth=1")]
    assert all(box and min(box["width"], box["height"]) > 150 for box in boxes), boxes
