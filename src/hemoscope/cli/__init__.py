"""The ``hemoscope`` command: parse, call one function, print. Everything heavy is imported when a command runs.

This module turns errors into one line on stderr and an exit code; see ``exit_codes``.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from hemoscope.cli.commands import COMMANDS, Command, build_parser
from hemoscope.cli.exit_codes import ExitCode, exit_code_of
from hemoscope.errors import HemoscopeError, MissingExtraError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; wrong usage exits at once with 2."""
    _tolerate_any_terminal()
    arguments = build_parser().parse_args(argv)
    command: Command = COMMANDS[arguments.command]
    try:
        check_extra(command)
        return int(arguments.run(arguments))
    except HemoscopeError as error:
        sys.stderr.write(f"hemoscope {command.name}: {error}\n")
        return exit_code_of(error)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`| head`): flushing stdout at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE


def check_extra(command: Command) -> None:
    """Raise an error before a command starts if a package of its extra is missing.

    Raises:
        MissingExtraError: names the package and the command that installs it.

    """
    for package in command.packages:
        if find_spec(package) is None:
            raise MissingExtraError(package=package, extra=command.extra)


def _tolerate_any_terminal() -> None:
    """Print ``?`` on a terminal without Unicode instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
