"""The pages are true and hold together: links lead somewhere, tables of codes say what the code says."""

import argparse
import ast
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from hemoscope.cli.commands import build_parser
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.dicom.refusals import REMEDIES

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src" / "hemoscope"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE_ROW = re.compile(r"^\| `([a-z][a-z0-9_]*)` \|", re.MULTILINE)


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
        if not place.exists() or (anchor and anchor not in anchors_of(place)):
            broken.append(target)
    assert not broken, f"{name_of(page)} links to {broken}"


def test_every_page_is_reached_from_the_index() -> None:
    index = REPOSITORY / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    assert not {name_of(page) for page in (REPOSITORY / "docs").rglob("*.md") if page != index and page not in linked}


def test_readme_page_and_index_say_that_this_is_no_medical_device() -> None:
    for page in ("README.md", "docs/index.md", "docs/explanation/limits.md"):
        assert "not a medical device" in (REPOSITORY / page).read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search(page.read_text())], ids=name_of)
def test_python_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one page follow each other, in a folder that holds the examples."""
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for snippet in PYTHON.findall(page.read_text()):
        exec(compile(snippet, name_of(page), "exec"), names)


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every long option of a parser and of its subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, subparser in action.choices.items():
                yield name
                yield from options_of(subparser)
        yield from (option for option in action.option_strings if option.startswith("--"))


def test_the_page_of_the_command_names_every_subcommand_and_option() -> None:
    page = (REPOSITORY / "docs/reference/command.md").read_text()
    missing = {option for option in options_of(build_parser()) if not re.search(rf"[` ]{option}\b", page)}
    assert missing <= {"--version"}


def test_the_page_of_the_command_names_every_exit_code_and_no_other() -> None:
    page = (REPOSITORY / "docs/reference/command.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == set(ExitCode)


@cache
def nodes_in_source() -> list[ast.AST]:
    """Every node of the package's syntax trees."""
    return [node for path in SOURCE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]


def calls_in_source() -> list[ast.Call]:
    """Every call of a plain name in the package."""
    calls = (node for node in nodes_in_source() if isinstance(node, ast.Call))
    return [call for call in calls if isinstance(call.func, ast.Name)]


def places_of_code(maker: str) -> dict[str, int]:
    """Who makes a note: the class itself, and functions that hand it their own parameter ``code``, at which place."""
    places = {maker: -1}
    for node in nodes_in_source():
        if isinstance(node, ast.FunctionDef) and "code" in (names := [argument.arg for argument in node.args.args]):
            made = (call for call in ast.walk(node) if isinstance(call, ast.Call))
            if any(getattr(call.func, "id", "") == maker for call in made):
                places[node.name] = names.index("code")
    return places


def codes_given_to(maker: str) -> set[str]:
    """The literal codes of all calls such as ``QualityNote(code="gaps", ...)``, directly or through a function."""
    places, found = places_of_code(maker), set()
    for call in calls_in_source():
        place = places.get(call.func.id)
        if place is None:
            continue
        given = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
        given += call.args[place : place + 1] if place >= 0 else []
        found |= {value.value for value in given if isinstance(value, ast.Constant)}
    return found


def rows_under(heading: str) -> set[str]:
    """The codes in the table under a heading of the page of codes."""
    page = (REPOSITORY / "docs/reference/codes.md").read_text()
    return set(CODE_ROW.findall(page.partition(f"## {heading}\n")[2].partition("\n## ")[0]))


def test_the_page_of_codes_lists_every_refusal_and_no_other() -> None:
    assert rows_under("Refusals") == {*REMEDIES, *codes_given_to("Rejected")}


def test_the_page_of_codes_lists_every_quality_note_and_no_other() -> None:
    assert rows_under("Quality notes") == codes_given_to("QualityNote")


def test_the_page_of_codes_gives_the_remedy_that_the_user_reads() -> None:
    page = (REPOSITORY / "docs/reference/codes.md").read_text()
    assert not [
        code
        for code, remedy in REMEDIES.items()
        if not re.search(rf"^\| `{code}` \|.*\| {re.escape(remedy)} \|$", page, re.M)
    ]
