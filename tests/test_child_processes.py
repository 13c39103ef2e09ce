"""A process that Hemoscope starts imports nothing from the working directory, which may be anybody's."""

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

from hemoscope.store.settings import Settings
from hemoscope.store.store import open_store
from hemoscope.store.supervisor import Supervisor

SOURCE = Path(__file__).resolve().parents[1] / "src" / "hemoscope"
STARTING = sorted(path for path in SOURCE.rglob("*.py") if "sys.executable" in path.read_text())


def unsafe_starts(tree: ast.AST) -> Iterator[int]:
    """The lines where ``sys.executable`` stands in a command, or in the text of one, and ``-P`` does not follow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):
            for word, after in zip_longest(node.elts, node.elts[1:]):
                if _is_python(word) and not (isinstance(after, ast.Constant) and after.value == "-P"):
                    yield word.lineno
        if isinstance(node, ast.JoinedStr):
            for part, after in zip_longest(node.values, node.values[1:]):
                named = isinstance(part, ast.FormattedValue) and any(map(_is_python, ast.walk(part)))
                if named and not (isinstance(after, ast.Constant) and str(after.value).startswith(" -P ")):
                    yield part.lineno


def _is_python(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"


def test_the_search_finds_what_it_is_for() -> None:
    unsafe = 'a = [sys.executable, "-m", "x"]\nb = f"exec {q(sys.executable)} -m x"\nc = (*d, sys.executable)'
    safe = 'a = [sys.executable, "-P", "-m", "x"]\nb = f"{q(sys.executable)} -P -m x"\nc = Path(sys.executable).parent'
    assert sorted(unsafe_starts(ast.parse(unsafe))) == [1, 2, 3]
    assert list(unsafe_starts(ast.parse(safe))) == []


@pytest.mark.parametrize("path", STARTING, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_python_that_is_started_keeps_the_working_directory_out(path: Path) -> None:
    assert list(unsafe_starts(ast.parse(path.read_text()))) == []


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with modules that leave the returned file when they are imported."""
    folder, sprung = tmp_path / "anybodys", tmp_path / "sprung"
    folder.mkdir()
    for name in ("dl", "json", "multiprocessing", "logging"):
        (folder / f"{name}.py").write_text(f"import os\nos.close(os.open({str(sprung)!r}, os.O_CREAT))\n")
    monkeypatch.chdir(folder)
    return sprung


def test_the_trap_works(trap: Path) -> None:
    subprocess.run([sys.executable, "-c", "import dl"], check=True)
    assert trap.exists()


def test_a_measured_process_starts_no_module_of_the_working_directory(trap: Path) -> None:
    deployment_timing = pytest.importorskip("hemoscope.training.deployment_timing")
    task = deployment_timing._Task(command=["-c", "import json, dl"], entry={"runs": []})
    with pytest.raises(Exception, match="No module named 'dl'"):
        deployment_timing._run(task)
    assert not trap.exists()


def test_processes_that_prepare_data_start_no_module_of_the_working_directory(trap: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    program = tmp_path / "prepare.py"
    program.write_text(
        "from hemoscope.data.processes import processes\n"
        "if __name__ == '__main__':\n"
        "    with processes(workers=2) as run:\n"
        "        print(sorted(run(abs, [-1, -2])))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "[1, 2]\n", done.stderr
    assert not trap.exists()


@pytest.mark.journey
def test_a_worker_starts_no_module_of_the_working_directory(trap: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    settings = Settings(storage=tmp_path / "storage", model=tiny_bundle, workers=1)
    store, end = open_store(settings), time.monotonic() + 120
    with Supervisor(store, settings):
        while not store.counts().workers:
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.1)
    store.close()
    assert not trap.exists()
