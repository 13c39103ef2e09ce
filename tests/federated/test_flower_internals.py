"""One file imports undocumented modules of Flower, each for a stated reason, and the installed Flower has them."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from hemoscope.federated import flower_internals

SOURCE = Path(flower_internals.__file__).parents[1]
# The packages of Flower's API reference; only the names that they export are documented.
DOCUMENTED = {
    "flwr.app",
    "flwr.client.mod",
    "flwr.clientapp",
    "flwr.common",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
    "flwr.simulation",
}
ONLY_FILE = SOURCE / "federated" / "flower_internals.py"
needs_flower = pytest.mark.skipif(find_spec("flwr") is None, reason="needs Flower: make setup-federated")


def flower_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Each (module, name) of Flower that a file imports, and each module that it names in a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "flwr":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "*") for alias in node.names if alias.name.split(".")[0] == "flwr")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("flwr."):
            yield node.value, "*"


def test_no_other_file_imports_an_undocumented_module_of_flower() -> None:
    strays = [
        f"{path.relative_to(SOURCE)} imports {module}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != ONLY_FILE
        for module, name in flower_imports(path)
        if module not in DOCUMENTED
    ]
    assert not strays


@needs_flower
def test_every_direct_import_is_of_a_name_that_flower_exports() -> None:
    strays = [
        f"{path.relative_to(SOURCE)}: {module}.{name}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != ONLY_FILE
        for module, name in flower_imports(path)
        if name not in import_module(module).__all__
    ]
    assert not strays


def test_every_undocumented_module_stands_under_its_reason() -> None:
    lines = ONLY_FILE.read_text().splitlines()
    for module in flower_internals.INTERNALS:
        (number,) = (number for number, line in enumerate(lines) if line.startswith(f'    "{module}": '))
        assert re.fullmatch(r" +# [^-].*\.", lines[number - 1]), module
    assert not DOCUMENTED & flower_internals.INTERNALS.keys()


@needs_flower
def test_the_installed_flower_has_every_listed_name() -> None:
    for entry in sum(flower_internals.INTERNALS.values(), ()):
        assert getattr(flower_internals, entry.rpartition(" as ")[2]) is not None


@needs_flower
def test_every_listed_name_is_used() -> None:
    used = {
        alias.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == flower_internals.__name__
        for alias in node.names
    }
    listed = {entry.rpartition(" as ")[2] for entry in sum(flower_internals.INTERNALS.values(), ())}
    assert listed == used - {"replace_mask_generator", "OUT_OF_STEP", "RECEIVING", "SENDING", "REPLY_OVER"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Absent'"):
        _ = flower_internals.Absent


@needs_flower
def test_a_site_loads_nothing_of_the_superlink() -> None:
    code = "import hemoscope.federated.site.client_app, sys; print('flwr.superlink.main' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@needs_flower
def test_the_installed_flower_logs_in_the_words_that_are_looked_for() -> None:
    spec = find_spec("flwr.supernode.start_client_internal")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert f'"Run ID %s {flower_internals.OUT_OF_STEP} %s."' in source
    for words in (flower_internals.RECEIVING, flower_internals.SENDING):
        assert f'"{words}%s message (ID: %s)"' in source
    for words in flower_internals.REPLY_OVER:
        assert words in source
