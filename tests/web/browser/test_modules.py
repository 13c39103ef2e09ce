"""The page's modules: linted, tested in Node, and compared with the package."""

import json
import os
import random
import re
import shutil
import subprocess
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemoscope.inference.findings import URGENCIES
from hemoscope.inference.windows import BONE, BRAIN, SUBDURAL, Window
from hemoscope.labels import LABELS
from hemoscope.messages.catalogue import english
from hemoscope.store import tables
from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store
from hemoscope.store.uploads import FAILED_RANK, WAITING_RANK, rank_of
from hemoscope.store.values import WorklistQuery, WorklistSort
from hemoscope.web.static_files import page_text

REPOSITORY = Path(__file__).resolve().parents[3]
STATIC = REPOSITORY / "src" / "hemoscope" / "web" / "static"
MODULES = REPOSITORY / "tests" / "web" / "browser" / "modules"
LEAST_NODE = 20


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node, new enough to run its own tests."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < LEAST_NODE:
        pytest.skip(f"node {version.strip()} is older than {LEAST_NODE}: apt-get install nodejs")
    return found


def run_node(node: str, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [node, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def greys(window: Window, first: int, last: int) -> list[int]:
    """The grey values of a window as NumPy makes them, for whole HU from ``first`` to ``last``."""
    hounsfield = np.arange(first, last + 1).astype(np.float32)
    return np.round(window.apply(hounsfield) * 255.0).astype(np.uint8).tolist()


def server_orders(folder: Path) -> dict[str, Any]:
    """The worklist in each order, of studies that share what they are sorted by or lack it."""
    (folder / "storage").mkdir(mode=0o700)
    store = open_store(Settings(database=f"sqlite:///{folder / 'db.sqlite3'}", storage=folder / "storage"))
    draw = random.Random(1)
    moments = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in range(3)]
    for number in range(40):
        with store.begin_upload() as upload:
            upload.add_file(BytesIO(b"x"))
            study_id = store.accept(upload, submitted_by="", study_instance_uid=None).study_id
        urgency = draw.choice([*URGENCIES, None])
        name = draw.choice(["ROE^JANE", "roe^ann", "Zander^Jo", "Ähre^Uta", "", None])
        columns = {
            "state": "done" if urgency else draw.choice(["queued", "scoring", "failed"]),
            "urgency": urgency,
            "received_at": draw.choice(moments),
            "acquired_at": draw.choice([*moments, None]),
            "instances": draw.randint(1, 3),
            "patient_name": name,
            "patient_id": name and "1",
        }
        rank = rank_of(urgency) if urgency else FAILED_RANK if columns["state"] == "failed" else WAITING_RANK
        with store._database.writing() as connection:  # only a worker writes these
            chosen = tables.studies.update().where(tables.studies.c.study_id == study_id)
            connection.execute(chosen.values(**columns, urgency_rank=rank))
        if number % 3 == 0:
            store.readers.review(study_id, by="agnes")
    orders = {
        sort.value: [
            entry.model_dump(mode="json") for entry in store.studies(WorklistQuery(identity=True, sort=sort))[0]
        ]
        for sort in WorklistSort
    }
    store.close()
    return orders


def test_the_modules_pass_their_tests_and_agree_with_the_package(node: str, tmp_path: Path) -> None:
    windows = [BRAIN, SUBDURAL, BONE, Window(center=35.0, width=33.0), Window(center=50.5, width=7.0)]
    references = [
        {"center": window.center, "width": window.width, "first": -3000, "greys": greys(window, -3000, 4000)}
        for window in windows
    ]
    (tmp_path / "greys.json").write_text(json.dumps(references))
    (tmp_path / "orders.json").write_text(json.dumps(server_orders(tmp_path)))
    exported = tmp_path / "exported.json"
    files = sorted(str(path) for path in MODULES.glob("*.test.js"))
    references_at = {"HEMOSCOPE_GREYS": "greys.json", "HEMOSCOPE_ORDERS": "orders.json"}
    run_node(
        node,
        "--test",
        *files,
        HEMOSCOPE_EXPORT=str(exported),
        **{name: str(tmp_path / file) for name, file in references_at.items()},
    )
    exported_values = json.loads(exported.read_text())
    assert exported_values["labels"] == [label.value for label in LABELS]
    assert exported_values["urgencies"] == list(URGENCIES)
    codes = (REPOSITORY / "docs/reference/codes.md").read_text().partition("## Quality notes\n")[2]
    assert set(exported_values["notes"]) == set(re.findall(r"^\| `([a-z_]+)` \|", codes, re.MULTILINE))


def test_the_modules_have_no_lint(node: str) -> None:
    eslint = REPOSITORY / "node_modules" / "eslint" / "bin" / "eslint.js"
    if not eslint.is_file():
        pytest.skip("eslint is not installed: npm ci")
    run_node(node, str(eslint), "--max-warnings", "0", str(STATIC), str(MODULES.parent), "eslint.config.js")


@pytest.mark.parametrize("page", sorted(path.name for path in STATIC.glob("*.html")))
def test_a_page_holds_to_the_strict_policy_and_says_what_it_is(page: str) -> None:
    text = page_text(page, english())
    assert "Research use only, not a medical device" in text
    data = '<script type="application/json" id="messages">'  # which no browser runs
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", text), "inline style or script"
    assert all(one == data or re.search(r'\ssrc="/static/', one) for one in re.findall(r"<script[^>]*>", text))
    assert not re.findall(r"(?:src|href)=\"(?!/|#)[^\"]+", text), "everything comes from this server"


def test_nothing_is_fetched_from_elsewhere_and_no_text_becomes_markup() -> None:
    allowed = {"http://www.w3.org/2000/svg"}
    for path in STATIC.iterdir():
        text = path.read_text()
        assert set(re.findall(r"https?://[^\s\"'<>`]+", text)) <= allowed, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path.name


def test_every_file_that_a_page_or_module_names_is_there() -> None:
    for path in STATIC.iterdir():
        text = path.read_text()
        named = re.findall(r'(?:src|href)="/static/([^"]+)"', text) + re.findall(r'from "\./([^"]+)"', text)
        assert not [name for name in named if not (STATIC / name).is_file()], path.name


def test_the_modules_stay_small() -> None:
    # All that a browser loads, uncompressed; the smallest viewer library that was compared has 3.1 MB.
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 350_000
