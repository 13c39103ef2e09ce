"""The threat model names a test for each threat, and each of these tests exists."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/explanation/security.md").read_text()
TEST = re.compile(r"`([\w/]+)::(\w+)`")
ENTRY_POINTS = {
    "Files",
    "Archives (ZIP, TAR, gzip)",
    "REST",
    "The page",
    "DICOM network (DIMSE)",
    "Model bundle",
    "Federated update",
    "Configuration and the machine",
}
ADVISORIES = {f"CVE-2026-{number}" for number in range(5437, 5446)}


def functions_in(file: str) -> set[str]:
    """The names of all functions of a file below ``tests``; none if there is no such file."""
    path = REPOSITORY / "tests" / f"{file}.py"
    nodes = ast.walk(ast.parse(path.read_text())) if path.is_file() else ()
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def rows_of(part: str) -> list[str]:
    """The rows of a table, without its head."""
    return [line for line in part.splitlines() if line.startswith("| ")][1:]


def test_every_test_that_the_page_names_exists() -> None:
    named = set(TEST.findall(PAGE))
    assert not [f"{file}::{name}" for file, name in sorted(named) if name not in functions_in(file)]


def test_every_threat_at_every_entry_point_has_a_guard_and_a_test() -> None:
    parts = {part.partition("\n")[0]: part for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)}
    assert parts.keys() >= ENTRY_POINTS
    for name in ENTRY_POINTS:
        rows = rows_of(parts[name])
        assert rows
        assert not [row for row in rows if len(row.split(" |")) != 5 or not TEST.search(row)], name


def test_each_of_the_nine_advisories_has_a_class_and_a_test() -> None:
    rows = {row.split(" |")[0].removeprefix("| "): row for row in PAGE.splitlines() if row.startswith("| CVE-")}
    assert rows.keys() == ADVISORIES
    assert all(TEST.search(row) for row in rows.values())
