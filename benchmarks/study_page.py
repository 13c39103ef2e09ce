"""The reading page in Chromium: click to first key slice, planes, report, and the main thread's work while scrolling.

Reads a series of 238 slices with the default model, then opens it as a reader does: by a click in the worklist. The
machine's processors are shared by browser and server. Needs Chromium and Playwright; without the real series, a phantom
of as many slices is read.

    .venv/bin/python benchmarks/bench.py study_page
    .venv/bin/python benchmarks/study_page.py --profile
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from reading_room import room, upload, wait_for, zipped
from rows import Row, UnavailableError, shared_data

from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SLICES = 238
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_TIMES = 5
_FRAMES = 120  # there and back three times: twenty slices down, twenty up
_FRAME_MS = 16.0
_WAIT_MS = 120_000

# When the slice that is asked for was first drawn, and when every plane was, in ms since the epoch.
_WATCH = """() => {
  const seen = (name, there) => {
    if (there && !window[name]) window[name] = performance.timeOrigin + performance.now();
  };
  new MutationObserver(() => {
    const { slice, rendered } = document.querySelector("#view")?.dataset ?? {};
    seen("sliceDrawn", rendered !== undefined && rendered === slice);
    const planes = [...document.querySelectorAll(".plane")];
    const drawn = planes.length > 0 && planes.every(({ dataset }) => dataset.drawn);
    seen("planesDrawn", drawn);
    seen("planesWhole", drawn && planes.every(({ dataset }) => dataset.of === "SLICES"));
  }).observe(document, { attributes: true, subtree: true,
                         attributeFilter: ["data-rendered", "data-drawn", "data-of"] });
}""".replace("SLICES", str(SLICES))
_NOW = "() => performance.timeOrigin + performance.now()"
_SCROLL = """(count) => new Promise((done) => {
  let left = count;
  const step = () => {
    if (left-- === 0) return done();
    const key = left % 40 < 20 ? "ArrowUp" : "ArrowDown";
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""

_SLAB = """([mode, mm]) => {
  for (const [id, value] of [["#slab-mode", mode], ["#slab-mm", mm]]) {
    document.querySelector(id).value = value;
    document.querySelector(id).dispatchEvent(new Event("change"));
  }
}"""
_SHOWN = """(slab) => {
  const { dataset } = document.querySelector("#view");
  return dataset.slab === slab && dataset.rendered === dataset.slice;
}"""


def rows() -> Iterator[Row]:
    """Measure the page over one study; each time is the median of several visits."""
    with _served() as (url, study_id), _browser() as browser:
        key, plane, whole = zip(*(_visit(browser, url, study_id) for _ in range(_TIMES)), strict=True)
        yield _row(
            "click to first key slice, nothing cached", statistics.median(key), 1.0, "s", "two requests and 0.5 MB"
        )
        yield _row(f"first coronal and sagittal plane of {SLICES} slices", statistics.median(plane), 1.0, "s", "cuts")
        yield _row(f"planes of all {SLICES} slices", statistics.median(whole), 1.0, "s", "125 MB to send and to read")
        yield _row("report as a page, first", _fetch(url, study_id), 1.0, "s", "pictures to draw and compress")
        for mode, ms in _frames(browser, url, study_id).items():
            limit = "a slice to paint" if mode == "off" else "a slice to paint, one to add, one to remove"
            yield _row(f"main thread's work a frame while scrolling, slab {mode}", ms, _FRAME_MS, "ms", limit)


def _row(what: str, measured: float, bar: float, unit: str, limit: str) -> Row:
    return Row(
        what=what,
        limit=limit,
        measured=measured,
        beside="the bar",
        compared=bar,
        unit=unit,
        bar=1.0,
        better="at most",
    )


@contextmanager
def _served() -> Iterator[tuple[str, str]]:
    """A room that has read one study; its address and the study."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            files = sorted(shared_data("cq500-series").glob("*.dcm"))
        except UnavailableError:
            head = make_phantom(seed=1, shape=(SLICES, 512, 512), spacing_mm=(0.625, 0.5, 0.5))
            files = list(write_series(head, folder / "in"))
        with room(folder / "storage") as url:
            study_id, _ = upload(url, zipped(files))
            wait_for(url, study_id, "findings", every_s=0.2)
            yield url, study_id


@contextmanager
def _browser() -> Iterator["Browser"]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        msg = "Playwright is not installed: make setup-dev"
        raise UnavailableError(msg) from error
    program = shutil.which("chromium")
    if program is None:
        msg = "chromium is not installed: apt-get install chromium"
        raise UnavailableError(msg)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def _opened(browser: "Browser", url: str, study_id: str) -> Iterator[tuple["Page", float]]:
    """A page with nothing cached that has opened the study by a click, and the moment of the click."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(f"({_WATCH})()")
    page = context.new_page()
    page.set_default_timeout(_WAIT_MS)
    page.goto(url)
    link = page.locator(f"tr[data-study='{study_id}'] .row-link")
    link.wait_for()
    page.wait_for_timeout(500)
    clicked = page.evaluate(_NOW)
    link.evaluate("(link) => link.click()")
    page.wait_for_function("() => window.sliceDrawn && document.querySelector('.finding')")
    yield page, clicked
    context.close()


def _visit(browser: "Browser", url: str, study_id: str) -> tuple[float, float, float]:
    """Seconds from the click to the first key slice, and from the key to both planes, at first and of all slices."""
    with _opened(browser, url, study_id) as (page, clicked):
        key = page.evaluate("() => window.sliceDrawn") - clicked
        page.wait_for_timeout(1000)  # the neighbours have come
        pressed = page.evaluate(_NOW)
        page.keyboard.press("m")
        page.wait_for_function("() => window.planesDrawn")
        page.wait_for_function("() => window.planesWhole")
        first, whole = (page.evaluate(f"() => window.{name}") - pressed for name in ("planesDrawn", "planesWhole"))
        return key / 1000, first / 1000, whole / 1000


def _fetch(url: str, study_id: str) -> float:
    start = time.perf_counter()
    httpx.get(f"{url}/api/v1/studies/{study_id}/report.html", timeout=120).raise_for_status()
    return time.perf_counter() - start


def _frames(browser: "Browser", url: str, study_id: str) -> dict[str, float]:
    """Milliseconds of work of the main thread for each frame, one slice a frame, by the mode of the slab."""
    found = {}
    with _opened(browser, url, study_id) as (page, _):
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})  # processor time: other programs do not count
        for mode, mm in (("average", 20), ("average", 5), ("mip", 20), ("off", 5)):
            page.evaluate(_SLAB, [mode, mm])
            for key in [*["ArrowDown"] * 21, *["ArrowUp"] * 21]:  # all slices have come
                page.keyboard.press(key)
                page.wait_for_function(_SHOWN, arg="" if mode == "off" else f"{mode} {mm}")
            before = _work_ms(session)
            page.evaluate(_SCROLL, _FRAMES)
            found[mode if mode == "off" else f"{mode} of {mm} mm"] = (_work_ms(session) - before) / _FRAMES
    return found


def _work_ms(session: Any) -> float:
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"]) * 1000


def profile() -> None:
    """Print when each request of the page began and ended after the click, in ms."""
    with _served() as (url, study_id), _browser() as browser, _opened(browser, url, study_id) as (page, clicked):
        entries: Callable[..., str] = page.evaluate
        timing = json.loads(
            entries(
                """() => JSON.stringify(performance.getEntriesByType("resource").map((one) =>
                ({ name: new URL(one.name).pathname, from: performance.timeOrigin + one.startTime,
                   to: performance.timeOrigin + one.responseEnd, bytes: one.transferSize })))"""
            )
        )
        print(f"navigation {page.evaluate('() => performance.timeOrigin') - clicked:6.0f}")
        for one in timing:
            print(f"{one['from'] - clicked:6.0f} {one['to'] - clicked:6.0f} {one['bytes']:8} {one['name']}")
        print(f"first key slice {page.evaluate('() => window.sliceDrawn') - clicked:6.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true", help="print the requests of one visit instead")
    if parser.parse_args().profile:
        profile()
    else:
        for row in rows():
            print(f"{row.what}: {row.measured:.3g} {row.unit} (bar {row.compared:g})")
