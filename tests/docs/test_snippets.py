"""Every shell snippet marked ``sh runnable`` in the documentation runs, in order, page by page."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SNIPPET = re.compile(r"^```sh runnable\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    if SNIPPET.search(page.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_shell_snippets_of_a_page_run(page: Path, tmp_path: Path) -> None:
    if not (REPOSITORY / "src/hemoscope/bundles/default/card.json").is_file():
        pytest.skip("the default model is not in this clone: src/hemoscope/bundles/default")
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    script = "set -eu\n" + "\n".join(SNIPPET.findall(page.read_text()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
