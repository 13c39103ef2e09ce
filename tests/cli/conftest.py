"""``hemoscope predict`` in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope import cli


@pytest.fixture
def run(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """``run(PATH, "--format", "json")``: exit code, stdout and stderr of ``hemoscope predict`` with the tiny model."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["predict", *map(str, words), "--model", str(tiny_bundle), "--threads", "1"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
