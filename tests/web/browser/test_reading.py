"""What a radiologist does in the reading room, in a real browser: upload, read, give feedback, export."""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fake_room
import numpy as np
import pytest
from reading_page import OpenPage, at_rest, opened, picture, until, wait_for_slice, wait_until

from hemoscope.labels import LABELS
from hemoscope.testing.phantom import Phantom, make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Page


def test_a_study_is_uploaded_and_appears_with_its_urgency_and_types(
    room: Any, open_page: OpenPage, series: list[Path]
) -> None:
    page = open_page(room.url)
    with page.expect_response("**/uploads") as answer:
        page.set_input_files("#choose-files", series)
    study_id = answer.value.json()["study"]["study_id"]  # the real room's list has other studies too
    row = page.locator(f"#studies tbody tr[data-study='{study_id}'][data-state=done]")
    row.wait_for()
    assert "Immediate" in row.inner_text()
    assert "Intraparenchymal" in row.inner_text()


def test_every_number_stands_under_its_own_name(study: "Page") -> None:
    for label in LABELS:
        finding = study.locator(f".finding[data-label={label}]")
        assert finding.locator(".finding-name").inner_text() == label.display
        assert finding.locator(".finding-probability").inner_text().split()[0] == f"{fake_room.DISTINCT[label]:.2f}"
    assert study.locator(".verdict h2").inner_text() == "Immediate"


def test_the_strip_gives_each_label_its_own_number_at_the_slice(study: "Page", room: Any) -> None:
    if room.fake:
        study.locator(".finding[data-label=intraparenchymal] .finding-head").click()
        study.locator(".finding[data-label=intraparenchymal] .key-slice").first.click()
    shown = {label.value: study.locator(f".strip-value[data-label={label}]").inner_text() for label in LABELS}
    expected = {label: f"{value:.2f}".removeprefix("0") for label, value in fake_room.DISTINCT.items()}
    planted = {"any", "intraparenchymal", "subdural"} if room.fake else {label.value for label in LABELS}
    assert {label: shown[label] for label in planted} == {label: expected[label] for label in planted}


def test_what_is_not_established_looks_so(study: "Page") -> None:
    subdural = study.locator(".finding[data-label=subdural]")
    assert subdural.locator(".status").inner_text() == "Not established, suspected"
    subdural.locator(".finding-head").click()
    assert "Suspected only together with any hemorrhage" in subdural.inner_text()
    assert study.locator(".finding[data-label=intraparenchymal] .status").inner_text() == "Suspected"


def test_the_threshold_is_explained_at_the_sites_prevalence(study: "Page") -> None:
    assert re.search(
        r"of 100 flagged about \d+ were right.*at a prevalence of 10%",
        study.locator(".finding[data-label=any]").inner_text(),
    )


def test_a_study_that_another_model_read_is_not_explained_with_this_ones_card(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    fake.fake.studies[study_id].entry["findings"]["model"]["sha256"] = "1" * 64
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    said = "Read by another model than the one now installed; its thresholds are not explained here."
    assert said in page.locator(".finding[data-label=any]").inner_text()
    assert page.locator(".verdict p").first.inner_text() == said
    panel = page.locator("#panel").inner_text()
    assert "Sensitivity" not in panel
    assert "urgent threshold" not in panel


def test_a_page_without_live_changes_stays_under_the_readers_hands_and_no_older_answer_wins(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    page = open_page(fake.url)
    page.route("**/api/v1/events*", lambda route: route.abort())
    page.goto(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector("#readers button")
    strip = page.query_selector("#strip-slider")
    assert strip
    strip.focus()
    asked = f"**/api/v1/studies/{study_id}"
    fake.fake.change(study_id, reviews=[{"by": "agnes", "at": "2026-01-01T00:00:00Z"}])
    page.get_by_text("Reviewed by AG").wait_for()  # polled
    assert strip.evaluate("strip => strip === document.activeElement"), "a new strip lost focus or drag"
    old = {**fake.fake.studies[study_id].entry, "state": "scoring", "version": 1}
    page.route(asked, lambda route: route.fulfill(json=old, headers={"X-Version": "1"}))
    with page.expect_response(asked):
        pass
    page.wait_for_timeout(200)  # what would be drawn has been
    assert page.locator(".finding").count() == len(LABELS)
    page.unroute(asked)
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the blocked events


def test_keys_wheel_and_strip_scroll_the_slices(study: "Page") -> None:
    study.keyboard.press("Home")
    wait_for_slice(study, 0)
    study.keyboard.press("ArrowUp")
    wait_for_slice(study, 1)
    study.keyboard.press("PageUp")
    wait_for_slice(study, 6)
    study.keyboard.press("End")
    wait_for_slice(study, 11)
    study.mouse.move(400, 400)
    study.mouse.wheel(0, 100)
    wait_for_slice(study, 10)
    box = study.locator("#strip-slider").bounding_box()
    assert box
    study.mouse.click(box["x"] + 10, box["y"] + box["height"] - 3)
    wait_for_slice(study, 0)
    assert study.locator("#corner-slice").inner_text().startswith("1 / 12")


def test_a_key_slice_is_opened_by_its_button(study: "Page") -> None:
    study.locator(".finding[data-label=intraparenchymal] .finding-head").click()
    button = study.locator(".finding[data-label=intraparenchymal] .key-slice").first
    button.click()
    wait_for_slice(study, int(button.inner_text()) - 1)


def test_windows_change_by_key_and_by_dragging(study: "Page") -> None:
    study.keyboard.press("h")
    brain = picture(study)
    study.keyboard.press("3")
    study.wait_for_function("() => document.querySelector('#view').dataset.window === '600/2800'")
    bone = picture(study)
    assert (brain == 255).mean() > (bone == 255).mean(), "bone is not all white in its own window"
    study.mouse.move(300, 300)
    study.mouse.down()
    study.mouse.move(360, 320, steps=3)
    study.mouse.up()
    assert "Custom" in study.locator("#corner-window").inner_text()
    study.keyboard.press("r")
    assert study.locator("#corner-window").inner_text().startswith("Brain")


def coloured(shown: np.ndarray) -> float:
    """The share of pixels that a heat map colours."""
    return float((np.ptp(shown.astype(int), axis=2) > 20).mean())


def test_a_canvas_that_lost_its_picture_is_painted_again(study: "Page") -> None:
    until(study, lambda shown: coloured(shown) > 0.001)
    # The page may still draw once or twice by itself: at its best, or for a heat map that came late.
    lose = "view => { const c = view.getContext('2d'); c.fillStyle = '#000'; c.fillRect(0, 0, 9999, 9999); }"
    for _ in range(20):
        study.eval_on_selector("#view", lose)
        study.wait_for_timeout(500)
        if picture(study).max() == 0:
            break
    assert picture(study).max() == 0, "it is painted again without having been lost"
    study.eval_on_selector("#view", "view => view.dispatchEvent(new Event('contextrestored'))")
    until(study, lambda shown: shown.max() > 0)


def test_the_heat_map_colours_the_slice_and_can_be_taken_away(study: "Page") -> None:
    until(study, lambda shown: coloured(shown) > 0.001)
    strong = coloured(at_rest(study))
    study.keyboard.press("h")
    until(study, lambda shown: coloured(shown) == 0)
    study.keyboard.press("h")
    until(study, lambda shown: abs(coloured(shown) - strong) < 0.05 * strong)  # drawn plainly, then at its best
    for _ in range(5):
        study.keyboard.press("[")
    until(study, lambda shown: coloured(shown) < 0.9 * strong)


def test_the_patients_left_is_under_the_l_mark(study: "Page", room: Any) -> None:
    study.keyboard.press("h")
    study.keyboard.press("3")
    assert side_of_the_rod(picture(study)) == "right"
    assert study.locator("#mark-right").inner_text() == "L"
    assert study.locator("#mark-left").inner_text() == "R"
    assert study.locator("#mark-top").inner_text() == "A"


def side_of_the_rod(shown: np.ndarray) -> str:
    """On which side of the picture the rod shows: bright pixels between the head and the edge of the field."""
    grey = shown[..., 0]
    rows, columns = grey.shape
    size = min(rows, columns)
    x = (np.arange(columns) - columns / 2) / size * 230  # mm from the middle of the head
    outside = {"left": grey[:, (x > -97) & (x < -82)], "right": grey[:, (x > 82) & (x < 97)]}
    bright = {side: int((pixels > 150).sum()) for side, pixels in outside.items()}
    assert min(bright.values()) == 0, bright
    assert max(bright.values()) > 20, bright
    return max(bright, key=lambda side: bright[side])


def test_a_mirrored_slice_is_marked_mirrored(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    mirrored = dataclasses.replace(asymmetric, hounsfield=np.ascontiguousarray(asymmetric.hounsfield[:, :, ::-1]))
    study_id = fake.fake.add(mirrored, geometry={"orientation": [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]})
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    page.keyboard.press("h")
    page.keyboard.press("3")
    assert side_of_the_rod(picture(page)) == "left"
    assert page.locator("#mark-left").inner_text() == "L"


def test_assumed_geometry_has_no_marks_and_no_millimetres_and_says_so(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric, geometry={"assumed": True})
    page = opened(open_page, f"{fake.url}/studies/{study_id}")
    assert page.locator("#mark-left").inner_text() == ""
    assert not page.locator("#scale").is_visible()
    assert "mm scale" in page.locator("#geometry-caution").inner_text()
    assert " mm" not in page.locator("#corner-slice").inner_text()


def test_the_age_of_the_scan_grows_while_the_study_is_open(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    page = open_page(f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    page.clock.install()
    page.reload()
    page.wait_for_selector(".finding")
    assert page.locator("#study-facts").inner_text().startswith("Scanned 42 min ago")
    page.clock.fast_forward("05:00")
    page.locator("#study-facts").get_by_text("Scanned 47 min ago").wait_for()


@pytest.mark.parametrize("triage", ["immediate", "prompt", "unsure", "routine"])
@pytest.mark.parametrize("word", ["triage", "urgency"])
def test_findings_of_either_version_open_with_their_triage(
    fake: Any, open_page: OpenPage, asymmetric: Phantom, triage: str, word: str
) -> None:
    study_id = fake.fake.add(asymmetric, urgency=triage)
    (study,) = fake.fake.studies[study_id].entry["findings"]["studies"]
    study[word] = study.pop("triage")
    page = open_page(f"{fake.url}/studies/{study_id}")
    assert page.locator(f".verdict-{triage} h2").inner_text() == triage.capitalize()
    keys = page.locator(".finding[data-label=any] .key-slice")
    indices = fake.fake.studies[study_id].entry["geometry"]["key_slices"]["any"]
    assert keys.all_text_contents() == [str(index + 1) for index in indices]


def test_pixels_that_are_not_square_keep_the_heads_shape(fake: Any, open_page: OpenPage) -> None:
    flat = make_phantom(seed=2, shape=(3, 256, 128), spacing_mm=(5.0, 230 / 256, 230 / 128))
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(flat, urgency='routine')}")
    shown = picture(page)[..., 0] > 100
    high = np.flatnonzero(shown.any(axis=1))
    wide = np.flatnonzero(shown.any(axis=0))
    assert 1.1 < (high[-1] - high[0]) / (wide[-1] - wide[0]) < 1.4, "a head is longer than wide, by a fifth or so"


def test_hounsfield_units_under_the_pointer_are_those_of_the_slice(study: "Page", asymmetric: Phantom) -> None:
    study.keyboard.press("r")
    box = study.locator("#stage").bounding_box()
    assert box
    study.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] / 2 + 25)
    said = re.search(r"(-?\d+) HU {2}\((\d+), (\d+)\)", study.locator("#corner-hu").inner_text())
    assert said
    index = int(study.locator("#view").get_attribute("data-slice") or -1)
    assert int(said[1]) == asymmetric.hounsfield[index, int(said[3]), int(said[2])]


def test_the_units_follow_the_slice_and_the_zoom_under_a_resting_pointer(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(asymmetric)}")
    held: list[Any] = []
    page.route("**/slices/11/pixels", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    page.reload()
    page.wait_for_selector(".finding")

    def under_the_pointer(index: int) -> tuple[str, ...]:
        wait_for_slice(page, index)
        said = re.search(r"(-?\d+) HU {2}\((\d+), (\d+)\)", page.locator("#corner-hu").inner_text())
        assert said
        assert int(said[1]) == asymmetric.hounsfield[index, int(said[3]), int(said[2])]
        return said.groups()[1:]

    page.keyboard.press("Home")
    wait_for_slice(page, 0)
    box = page.locator("#stage").bounding_box()
    assert box
    at = box["x"] + box["width"] / 2 + 90, box["y"] + box["height"] / 2 + 70
    page.mouse.move(*at)
    for key, index in (("ArrowUp", 1), ("ArrowUp", 2), ("PageUp", 7)):
        page.keyboard.press(key)
        under_the_pointer(index)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(at[0] - 60, at[1] - 30, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    panned = under_the_pointer(7)
    page.keyboard.press("r")
    assert under_the_pointer(7) != panned
    page.keyboard.press("End")
    assert page.locator("#corner-hu").inner_text() == "", "the slice on screen is not the chosen one"
    wait_until(page, lambda: held)
    held.pop().continue_()
    under_the_pointer(11)


def test_zooming_in_enlarges_and_resetting_fits(study: "Page") -> None:
    study.keyboard.press("h")
    fitted = at_rest(study)
    for _ in range(4):
        study.keyboard.press("+")
    until(study, lambda shown: (shown > 0).mean() > (fitted > 0).mean())
    study.keyboard.press("r")
    until(study, lambda shown: np.array_equal(shown, fitted))


def test_the_model_card_is_one_click_away(study: "Page") -> None:
    study.get_by_role("button", name="Model card").click()
    assert "Limits of use" in study.locator("#card").inner_text()
    study.keyboard.press("Escape")
    assert not study.locator("#card").is_visible()


def test_the_report_and_the_findings_can_be_taken_away(study: "Page", room: Any) -> None:
    beginnings = {"HTML": b"<"} if room.fake else {"HTML": b"<", "Report PDF": b"%PDF", "JSON": b"{"}
    for name, beginning in beginnings.items():
        with study.expect_download() as waiting:
            study.get_by_role("link", name=name).click()
        assert waiting.value.path().read_bytes().startswith(beginning)


def test_quality_notes_are_in_plain_words(study: "Page") -> None:
    assert "Less than a whole head" in study.locator(".quality").inner_text()


def test_the_disclaimer_is_in_the_served_page_and_in_sight(room: Any, open_page: OpenPage) -> None:
    page = open_page(room.url)
    for path in ("/", f"/studies/{'0' * 32}"):
        assert "Research use only, not a medical device" in page.request.get(room.url + path).text()
    box = page.locator(".disclaimer").bounding_box()
    assert box
    assert box["y"] < 60


def test_a_finger_scrolls_the_slices(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    study_id = fake.fake.add(asymmetric)
    page = opened(open_page, f"{fake.url}/studies/{study_id}", viewport={"width": 1024, "height": 768}, has_touch=True)
    page.keyboard.press("Home")
    wait_for_slice(page, 0)
    client = page.context.new_cdp_session(page)
    for kind, y in (
        ("touchStart", 400),
        ("touchMove", 380),
        ("touchMove", 350),
        ("touchMove", 320),
        ("touchEnd", None),
    ):
        points = [] if y is None else [{"x": 250, "y": y}]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(50)  # a finger takes its time; moves at one moment are merged into one
    page.wait_for_function("() => Number(document.querySelector('#view').dataset.slice) > 2")
    assert page.locator("#corner-window").inner_text().startswith("Brain"), "a finger scrolls; it does not window"


def test_two_fingers_zoom(fake: Any, open_page: OpenPage, asymmetric: Phantom) -> None:
    study_id = fake.fake.add(asymmetric, urgency="routine")
    page = opened(open_page, f"{fake.url}/studies/{study_id}", viewport={"width": 1024, "height": 768}, has_touch=True)
    before = (picture(page) > 0).mean()
    client = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 60), ("touchMove", 120), ("touchMove", 200), ("touchEnd", None)):
        points = (
            []
            if apart is None
            else [{"x": 250 - apart / 2, "y": 350, "id": 0}, {"x": 250 + apart / 2, "y": 350, "id": 1}]
        )
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    until(page, lambda shown: (shown > 0).mean() > before)


def test_scrolling_fast_never_shows_another_slice_than_it_says(fake: Any, open_page: OpenPage) -> None:
    tall = make_phantom(seed=5, shape=(60, 64, 64))
    page = opened(open_page, f"{fake.url}/studies/{fake.fake.add(tall, urgency='routine')}")
    page.keyboard.press("Home")
    for _ in range(55):
        page.keyboard.press("ArrowUp")
    wait_for_slice(page, 55)
    page.keyboard.press("End")
    page.keyboard.press("Home")
    wait_for_slice(page, 0)
    assert page.evaluate("document.querySelector('#stage-message').hidden")


def test_a_slice_that_cannot_be_loaded_is_reported_with_its_remedy(
    fake: Any, open_page: OpenPage, asymmetric: Phantom
) -> None:
    study_id = fake.fake.add(asymmetric)
    page = open_page(fake.url)
    page.route("**/slices/0/pixels", lambda route: route.abort())
    page.goto(f"{fake.url}/studies/{study_id}")
    page.wait_for_selector(".finding")  # which go to their key slice, away from any message
    wait_for_slice(page)
    page.keyboard.press("Home")
    page.get_by_text("The server does not answer").wait_for()
    page.unroute("**/slices/0/pixels")
    page.get_by_role("button", name="Try again").click()
    wait_for_slice(page, 0)
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the broken line


def test_a_study_that_does_not_exist_says_so(fake: Any, open_page: OpenPage) -> None:
    page = open_page(f"{fake.url}/studies/{'0' * 32}")
    page.get_by_text("There is no such study.").wait_for()
    page.get_by_role("link", name="Back to the worklist").click()
    page.wait_for_url("**/")
    page.complaints.clear()  # type: ignore[attr-defined]  # the browser logs the 404
