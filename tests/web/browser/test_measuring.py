"""Measuring on a slice in a real browser, with numbers checked against the phantom."""

import re
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from accessibility import faults
from reading_page import OpenPage, clear_failed_request, opened, picture, wait_for_slice, wait_until

from hemoscope.testing.phantom import Phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def page(real: Any, real_study: str, open_page: OpenPage) -> "Page":
    """The reading page of a study without measurements, on its sixth slice."""
    measurements = f"{real.url}/api/v1/studies/{real_study}/measurements"
    with httpx.Client() as client:
        token = client.get(f"{real.url}/api/v1/site").json()["csrf_token"]
        for one in client.get(measurements).json()["measurements"]:
            address = f"{measurements}/{one['measurement_id']}"
            client.delete(address, headers={"X-CSRF-Token": token}).raise_for_status()
    shown = opened(open_page, f"{real.url}/studies/{real_study}")
    shown.keyboard.press("Home")
    for _ in range(5):
        shown.keyboard.press("ArrowUp")
    wait_for_slice(shown, 5)
    return shown


def drag(page: "Page", key: str, start: tuple[float, float], end: tuple[float, float], phantom: Phantom) -> list[float]:
    """Drag with a tool between two places, given as shares of the slice; returns them as pixels, row and column."""
    page.keyboard.press(key)
    pull(page, start, end)
    page.mouse.up()
    page.wait_for_selector("#measurements li")
    _, rows, columns = phantom.hounsfield.shape
    return [share * side for share, side in zip((*start, *end), (rows, columns) * 2, strict=True)]


def pull(page: "Page", start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press the button at one place, given as shares of the slice, and move to the other."""
    box = page.locator("#stage").bounding_box()
    assert box
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    places = [(left + side * column, top + side * row) for row, column in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)


def kept(page: "Page") -> dict[str, Any]:
    found = page.request.get(page.url.replace("/studies/", "/api/v1/studies/") + "/measurements").json()["measurements"]
    return dict(found[-1])


def test_a_ruler_is_right_within_half_a_pixel(page: "Page", asymmetric: Phantom) -> None:
    top, left, bottom, right = drag(page, "l", (0.3, 0.25), (0.6, 0.7), asymmetric)
    _, row_mm, column_mm = asymmetric.spacing_mm
    length = float(np.hypot((bottom - top) * row_mm, (right - left) * column_mm))
    assert kept(page)["found"]["length_mm"] == pytest.approx(length, abs=max(row_mm, column_mm) / 2)
    assert f"{kept(page)['found']['length_mm']:.1f} mm" in page.locator("#measurements").inner_text()


@pytest.mark.parametrize(("key", "kind"), [("e", "ellipse"), ("b", "rectangle")])
def test_a_regions_values_are_those_of_the_phantoms_pixels(
    page: "Page", asymmetric: Phantom, key: str, kind: str
) -> None:
    drag(page, key, (0.4, 0.35), (0.6, 0.65), asymmetric)
    one = kept(page)
    assert (one["kind"], one["slice"]) == (kind, 5)
    (top, left), (bottom, right) = one["points"]
    slice_ = asymmetric.hounsfield[5]
    rows, columns = np.meshgrid(np.arange(slice_.shape[0]) + 0.5, np.arange(slice_.shape[1]) + 0.5, indexing="ij")
    up, across = (
        (rows - (top + bottom) / 2) / ((bottom - top) / 2),
        (columns - (left + right) / 2) / ((right - left) / 2),
    )
    inside = slice_[np.maximum(abs(up), abs(across)) <= 1 if kind == "rectangle" else up**2 + across**2 <= 1]
    found = one["found"]
    assert (found["pixels"], found["lowest_hu"], found["highest_hu"]) == (len(inside), inside.min(), inside.max())
    assert found["mean_hu"] == pytest.approx(inside.mean(), abs=1e-9)
    assert found["sd_hu"] == pytest.approx(inside.std(), abs=1e-9)
    assert f"{inside.mean():.1f} HU  SD {inside.std():.1f}" in str(page.locator(".mark-words").text_content())


def test_a_measurement_is_in_the_report_and_can_be_deleted(page: "Page", asymmetric: Phantom) -> None:
    drag(page, "l", (0.3, 0.3), (0.3, 0.6), asymmetric)
    report = page.request.get(page.url.replace("/studies/", "/api/v1/studies/") + "/report.html").text()
    assert f"Slice 6, length: {kept(page)['found']['length_mm']:.1f} mm" in report
    page.reload()
    page.wait_for_selector("#measurements li")
    page.get_by_role("button", name="Delete the length on slice 6").click()
    page.wait_for_selector("#measurements li", state="detached")
    report = page.request.get(page.url.replace("/studies/", "/api/v1/studies/") + "/report.html").text()
    assert "What readers measured" not in report


def listed(page: "Page") -> list[dict[str, Any]]:
    address = page.url.replace("/studies/", "/api/v1/studies/") + "/measurements"
    return list(page.request.get(address).json()["measurements"])


def test_nothing_is_measured_or_deleted_on_a_slice_that_is_not_seen(page: "Page") -> None:
    held: list[Any] = []
    page.route("**/slices/11/pixels", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.reload()
    page.wait_for_selector(".finding")
    page.keyboard.press("Home")
    wait_for_slice(page, 0)
    box = page.locator("#stage").bounding_box()
    assert box
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.press("c")
    page.mouse.click(*at)
    page.wait_for_selector("#measurements li")
    page.keyboard.press("End")
    page.mouse.click(*at)
    page.keyboard.press("Delete")
    wait_until(page, lambda: held)
    held.pop().continue_()
    wait_for_slice(page, 11)
    page.keyboard.press("Delete")
    page.mouse.click(*at)
    page.locator("#measurements li").nth(1).wait_for()
    assert [one["slice"] for one in listed(page)] == [0, 11]


def test_a_drag_ends_without_a_measurement_if_the_slice_changes(page: "Page") -> None:
    box = page.locator("#stage").bounding_box()
    assert box
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.keyboard.press("l")
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 50, at[1], steps=3)
    page.keyboard.press("ArrowUp")
    wait_for_slice(page, 6)
    page.mouse.move(at[0] + 90, at[1], steps=3)
    page.mouse.up()
    page.mouse.down()
    page.mouse.move(at[0], at[1] + 60, steps=3)
    page.mouse.up()
    page.wait_for_selector("#measurements li")
    assert [one["slice"] for one in listed(page)] == [6]


def probe(page: "Page", *offsets: int) -> None:
    """Measure HU at points so many pixels below the middle of the stage."""
    box = page.locator("#stage").bounding_box()
    assert box
    page.keyboard.press("c")
    for offset in offsets:
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + offset)
    page.keyboard.press("c")
    page.locator("#measurements li").nth(len(offsets) - 1).wait_for()


def test_what_another_page_measures_and_deletes_is_seen_and_leaves_the_focus(page: "Page", open_page: OpenPage) -> None:
    other = opened(open_page, page.url)
    other.keyboard.press("Home")
    probe(page, 0)
    delete = other.get_by_role("button", name="Delete the HU at a point on slice 6")
    delete.focus()
    other.keyboard.press("c")
    other.locator("#stage").click()
    page.locator("#measurements li").nth(1).wait_for()
    other.locator("#measurements li").nth(1).wait_for()
    delete.focus()
    probe(page, 0, 40)
    other.locator("#measurements li").nth(3).wait_for()
    assert other.evaluate("document.activeElement.ariaLabel") == "Delete the HU at a point on slice 6"
    for _ in range(3):
        page.keyboard.press("Delete")
    other.wait_for_function("() => document.querySelectorAll('#measurements li').length === 1")
    assert other.locator("#measurements li").inner_text().startswith("Slice 1")


def test_a_held_key_deletes_one_measurement_and_a_second_press_not_the_same_again(page: "Page") -> None:
    probe(page, 0, 40)
    held: list[Any] = []
    asked = "**/measurements/*"
    page.route(asked, lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    for _ in range(4):
        page.keyboard.down("Delete")  # the first is a press, the others are repeats
    page.keyboard.up("Delete")
    wait_until(page, lambda: held)
    page.evaluate("() => fetch('/api/v1/site')")  # what the keys have asked for came before
    assert len(held) == 1
    for _ in range(3):
        page.keyboard.press("Delete")
    wait_until(page, lambda: len(held) > 1)
    page.evaluate("() => fetch('/api/v1/site')")
    assert len({route.request.url for route in held}) == len(held) == 2
    for route in held:
        route.continue_()
    page.wait_for_selector("#measurements li", state="detached")
    assert listed(page) == []


def test_a_measurement_that_another_reader_has_deleted_is_deleted(page: "Page", real: Any) -> None:
    probe(page, 0)
    (one,) = listed(page)
    address = page.url.replace("/studies/", "/api/v1/studies/") + f"/measurements/{one['measurement_id']}"
    token = page.request.get(f"{real.url}/api/v1/site").json()["csrf_token"]

    def late(route: Any) -> None:
        httpx.delete(address, headers={"X-CSRF-Token": token}).raise_for_status()
        route.continue_()

    page.route("**/measurements/*", late)
    page.keyboard.press("Delete")
    page.wait_for_selector("#measurements li", state="detached")
    assert page.locator("#measurements .problem").count() == 0
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the 404


def test_the_delete_key_leaves_what_another_reader_has_measured_since(page: "Page") -> None:
    probe(page, 0)
    (mine,) = listed(page)
    theirs = {**mine, "measurement_id": mine["measurement_id"] + 1, "by": "agnes"}
    asked: list[str] = []

    def with_theirs(route: Any) -> None:
        if route.request.method == "GET":
            gone = any(one.startswith("DELETE") for one in asked)
            route.fulfill(json={"measurements": [theirs] if gone else [mine, theirs]})
        else:
            route.continue_()

    page.route("**/measurements", with_theirs)
    page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    page.reload()
    page.wait_for_selector(".finding")
    page.locator("#measurements li").nth(1).wait_for()
    page.keyboard.press("Home")
    press(page, ArrowUp=5)
    wait_for_slice(page, 5)
    page.keyboard.press("Delete")
    page.wait_for_function("() => document.querySelectorAll('#measurements li').length === 1")
    page.keyboard.press("Delete")
    page.evaluate("() => fetch('/api/v1/site')")  # what the keys have asked for came before
    deleted = [one.rpartition("/")[2] for one in asked if one.startswith("DELETE") and "/measurements/" in one]
    assert deleted == [str(mine["measurement_id"])]
    page.unroute("**/measurements")


def test_two_clicks_at_one_place_measure_and_reset_nothing(page: "Page") -> None:
    page.keyboard.press("3")
    page.keyboard.press("c")
    page.locator("#stage").dblclick()
    page.locator("#measurements li").nth(1).wait_for()
    assert page.locator("#corner-window").inner_text().startswith("Bone")
    page.keyboard.press("c")
    page.locator("#stage").dblclick()
    assert page.locator("#corner-window").inner_text().startswith("Brain")


def press(page: "Page", **times: int) -> None:
    """Press keys so many times each: ``Shift_ArrowUp=3``."""
    for key, count in times.items():
        for _ in range(count):
            page.keyboard.press(key.replace("_", "+"))


@pytest.mark.parametrize(("key", "kind"), [("l", "length"), ("b", "rectangle")])
def test_a_measurement_between_two_points_needs_no_pointer(
    page: "Page", asymmetric: Phantom, key: str, kind: str
) -> None:
    press(page, **{key: 1}, Enter=1)
    page.locator("#view:focus").wait_for()
    assert page.locator("#measure-keys").is_visible()
    press(page, Enter=1, Shift_ArrowRight=3, ArrowLeft=2, Shift_ArrowUp=1, ArrowDown=4)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    said = page.locator("#corner-hu").inner_text()
    press(page, Enter=1)
    page.wait_for_selector("#measurements li")
    one = kept(page)
    (row, column), end = one["points"]
    assert (one["kind"], one["slice"]) == (kind, 5)
    slice_ = asymmetric.hounsfield[5]
    _, row_mm, column_mm = asymmetric.spacing_mm
    found = one["found"]
    if kind == "length":
        assert end == [row - 6, column + 28]
        top, right = int(end[0]), int(end[1])
        assert found["length_mm"] == pytest.approx(np.hypot(6 * row_mm, 28 * column_mm))
    else:
        assert end == [row - 7, column + 29], "the pixels at both points are within"
        top, right = int(end[0]), int(end[1]) - 1
        inside = slice_[top : int(row), int(column) : right + 1]
        assert (found["pixels"], found["mean_hu"]) == (inside.size, pytest.approx(inside.mean(), abs=1e-9))
        assert found["area_mm2"] == pytest.approx(inside.size * row_mm * column_mm, rel=1e-5)
    assert said == f"{slice_[top, right]} HU  ({right}, {top})"


def test_a_region_by_key_along_one_row_has_the_area_of_its_pixels(page: "Page", asymmetric: Phantom) -> None:
    press(page, b=1, Enter=2, ArrowLeft=4)
    press(page, Enter=1)
    page.wait_for_selector("#measurements li")
    _, row_mm, column_mm = asymmetric.spacing_mm
    found = kept(page)["found"]
    assert (found["pixels"], found["area_mm2"]) == (5, pytest.approx(5 * row_mm * column_mm, rel=1e-5))


@pytest.mark.parametrize("key", ["ArrowLeft", "Enter"])
def test_a_key_on_a_slice_that_is_still_loading_says_so(page: "Page", asymmetric: Phantom, key: str) -> None:
    held: list[Any] = []
    page.route("**/slices/11/pixels", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.reload()
    page.wait_for_selector(".finding")
    press(page, Home=1, c=1, Enter=1)
    wait_for_slice(page, 0)
    page.locator("#view:focus").wait_for()
    press(page, End=1)
    press(page, **{key: 1})
    page.locator("#announcement", has_text="Loading slice 12").wait_for(state="attached")
    wait_until(page, lambda: held)
    held.pop().continue_()
    wait_for_slice(page, 11)
    press(page, ArrowRight=1)
    page.locator("#announcement", has_text="HU").wait_for(state="attached")
    said = page.locator("#announcement").inner_text()
    value, column, row = (int(number) for number in re.findall(r"-?\d+", said))
    assert value == asymmetric.hounsfield[11, row, column]
    assert listed(page) == []


def test_a_drag_stays_the_pointers_while_keys_are_pressed(page: "Page") -> None:
    box = page.locator("#stage").bounding_box()
    assert box
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    press(page, l=1)
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 80, at[1], steps=3)
    press(page, Enter=2)
    page.locator("#view").focus()
    press(page, ArrowDown=9, Enter=2)
    page.mouse.up()
    page.wait_for_selector("#measurements li")
    (one,) = listed(page)
    (row, column), (end_row, end_column) = one["points"]
    assert end_row == row
    assert end_column > column + 9


def test_the_cross_hair_comes_into_sight_on_a_slice_that_was_moved(page: "Page") -> None:
    def inked() -> int:
        red, _, blue = np.moveaxis(picture(page).astype(int), -1, 0)
        return int((blue - red > 60).sum())  # the slice is grey

    box = page.locator("#stage").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + box["width"] * 0.95, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.05, middle, steps=3)  # its left half is out of sight
    page.mouse.up()
    page.keyboard.up("Shift")
    press(page, h=1, l=1)
    assert inked() == 0
    press(page, Enter=1, Shift_ArrowLeft=30)
    assert inked() > 40


def test_a_point_is_measured_by_one_key_and_escape_cancels_what_was_begun(page: "Page", asymmetric: Phantom) -> None:
    page.locator("#tool-probe").focus()
    press(page, Enter=1)  # the button chooses the tool, and the slice has the focus
    page.locator("#view:focus").wait_for()
    press(page, Shift_ArrowDown=2, ArrowRight=7, Enter=1)
    page.wait_for_selector("#measurements li")
    (row, column) = kept(page)["points"][0]
    assert kept(page)["found"]["lowest_hu"] == asymmetric.hounsfield[5, int(row), int(column)]
    assert not faults(page)
    press(page, e=1, Enter=1, ArrowDown=9, Escape=1)
    press(page, Enter=1, ArrowLeft=1, PageUp=1)
    wait_for_slice(page, 10)  # which cancels it too
    press(page, PageDown=1, e=1)
    wait_for_slice(page, 5)
    assert page.locator("#view:focus").count() == 0
    assert [one["kind"] for one in listed(page)] == ["probe"]


def test_the_arrows_scroll_slices_unless_the_keyboard_measures(page: "Page") -> None:
    press(page, ArrowUp=1)
    wait_for_slice(page, 6)
    page.keyboard.press("c")
    page.locator("#stage").click()
    page.wait_for_selector("#measurements li")
    press(page, ArrowDown=2)
    wait_for_slice(page, 4)
    press(page, Enter=1, ArrowUp=3)
    assert page.get_attribute("#view", "data-slice") == "4"
    press(page, c=1, ArrowUp=1)
    wait_for_slice(page, 5)
    assert page.locator("#measurements li").count() == 1


def test_lengths_are_refused_where_the_geometry_is_assumed(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric, geometry={'assumed': True})}")
    for name in ("length", "ellipse", "rectangle"):
        assert page.locator(f"#tool-{name}").is_disabled()
    assert page.locator("#tool-probe").is_enabled()


def test_a_window_is_typed_inverted_kept_for_the_next_study_and_reset(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    first, second = fake.fake.add(asymmetric), fake.fake.add(asymmetric)
    page = opened(open_page, f"{fake.url}/studies/{first}")
    page.keyboard.press("4")
    assert page.locator("#corner-window").inner_text().split() == ["Stroke", "L", "35", "W", "35"]
    page.fill("#level", "45")
    page.fill("#width", "90")
    page.keyboard.press("Enter")
    page.keyboard.press("i")
    assert page.locator("#corner-window").inner_text().split() == ["Custom", "L", "45", "W", "90", "inverted"]
    page.goto(f"{fake.url}/studies/{second}")
    page.wait_for_selector(".finding")
    assert page.locator("#corner-window").inner_text().split() == ["Custom", "L", "45", "W", "90", "inverted"]
    page.keyboard.press("r")
    assert page.locator("#corner-window").inner_text().split() == ["Brain", "L", "40", "W", "80"]


RECORD_TEXTS = """() => {
  const draw = CanvasRenderingContext2D.prototype.fillText;
  window.texts = [];
  CanvasRenderingContext2D.prototype.fillText = function (text, ...at) {
    window.texts.push(text);
    draw.call(this, text, ...at);
  };
}"""


def wait_for_another(page: "Page", old: dict[str, Any]) -> dict[str, Any]:
    """The one measurement that has replaced another on the server and on the page."""
    selector = f"[data-mark='{old['measurement_id']} place']"
    page.wait_for_selector(selector, state="detached")
    (one,) = listed(page)
    assert page.locator("#measurements li").count() == 1
    assert one["measurement_id"] != old["measurement_id"]
    return one


def test_an_end_of_a_ruler_is_corrected_by_dragging_it(page: "Page", asymmetric: Phantom) -> None:
    drag(page, "l", (0.3, 0.25), (0.6, 0.7), asymmetric)
    page.keyboard.press("l")  # with any tool
    before = kept(page)
    window = page.locator("#corner-window").inner_text()
    page.evaluate(RECORD_TEXTS)
    pull(page, (0.602, 0.703), (0.502, 0.403))  # not met in its middle
    assert page.locator("#stage[data-grab]").count() == 1
    picture(page)
    live = page.evaluate("window.texts.at(-1)")
    page.mouse.up()
    after = wait_for_another(page, before)
    side = asymmetric.hounsfield.shape[1]
    assert after["points"][0] == before["points"][0]
    assert after["points"][1] == pytest.approx([0.5 * side, 0.4 * side], abs=0.5)
    assert live == f"{after['found']['length_mm']:.1f} mm"
    assert live in page.locator("#measurements").inner_text()
    assert page.locator("#corner-window").inner_text() == window
    page.locator("#announcement", has_text=live).wait_for(state="attached")
    pull(page, (0.3, 0.25), (0.3, 0.25))
    page.mouse.up()  # a click corrects nothing
    assert listed(page) == [after]


@pytest.mark.parametrize(
    ("key", "start", "moved"), [("e", (0.5, 0.65), [1.0, 1.0, 1.0, 1.2]), ("b", (0.4, 0.65), [0.8, 1.0, 1.0, 1.2])]
)
def test_a_side_of_an_ellipse_and_a_corner_of_a_box_are_corrected_by_dragging_them(
    page: "Page", asymmetric: Phantom, key: str, start: tuple[float, float], moved: list[float]
) -> None:
    drag(page, key, (0.4, 0.35), (0.6, 0.65), asymmetric)
    before = kept(page)
    pull(page, start, (start[0] - 0.08, 0.78))  # the tool that is chosen draws no other one
    page.mouse.up()
    after = wait_for_another(page, before)
    flat = [place for point in before["points"] for place in point]
    expected = [place * factor for place, factor in zip(flat, moved, strict=True)]
    assert [place for point in after["points"] for place in point] == pytest.approx(expected, abs=0.7)
    assert after["found"]["area_mm2"] > before["found"]["area_mm2"]


def test_what_another_reader_has_measured_cannot_be_moved(page: "Page", asymmetric: Phantom) -> None:
    drag(page, "l", (0.3, 0.25), (0.6, 0.7), asymmetric)
    theirs = {**kept(page), "by": "agnes"}
    page.route("**/measurements", lambda route: route.fulfill(json={"measurements": [theirs]}))
    page.reload()
    page.wait_for_selector("#measurements li")
    wait_for_slice(page)
    press(page, Home=1, ArrowUp=5)
    wait_for_slice(page, 5)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method) if request.method != "GET" else None)
    window = page.locator("#corner-window").inner_text()
    pull(page, (0.6, 0.7), (0.5, 0.4))
    page.mouse.up()
    assert page.locator("#corner-window").inner_text() != window, "the drag was the tool's"
    press(page, l=1, Enter=1, Space=1)
    page.locator("#announcement", has_text="You have no measurement on this slice").wait_for(state="attached")
    assert asked == []
    page.unroute("**/measurements")


def test_a_correction_that_the_server_does_not_store_leaves_the_measurement(page: "Page", asymmetric: Phantom) -> None:
    drag(page, "l", (0.3, 0.25), (0.6, 0.7), asymmetric)
    before = listed(page)
    page.route("**/measurements", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    pull(page, (0.6, 0.7), (0.5, 0.4))
    page.mouse.up()
    page.wait_for_selector("#measurements .problem")
    clear_failed_request(page)
    page.unroute("**/measurements")
    assert listed(page) == before
    assert f"{before[0]['found']['length_mm']:.1f} mm" in page.locator("#measurements li").inner_text()
    pull(page, (0.6, 0.7), (0.5, 0.4))
    page.mouse.up()
    wait_for_another(page, before[0])


def test_an_end_is_corrected_by_key(page: "Page", asymmetric: Phantom) -> None:
    press(page, l=1, Enter=2, Shift_ArrowRight=3)
    press(page, Enter=1)
    page.wait_for_selector("#measurements li")
    before = kept(page)
    press(page, ArrowUp=3, Space=1, ArrowDown=4, ArrowRight=2, Enter=1)
    after = wait_for_another(page, before)
    (first, (row, column)) = before["points"]
    assert after["points"] == [first, [row + 4, column + 2]]
    press(page, Space=1, ArrowUp=4, Shift_ArrowLeft=3, ArrowLeft=2, Enter=1)  # on the start: that is no length
    press(page, Space=1, ArrowDown=9, Escape=1)
    press(page, Enter=1, ArrowLeft=5)  # Esc has let go of it: this begins another one
    press(page, Enter=1)
    page.locator("#measurements li").nth(1).wait_for()
    assert listed(page)[0] == after


def shapes(page: "Page") -> list[tuple[str, list[list[float]]]]:
    return [(one["kind"], one["points"]) for one in listed(page)]


def wait_for_announcement(page: "Page", words: str) -> None:
    page.locator("#announcement", has_text=words).wait_for(state="attached")


def test_what_was_drawn_moved_and_deleted_is_taken_back_from_the_newest_on(page: "Page", asymmetric: Phantom) -> None:
    states: list[Any] = [[]]
    drag(page, "l", (0.3, 0.25), (0.6, 0.7), asymmetric)
    states.append(shapes(page))
    before = kept(page)
    pull(page, (0.6, 0.7), (0.5, 0.4))
    page.mouse.up()
    wait_for_another(page, before)
    states.append(shapes(page))
    page.keyboard.press("Delete")
    page.wait_for_selector("#measurements li", state="detached")
    press(page, End=1)
    wait_for_slice(page, 11)
    page.keyboard.press("Control+z")
    page.wait_for_selector("#measurements li")
    assert shapes(page) == states[2]
    wait_for_slice(page, 5)  # what has changed is seen
    wait_for_announcement(page, f"Undone. Length: {kept(page)['found']['length_mm']:.1f} mm")
    before = kept(page)
    page.keyboard.press("Meta+z")
    wait_for_another(page, before)
    assert shapes(page) == states[1]
    page.keyboard.press("Control+z")
    page.wait_for_selector("#measurements li", state="detached")
    wait_for_announcement(page, "Undone. Measurement deleted")
    assert shapes(page) == states[0]
    page.keyboard.press("Control+z")
    wait_for_announcement(page, "nothing on this page that could be undone")


def test_undo_waits_for_what_is_under_way_and_cancels_what_is_drawn_and_is_a_fields_own_in_a_field(
    page: "Page",
) -> None:
    held: list[Any] = []
    page.route(
        "**/measurements", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    page.keyboard.press("l")
    pull(page, (0.3, 0.25), (0.6, 0.7))
    page.keyboard.press("Control+z")  # while it is drawn
    page.mouse.up()
    pull(page, (0.3, 0.3), (0.5, 0.7))
    page.mouse.up()
    wait_until(page, lambda: held)
    page.keyboard.press("Control+z")
    held.pop().continue_()
    wait_for_announcement(page, "Undone. Measurement deleted")
    assert not held
    assert listed(page) == []
    page.unroute("**/measurements")
    probe(page, 0)
    page.locator("#level").focus()
    page.keyboard.press("Control+z")  # the field's own
    page.locator("#measurements .mark-place").focus()
    page.evaluate("() => fetch('/api/v1/site')")  # what the key has asked for came before
    assert len(listed(page)) == 1


def test_an_undo_that_failed_can_be_tried_again(page: "Page") -> None:
    probe(page, 0)
    page.route("**/measurements/*", lambda route: route.abort())
    page.keyboard.press("Control+z")
    page.wait_for_selector("#measurements .problem")
    clear_failed_request(page)
    page.unroute("**/measurements/*")
    assert len(listed(page)) == 1
    page.keyboard.press("Control+z")
    page.wait_for_selector("#measurements li", state="detached")
    assert listed(page) == []


def test_the_deleted_measurement_of_another_reader_is_not_stored_under_this_readers_name(page: "Page") -> None:
    probe(page, 0)
    theirs = {**kept(page), "by": "agnes"}
    page.route("**/measurements", lambda route: route.fulfill(json={"measurements": [theirs]}))
    page.reload()
    page.get_by_role("button", name="Delete the HU at a point on slice 6").click()
    page.wait_for_selector("#measurements li", state="detached")
    page.unroute("**/measurements")
    page.keyboard.press("Control+z")
    page.locator("#measurements .problem", has_text="another reader's").wait_for()
    assert listed(page) == []
