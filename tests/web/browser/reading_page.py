"""What tests do on a reading page: wait for its slices, and look at its picture."""

import base64
import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]
WAIT_S = 60.0


def picture(page: "Page") -> np.ndarray:
    """What is painted on the canvas, without the words around it: uint8 (rows, columns, 3).

    The page paints in the next animation frame after a change; the one after that has surely seen it.
    """
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    data = page.evaluate("document.querySelector('#view').toDataURL().split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def at_rest(page: "Page") -> np.ndarray:
    """The picture once it is drawn at its best: while it changes, and shortly after, it is drawn plainly."""
    page.evaluate(
        """async () => {
          const frame = () => new Promise(requestAnimationFrame);
          do { await frame(); await frame(); } while (document.querySelector("#view").dataset.quality !== "best");
        }"""
    )
    return picture(page)


def wait_for_slice(page: "Page", index: int | None = None) -> None:
    """Wait until the slice that is asked for is the slice that is seen."""
    page.wait_for_function(
        """(index) => {
          const { slice, rendered } = document.querySelector("#view").dataset;
          return rendered !== undefined && rendered === slice && (index === null || slice === String(index));
        }""",
        arg=index,
    )


def wait_until(page: "Page", condition: Callable[[], object]) -> None:
    """Wait for what is not on the page, such as a request that the test holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        page.wait_for_timeout(20)


def until(page: "Page", condition: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Wait for a picture that meets the condition, such as one whose heat map has come."""
    end = time.monotonic() + WAIT_S
    while not condition(shown := picture(page)):
        assert time.monotonic() < end, "the picture never came"
        page.wait_for_timeout(20)
    return shown


def opened(open_page: OpenPage, url: str, **options: Any) -> "Page":
    """A reading page with its findings: until they come, it may still go to their key slice by itself."""
    page = open_page(url, **options)
    page.wait_for_selector(".finding")
    wait_for_slice(page)
    return page


def clear_failed_request(page: "Page") -> None:
    """Forget the browser's own line on a request that failed; it may come after the page's."""
    while not page.complaints:  # type: ignore[attr-defined]
        page.wait_for_timeout(20)
    page.complaints.clear()  # type: ignore[attr-defined]
