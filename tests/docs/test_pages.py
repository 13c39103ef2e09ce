"""The pages are true and hold together: links lead somewhere, tables of codes say what the code says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src" / "hemoscope"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE_ROW = re.compile(r"^\| `([a-z][a-z0-9_]*)` \|", re.MULTILINE)
MADE_LATER = {"docs/images/demo.png"}  # drawn from the sample once the default model stands


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def anchors_of(page: Path) -> set[str]:
    """The anchors that a forge gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_heading_of_the_repository(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        known = place.is_relative_to(REPOSITORY) and str(place.relative_to(REPOSITORY)) in MADE_LATER
        if not known and (not place.exists() or (anchor and anchor not in anchors_of(place))):
            broken.append(target)
    assert not broken, f"{name_of(page)} links to {broken}"


def test_every_page_is_reached_from_the_index() -> None:
    index = REPOSITORY / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert not {name_of(page) for page in (REPOSITORY / "docs").rglob("*.md") if page != index and page not in linked}


def test_readme_page_and_index_say_that_this_is_no_medical_device() -> None:
    for page in ("README.md", "docs/index.md", "docs/explanation/limits.md"):
        assert "not a medical device" in (REPOSITORY / page).read_text()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_snippets_run(page: Path) -> None:
    for snippet in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(snippet, name_of(page), "exec"), {})


def codes_in_source(*makers: str) -> Iterator[str]:
    """The literal codes given to calls of these names, as ``code=`` or as the first argument."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in makers:
                continue
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"] or node.args[:1]
            for value in ast.walk(given[0]) if given else ():
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value
