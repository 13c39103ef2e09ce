"""Exit codes, the command's contract with scripts."""

from enum import IntEnum

from hemoscope.errors import (
    BundleError,
    ConfigError,
    DicomReadError,
    HemoscopeError,
    MissingExtraError,
    SeriesError,
)


class ExitCode(IntEnum):
    """The exit codes; 2 is also argparse's code for wrong usage."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOTHING_READ = 3
    SOME_REFUSED = 4
    INCOMPLETE = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def exit_code_of(error: HemoscopeError) -> ExitCode:
    """Choose the code for an error that ended a command."""
    if isinstance(error, DicomReadError | SeriesError):
        return ExitCode.NOTHING_READ
    if isinstance(error, BundleError | ConfigError | MissingExtraError):
        return ExitCode.USAGE
    return ExitCode.FAILED
