"""A real browser before two servers: a fake one over phantoms, and ``hemoscope serve`` with a stub model.

Chromium is Debian's; without it these tests are skipped. Whatever a page does, its console must stay empty of
errors and no request may leave the host: ``page`` checks both when a test ends.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom, make_phantom

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 60_000  # for what comes at once on an idle machine; a test never waits longer than it must
PASSWORD = "correct horse battery"


def load_module(name: str) -> ModuleType:
    """A module that lies beside the tests."""
    spec = util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


fake_room = load_module("fake_room")
reading_page = load_module("reading_page")
load_module("accessibility")


@dataclass(frozen=True, kw_only=True)
class Room:
    """A room to test: its address, and the fake behind it or None for a real one."""

    url: str
    fake: Any = None


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Headless Chromium, ended with each file: while Playwright runs, its event loop is this thread's."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: "Browser") -> "Iterator[Callable[..., Page]]":
    """``open_page(url, color_scheme=..., viewport=...)``: a fresh page, watched until the test ends."""
    contexts, seen = [], []

    def opened(url: str, **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        host = urlsplit(url).netloc
        page.on("console", lambda message: seen.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on(
            "request",
            lambda request: seen.append(f"left the host: {request.url}") if foreign(request.url, host) else None,
        )
        page.goto(url)
        page.complaints = seen  # type: ignore[attr-defined]  # a test that provokes one clears it
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not seen, seen


def foreign(url: str, host: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in {"data", "blob"} and parts.netloc != host


@pytest.fixture(scope="session")
def asymmetric() -> Phantom:
    """A head with a dense rod beside the patient's left temple, bleeding on one side."""
    bleeds = frozenset({Hemorrhage.SUBDURAL, Hemorrhage.INTRAPARENCHYMAL})
    return make_phantom(seed=3, shape=(12, 256, 256), bleeds=bleeds, side="left", marker=True)


@pytest.fixture(scope="session")
def series(asymmetric: Phantom, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same head as DICOM files."""
    return list(write_series(asymmetric, tmp_path_factory.mktemp("series")))


@pytest.fixture(scope="session")
def card() -> dict[str, Any]:
    """The card of the model that ships, as ``hemoscope info --json`` prints it."""
    import hemoscope

    path = Path(hemoscope.__file__).parent / "bundles" / "default" / "card.json"
    return {**json.loads(path.read_text()), "sha256": "0" * 64}


@pytest.fixture
def fake(card: dict[str, Any]) -> Iterator[Room]:
    """A fake room without studies."""
    made = fake_room.FakeRoom(card)
    with made.served() as url:
        yield Room(url=url, fake=made)


@pytest.fixture(scope="session")
def distinct_bundle(
    tmp_path_factory: pytest.TempPathFactory, make_graph: Callable[..., bytes], make_card: Callable[..., Any]
) -> Path:
    """A model whose every slice has the same, and every label its own, probability: ``fake_room.DISTINCT``."""
    from hemoscope.inference.bundle import write_bundle
    from hemoscope.inference.calibration import Calibration, OperatingPoint
    from hemoscope.inference.card import CalibrationTable, OperatingPointTable
    from hemoscope.labels import PerLabel

    plain = PerLabel.build(lambda label: Calibration(scale=1.0, bias=0.0))
    point = PerLabel.build(
        lambda label: OperatingPoint(
            threshold=fake_room.THRESHOLDS[label], rule="stub", sensitivity=0.9, specificity=0.8
        )
    )
    bias = [float(np.log(p / (1 - p))) for p in (fake_room.DISTINCT[label] for label in LABELS)]
    weights = np.zeros((6, 4), dtype=np.float32)
    weights[:, 3] = bias
    urgent = OperatingPoint(threshold=0.9, rule="stub", sensitivity=0.7, specificity=0.95)
    card = make_card(
        name="distinct",
        calibration=CalibrationTable(slice=plain, study=plain),
        operating_points=OperatingPointTable(slice=point, study=point, urgent=urgent),
        established=PerLabel.build(lambda label: label.value not in fake_room.NOT_ESTABLISHED),
        description="The same six numbers for every slice.",
        disclaimer="Research use only. Not a medical device.",
    )
    return write_bundle(tmp_path_factory.mktemp("bundles") / "distinct", card, make_graph(weights=weights)).folder


@contextmanager
def serving(storage: Path, model: Path, *options: str) -> Iterator[Room]:
    """``hemoscope serve`` with one worker, until the block ends."""
    storage.mkdir(mode=0o700, exist_ok=True)
    program = str(Path(sys.executable).parent / "hemoscope")
    command = [program, "serve", "--port", "0", "--storage", str(storage), "--threads", "1", "--model", str(model)]
    with subprocess.Popen(
        [*command, "--prevalence", "0.1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout
        first = process.stdout.readline()
        found = re.search(r"http://\S+", first)
        reader = threading.Thread(target=process.stdout.read, daemon=True)  # a full pipe would stop the server
        reader.start()
        try:
            assert found, f"hemoscope serve said {first!r}"
            yield Room(url=found[0])
        finally:
            process.terminate()
            process.wait(WAIT_MS / 1000)
            reader.join(5)


@pytest.fixture(scope="session")
def real(distinct_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """The real room, open to this machine, with the stub model."""
    with serving(tmp_path_factory.mktemp("real") / "storage", distinct_bundle) as room:
        yield room


@pytest.fixture(scope="session")
def real_study(real: Room, series: list[Path]) -> str:
    """A study that the real room has read."""
    return read_in(real, series)


def read_in(room: Room, series: list[Path]) -> str:
    """Send a study to a real room as a program does, and wait until it is read; returns its id."""
    with httpx.Client(base_url=f"{room.url}/api/v1", timeout=WAIT_MS / 1000) as client:
        headers = {"X-CSRF-Token": client.get("/site").json()["csrf_token"]}
        files = [("files", (str(place), path.read_bytes())) for place, path in enumerate(series)]
        study_id = client.post("/uploads", headers=headers, files=files).json()["study"]["study_id"]
        for _ in range(1200):
            if client.get(f"/studies/{study_id}").json()["state"] == "done":
                return str(study_id)
            time.sleep(0.1)
    pytest.fail("the real room did not read the study within 120 s")


@pytest.fixture
def real_reading(series: list[Path]) -> Callable[..., Any]:
    """``with real_reading(storage, model, *options) as (room, study_id)``: a real room that has read the study."""

    @contextmanager
    def started(storage: Path, model: Path, *options: str) -> Iterator[tuple[Room, str]]:
        with serving(storage, model, *options) as room:
            yield room, read_in(room, series)

    return started


@pytest.fixture
def guarded(distinct_bundle: Path, tmp_path: Path) -> Iterator[Room]:
    """The real room where somebody has to log in: the reader ``agnes`` with ``PASSWORD``."""
    program, users = str(Path(sys.executable).parent / "hemoscope"), tmp_path / "users"
    subprocess.run([program, "users", "add", "agnes", "--users", str(users)], input=PASSWORD, text=True, check=True)
    with serving(tmp_path / "storage", distinct_bundle, "--users", str(users)) as room:
        yield room


@pytest.fixture(scope="module")
def shared(distinct_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """The real room with an administrator ``agnes`` and a reader ``bert.muller``; claims end after fifteen seconds."""
    folder = tmp_path_factory.mktemp("shared")
    program, users = str(Path(sys.executable).parent / "hemoscope"), str(folder / "users")
    for name, role in (("agnes", "admin"), ("bert.muller", "reader")):
        adding = [program, "users", "add", name, "--users", users, "--role", role]
        subprocess.run(adding, input=PASSWORD, text=True, check=True)
    with serving(folder / "storage", distinct_bundle, "--users", users, "--claim-minutes", "0.25") as room:
        yield room


@pytest.fixture(params=["fake", "real"])
def room(request: pytest.FixtureRequest) -> Room:
    """Either room: what a page must do, it must do before both."""
    found: Room = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def unsaid(room: Room, request: pytest.FixtureRequest) -> Iterator[None]:
    """Take back what a test said of the real room's study, which the next tests read too."""
    yield
    if room.fake:
        return
    path = f"/studies/{request.getfixturevalue('real_study')}"
    with httpx.Client(base_url=f"{room.url}/api/v1", timeout=WAIT_MS / 1000) as client:
        headers = {"X-CSRF-Token": client.get("/site").json()["csrf_token"]}
        for label in client.get(path).json()["verdicts"]:
            withdrawn = {"label": label, "verdict": "withdrawn", "present": False, "slices": None, "note": ""}
            client.post(f"{path}/feedback", headers=headers, json=withdrawn).raise_for_status()


@pytest.fixture
def study(
    room: Any,
    unsaid: None,  # before `open_page`, so that it acts once the page is closed
    open_page: Callable[..., "Page"],
    asymmetric: Phantom,
    request: pytest.FixtureRequest,
) -> "Page":
    """The reading page of the asymmetric phantom; heat is on, since something is suspected."""
    study_id = room.fake.add(asymmetric) if room.fake else request.getfixturevalue("real_study")
    return reading_page.opened(open_page, f"{room.url}/studies/{study_id}")
