"""The command line as a whole: help at once, errors as one line, exit codes that scripts can rely on."""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from hemoscope import cli
from hemoscope.cli.commands import COMMANDS, Command
from hemoscope.cli.exit_codes import exit_code_of
from hemoscope.errors import (
    BundleError,
    ConfigError,
    DataError,
    DicomReadError,
    HemoscopeError,
    MissingExtraError,
    SeriesError,
    TrainingError,
)
from hemoscope.version import __version__


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``command(run)``: add a command ``try`` that calls ``run()``; the words that call it come back."""

    def add(run: Callable[[], int], **fields: object) -> list[str]:
        def register(parser: argparse.ArgumentParser) -> None:
            parser.set_defaults(run=lambda _: run())

        one = Command(name="try", summary="try it", register=register, **fields)  # type: ignore[arg-type]
        monkeypatch.setitem(COMMANDS, "try", one)
        return ["try"]

    return add


def test_help_names_every_command_and_the_disclaimer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in text
        assert command.summary in text
    assert "Not a medical device" in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([name, "--help"])
    assert f"usage: hemoscope {name}" in capsys.readouterr().out


def test_the_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"hemoscope {__version__}\n"


def test_help_loads_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; from hemoscope import cli\n"
        "try: cli.main(['predict', '--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('numpy', 'rich', 'pydicom', 'openvino', 'PIL', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [[], ["unknown"], ["predict"], ["predict", "x", "--format", "pdf"]])
def test_wrong_usage_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "usage: hemoscope" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (BundleError("wrong"), 2),
        (MissingExtraError(package="torch", extra="train"), 2),
        (SeriesError("wrong"), 3),
        (DicomReadError(source="a", code="not_dicom", reason="wrong", remedy="Leave it out"), 3),
        (DataError("wrong"), 1),
        (TrainingError("wrong"), 1),
    ],
)
def test_an_error_is_one_line_on_stderr_and_a_code(
    error: HemoscopeError, code: int, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise error

    assert cli.main(command(fail)) == code == exit_code_of(error)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"hemoscope try: {error}\n"


def test_an_interrupt_exits_with_130(command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert cli.main(command(interrupt)) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_missing_extra_is_named_with_the_line_that_installs_it(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(lambda: pytest.fail("it must not start"), extra="train", packages=("argparse", "no_such_package"))
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "no_such_package is not installed. Install it, in a clone: make setup-train; from a wheel, " in said
    assert "python -m pip install 'hemoscope[train]'" in said


@pytest.mark.parametrize("extra", ["nifti", "study"])
def test_a_small_extra_does_not_bring_a_deep_learning_framework(
    extra: str, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command(lambda: 0, extra=extra, packages=("no_such_package",))) == 2
    line = f"in a clone: python -m pip install -e '.[{extra}]' -c constraints/{extra}.txt; from a wheel, "
    assert line in capsys.readouterr().err


def test_a_command_whose_extra_is_there_runs(command: Callable[..., list[str]]) -> None:
    assert cli.main(command(lambda: 0, extra="train", packages=("argparse",))) == 0


def test_check_extra_raises_before_anything_is_imported() -> None:
    one = Command(name="x", summary="", register=lambda _: None, extra="study", packages=("no_such_package",))
    with pytest.raises(MissingExtraError, match=re.escape("hemoscope[study]")):
        cli.check_extra(one)


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    code = (
        "import sys; from hemoscope import cli; from hemoscope.cli.commands import COMMANDS, Command\n"
        "def run(_):\n    [print('x' * 100) for _ in range(100000)]\n    return 0\n"
        "COMMANDS['try'] = Command(name='try', summary='', register=lambda p: p.set_defaults(run=run))\n"
        "sys.exit(cli.main(['try']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141
