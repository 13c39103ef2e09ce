"""Faults around a command: no reader, no space, no memory, Ctrl+C; each is named, with its exit code."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hemoscope import cli
from hemoscope.reports import output_folder

TRY = (
    "import sys; from hemoscope import cli; from hemoscope.cli.commands import COMMANDS, Command\n"
    "{run}\n"
    "COMMANDS['try'] = Command(name='try', summary='', register=lambda p: p.set_defaults(run=run))\n"
    "sys.exit(cli.main({words!r}))"
)
LINES = "def run(_):\n    [print('x' * 100) for _ in range({lines})]\n    return 0"
RICH = "def run(_):\n    import rich\n    [rich.print('x' * 100) for _ in range(999)]\n    return 0"


def command(run: str, *words: str) -> list[str]:
    return [sys.executable, "-c", TRY.format(run=run, words=list(words or ("try",)))]


def ended(words: list[str], **options: Any) -> tuple[int, str]:
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=60, check=False, **options)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("run", [LINES.format(lines=1), LINES.format(lines=9999), RICH])
@pytest.mark.parametrize("words", ["try", "--help"])
def test_a_full_disk_for_the_output_is_named(run: str, words: str) -> None:
    with Path("/dev/full").open("w") as full:
        code, said = ended(command(run, words), stdout=full)
    assert code == 1
    assert said == "hemoscope: standard output cannot be written (No space left on device). Give it another file\n"


@pytest.mark.parametrize("run", [LINES.format(lines=1), RICH])
@pytest.mark.parametrize("words", ["try", "--help"])
def test_a_reader_that_is_gone_ends_the_command_with_141(run: str, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert ended(command(run, words), stdout=writer) == (141, "")
    os.close(writer)


def test_an_output_that_is_closed_is_named_and_no_file_takes_its_place(tmp_path: Path) -> None:
    words = command(f"def run(_):\n    open({str(tmp_path / 'file')!r}, 'w').write('x')\n    return 0")
    code, said = ended(["sh", "-c", 'exec "$@" >&-', "sh", *words])
    assert code == 1
    assert said == "hemoscope: standard output is closed. Give it a file, or /dev/null\n"
    assert not (tmp_path / "file").exists()


def test_a_command_works_without_stderr() -> None:
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command("def run(_):\n    return 1 // 0")]
    assert subprocess.run(words, capture_output=True, timeout=60, check=False).returncode == 1
    words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command(LINES.format(lines=1))]
    assert subprocess.run(words, capture_output=True, timeout=60, check=False).stdout == b"x" * 100 + b"\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("MemoryError()", "hemoscope try: the memory is not sufficient. Free some, or give it less at a time\n"),
        ("RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')", "hemoscope try: the memory is not sufficient"),
        ("OSError(28, 'No space left on device')", "hemoscope try: No space left on device. Check that the file"),
        ("PermissionError(13, 'Permission denied', '/secret/a.csv')", "hemoscope try: a.csv: Permission denied. Check"),
    ],
)
def test_faults_of_the_machine_are_one_line(error: str, words: str) -> None:
    code, said = ended(command(f"def run(_):\n    raise {error}"), stdout=subprocess.PIPE)
    assert code == 1
    assert said.startswith(words)
    assert said.count("\n") == 1
    assert "/secret" not in said


def test_a_lack_of_memory_before_the_command_is_known_is_one_line() -> None:
    lacking = "def lack():\n    raise MemoryError\nfrom hemoscope.cli import commands\ncommands.build_parser = lack\n"
    program = f"import sys; from hemoscope import cli\n{lacking}sys.exit(cli.main(['info']))"
    code, said = ended([sys.executable, "-c", program])
    assert code == 1
    assert said == "hemoscope: the memory is not sufficient. Free some, or give it less at a time\n"


@pytest.mark.parametrize("words", [("serve",), ("listen", "node.toml")], ids=lambda words: words[0])
def test_what_keeps_a_server_from_loading_is_one_line_without_its_message(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "sqlalchemy.py").write_text("raise RuntimeError('WINTERBOTTOM')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    options = ["--storage", str(tmp_path / "storage")]
    code, said = ended([sys.executable, "-P", "-m", "hemoscope", *words, *options], env=environment)
    assert code == 1
    assert "WINTERBOTTOM" not in said
    assert said.count("\n") == 1
    assert said.index("the process ends: RuntimeError at ") < said.index("sqlalchemy.py:1 <module>")


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    done = subprocess.run(command("def run(_):\n    return 1 // 0"), capture_output=True, timeout=60, check=False)
    assert b"ZeroDivisionError" in done.stderr
    done = subprocess.run(
        command("def run(_):\n    raise RuntimeError('odd')"), capture_output=True, timeout=60, check=False
    )
    assert b"RuntimeError: odd" in done.stderr


def interrupted(run: str, interrupts: int = 1) -> tuple[int, str]:
    """Send SIGINT each time that the command prints a line."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(run), **options) as process:
        assert process.stdout is not None
        for _ in range(interrupts):
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
        return process.returncode or process.wait(60), process.communicate(timeout=60)[1]


WAIT = "    import time\n    print('ready', flush=True)\n    time.sleep(60)\n"


def test_ctrl_c_ends_a_command_with_130() -> None:
    assert interrupted(f"def run(_):\n{WAIT}") == (130, "\ninterrupted\n")


def test_a_second_ctrl_c_ends_a_clean_up_that_hangs() -> None:
    hangs = "    try:\n" + "".join(f"    {line}\n" for line in WAIT.splitlines()) + "    finally:\n"
    hangs += "".join(f"    {line}\n" for line in WAIT.splitlines())
    assert interrupted(f"def run(_):\n{hangs}", 2) == (130, "\ninterrupted\n")


def test_ctrl_c_while_modules_are_imported_ends_at_once(tmp_path: Path) -> None:
    """An import that would turn the interrupt into another error, as compiled modules do."""
    (tmp_path / "slow.py").write_text(
        "import time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\nexcept BaseException:\n"
        "    raise ImportError('failed to import') from None\n"
    )
    run = f"def run(_):\n    sys.path.insert(0, {str(tmp_path)!r})\n    import slow\n    return 0"
    assert interrupted(run) == (130, "\ninterrupted\n")


def test_pictures_removed_while_others_are_drawn_are_missed(
    tmp_path: Path, sample: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, output = output_folder.write_picture, tmp_path / "out"

    def remove_before(*arguments: Any, **options: Any) -> Path:
        shutil.rmtree(output / "overlays", ignore_errors=True)
        return write(*arguments, **options)

    monkeypatch.setattr(output_folder, "write_picture", remove_before)
    words = ["predict", str(sample), "--model", str(tiny_bundle), "--output", str(output), "--heatmaps", "--threads=1"]
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "pictures in out were removed while others were drawn. Run it again, without --resume" in said
    assert not (output / "findings.json").exists()


def test_pictures_that_cannot_be_written_end_the_command(
    tmp_path: Path, sample: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "overlays").write_text("a file where the folder of pictures would be")
    assert cli.main(["predict", str(sample), "--model", str(tiny_bundle), "--output", str(output)]) == 2
    assert "cannot write to out: " in capsys.readouterr().err


@pytest.fixture
def sample() -> Path:
    """A folder of a few real slices."""
    return Path(__file__).parents[2] / "examples" / "sample"
