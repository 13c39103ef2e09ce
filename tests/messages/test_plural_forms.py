"""The server and the page choose the same plural form and write the same number, in a language of four forms."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemoscope.messages.catalogue import Catalogue, read_catalogue
from hemoscope.testing.catalogues import POLISH, write_catalogue

MODULE = Path(__file__).resolve().parents[2] / "src" / "hemoscope" / "web" / "static" / "messages.js"
PROGRAM = """
import { t, useMessages } from "%s";
let given = "";
for await (const part of process.stdin) given += part;
const { document, counts } = JSON.parse(given);
useMessages(document);
const both = (count) => [t("count.slices", { count }), t("count.files", { count })];
process.stdout.write(JSON.stringify(counts.map(both)));
"""
COUNTS = st.one_of(st.integers(0, 130), st.integers(0, 10**7), st.integers(1, 4000).map(lambda quarters: quarters / 4))


@pytest.fixture(scope="module")
def node() -> str:
    """The path of Node."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    return found


@pytest.fixture(scope="module")
def polish(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Slices in Polish; all else in English."""
    return read_catalogue(write_catalogue(tmp_path_factory.mktemp("polish") / "pl.json", POLISH))


def on_the_page(node: str, catalogue: Catalogue, counts: list[float]) -> list[list[str]]:
    given = json.dumps({"document": catalogue.document(), "counts": counts})
    program = PROGRAM % MODULE.as_uri()
    done = subprocess.run(
        [node, "--input-type=module", "--eval", program],
        input=given, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result: list[list[str]] = json.loads(done.stdout)
    return result


@given(counts=st.lists(COUNTS, min_size=1, max_size=300))
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_both_sides_write_the_same_text_for_any_count(node: str, polish: Catalogue, counts: list[float]) -> None:
    here = [[polish.text(key, count=count) for key in ("count.slices", "count.files")] for count in counts]
    assert on_the_page(node, polish, counts) == here


def test_each_of_the_four_forms_is_chosen(node: str, polish: Catalogue) -> None:
    shown = {
        1: "1 warstwa",
        2: "2 warstwy",
        5: "5 warstw",
        12: "12 warstw",
        22: "22 warstwy",
        1.5: "1,5 warstwy (ułamek)",
    }
    assert [polish.text("count.slices", count=count) for count in shown] == list(shown.values())
    assert [slices for slices, _ in on_the_page(node, polish, list(shown))] == list(shown.values())


def test_english_texts_under_it_keep_english_forms_and_numbers(node: str, polish: Catalogue) -> None:
    assert on_the_page(node, polish, [1, 1200]) == [["1 warstwa", "1 file"], ["1\u00a0200 warstw", "1,200 files"]]
