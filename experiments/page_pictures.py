"""Draws the pictures of the reading room that the documentation shows, from a real server over the sample and phantoms.

    python experiments/page_pictures.py docs/images

Needs Chromium, Playwright and the tests' packages. Look at every picture before it is committed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

from hemoscope.labels import Hemorrhage
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "examples" / "sample"
WIDE = {"width": 1440, "height": 900}


def main() -> None:
    """Start a server on a folder of its own, send it the studies, and photograph its pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-P", "-m", "hemoscope", "serve", "--port", "8471", "--storage", str(home / "storage"),
             "--database", f"sqlite:///{home / 'room.sqlite3'}"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            studies = _send("http://127.0.0.1:8471", home)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                page = browser.new_context(viewport=WIDE, color_scheme="light").new_page()
                _worklist(page, output)
                _sample(page, studies["sample"], output)
                _thin(page, studies["thin"], output)
                browser.close()
        finally:
            server.terminate()
            server.wait(60)


def _send(url: str, home: Path) -> dict[str, str]:
    """Send the studies, wait until they are read, and return the id of each folder's study."""
    bleed, thin = frozenset({Hemorrhage.INTRAPARENCHYMAL}), frozenset({Hemorrhage.SUBDURAL})
    folders = {"sample": SAMPLE, **{name: home / name for name in ("clean", "thin", "thick")}}
    write_series(make_phantom(seed=5, shape=(30, 320, 320)), folders["clean"], seed=1)
    write_series(
        make_phantom(seed=7, shape=(80, 320, 320), spacing_mm=(1.5, 0.72, 0.72), bleeds=thin, side="left"),
        folders["thin"], seed=2,
    )  # fmt: skip
    write_series(make_phantom(seed=9, shape=(28, 320, 320), bleeds=bleed), folders["thick"], seed=3)
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(120):
            try:
                if client.get("/health").is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(1)
        token = client.get("/api/v1/site").json().get("csrf_token", "")
        found: dict[str, str] = {}
        for name, folder in folders.items():
            archive = home / f"{name}.zip"
            with zipfile.ZipFile(archive, "w") as written:
                for path in sorted(folder.rglob("*.dcm")):
                    written.write(path, path.name)
            answer = client.post(
                "/api/v1/uploads", files=[("files", ("study.zip", archive.read_bytes()))],
                headers={"X-CSRF-Token": token},
            )  # fmt: skip
            answer.raise_for_status()
            found[name] = _newest(client, len(found) + 1)
    return found


def _newest(client: httpx.Client, count: int) -> str:
    """Wait until as many studies are read; return the id of the last one."""
    for _ in range(300):
        studies = client.get("/api/v1/studies").json()["studies"]
        if len(studies) == count and all(one["state"] in {"done", "failed"} for one in studies):
            return str(max(studies, key=lambda one: one["received_at"])["study_id"])
        time.sleep(1)
    raise SystemExit("the studies were not read in time")


def _photograph(page: Page, path: Path) -> None:
    page.wait_for_timeout(1500)
    page.screenshot(path=path)


def _worklist(page: Page, output: Path) -> None:
    page.goto("http://127.0.0.1:8471/")
    page.wait_for_selector("#studies tbody tr:nth-child(4)")
    page.set_viewport_size({"width": 1440, "height": 420})
    _photograph(page, output / "worklist.png")
    page.set_viewport_size(WIDE)


def _sample(page: Page, study: str, output: Path) -> None:
    page.goto(f"http://127.0.0.1:8471/studies/{study}")
    page.wait_for_selector("#view[data-rendered]")
    page.wait_for_timeout(3000)
    _photograph(page, output / "reading-room.png")


def _thin(page: Page, study: str, output: Path) -> None:
    page.goto(f"http://127.0.0.1:8471/studies/{study}")
    page.wait_for_selector("#view[data-rendered]")
    page.keyboard.press("m")
    page.wait_for_selector(".plane[data-drawn]")
    page.wait_for_timeout(4000)
    _photograph(page, output / "planes.png")
    page.keyboard.press("m")
    page.keyboard.press("e")
    page.wait_for_timeout(1500)
    box = page.locator("#view").bounding_box()
    assert box
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(middle[0] - 40, middle[1] - 30)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 30, steps=5)
    page.mouse.up()
    page.keyboard.press("l")
    page.mouse.move(middle[0] - 180, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] - 180, middle[1] + 120, steps=5)
    page.mouse.up()
    _photograph(page, output / "measuring.png")


if __name__ == "__main__":
    main()
