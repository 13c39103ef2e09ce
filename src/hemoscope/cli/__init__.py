"""The ``hemoscope`` command: parse, call one function, print. Everything heavy is imported when a command runs.

This module turns errors into one line on stderr and an exit code; see ``exit_codes``. At its top it imports almost
nothing, so that Ctrl+C is handled as early as Python allows.
"""

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from hemoscope.cli.commands import Command

# What PyTorch and OpenVINO report instead of a MemoryError.
_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; wrong usage exits at once with 2."""
    with _interruptible():
        try:
            return _ended(argv)
        except KeyboardInterrupt:
            _say("\ninterrupted\n")
            return _INTERRUPTED


def check_extra(command: "Command") -> None:
    """Raise an error before a command starts if a package of its extra is missing.

    Raises:
        MissingExtraError: names the package and the command that installs it.

    """
    from importlib.util import find_spec

    from hemoscope.errors import MissingExtraError

    for package in command.packages:
        if find_spec(package) is None:
            raise MissingExtraError(package=package, extra=command.extra)


@contextmanager
def _interruptible() -> "Iterator[None]":
    """Let Ctrl+C raise KeyboardInterrupt, and end the process at once while modules are imported, or the second time.

    Raised within an import, it may be lost (with the import's lock held for ever) or come out as another error.
    """
    pressed = False

    def interrupt(_number: int, frame: "FrameType | None") -> None:
        nonlocal pressed
        if pressed or _imports(frame):
            _say("\ninterrupted\n")
            os._exit(_INTERRUPTED)
        pressed = True
        raise KeyboardInterrupt

    # Where a shell or a program decided about Ctrl+C, or in another thread than the main one, nothing is changed.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _imports(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class _Output(io.FileIO):
    """Standard output that remembers its error: argparse and rich keep one to themselves."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write bytes as FileIO does."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _ended(argv: Sequence[str] | None) -> int:
    """Run a command to its end, with everything printed; return its exit code."""
    from hemoscope.cli.exit_codes import ExitCode

    if not _open_streams():
        _say("hemoscope: standard output is closed. Give it a file, or /dev/null\n")
        return ExitCode.FAILED
    output, usage = _watched_output(), None
    try:
        code = _run(argv, output)
    except SystemExit as error:
        usage = error
    with suppress(OSError):  # that ``output`` remembers
        sys.stdout.flush()
    if output.error is not None:
        # What is still in the buffer cannot be written either, and would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        if isinstance(output.error, BrokenPipeError):
            return ExitCode.BROKEN_PIPE
        reason = output.error.strerror or output.error
        _say(f"hemoscope: standard output cannot be written ({reason}). Give it another file\n")
        return ExitCode.FAILED
    if usage is not None:
        raise usage
    return code


def _run(argv: Sequence[str] | None, output: _Output) -> int:
    """Parse and run a command; an error of its own is one line on stderr."""
    from hemoscope.cli.exit_codes import ExitCode, exit_code_of
    from hemoscope.errors import HemoscopeError

    name = "hemoscope"
    try:
        from hemoscope.cli.commands import COMMANDS, build_parser

        arguments = build_parser().parse_args(argv)
        command = COMMANDS[arguments.command]
        name = f"hemoscope {command.name}"
        check_extra(command)
        return int(arguments.run(arguments))
    except HemoscopeError as error:
        _say(f"{name}: {error}\n")
        return exit_code_of(error)
    except OSError as error:
        if output.error is None:
            file = "" if error.filename is None else f"{Path(os.fsdecode(error.filename)).name}: "
            remedy = "Check that the file is there, who may write to it, and the free space"
            _say(f"{name}: {file}{error.strerror or error}. {remedy}\n")
        return ExitCode.FAILED
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        _say(f"{name}: the memory is not sufficient. Free some, or give it less at a time\n")
        return ExitCode.FAILED


def _open_streams() -> bool:
    """Open standard streams that are closed, lest a file gets their number; return whether stdout was open."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    return sys.stdout is not None


def _watched_output() -> _Output:
    """Put a stream that remembers its error in the place of stdout; what a program put there itself stays.

    Terminals without Unicode show ``?`` instead of failing.
    """
    output = _Output(1, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        encoding, lines = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encoding, "replace", line_buffering=lines)
    return output


def _say(text: str) -> None:
    """Write to stderr; the exit code is all there is if that fails, too."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
