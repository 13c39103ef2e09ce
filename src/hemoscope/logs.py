"""The log of server processes and their workers: one line per event, without anything that a file or a user brought.

The message of an exception or of a warning may quote a file, a header or a query, and so may what a library logs. Types
and places in the program are enough to find a fault, so nothing else of these is written. Hemoscope's own messages are
written whole; they are made of nothing but counts, codes, random IDs and names of options. What cannot be printed is
escaped all the same, so that one event is one line and no terminal obeys it.
"""

import json
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType
from typing import Any, TextIO

FORMATS = ("text", "json")
_OURS = "hemoscope"
_QUIET = {"level": "WARNING"}
# SQLAlchemy's pool reports as errors the lost connections that it replaces. The others report what a peer sends, and a
# peer may send much.
_SILENT = {"level": "CRITICAL"}
_PLACES = 8
_AGAIN_S = 60.0
_LEFT_OUT = "left_out"
_log = logging.getLogger(__name__)


class TextFormatter(logging.Formatter):
    """Writes time, level, logger and message; of an exception its types and places."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        error = error_of(record)
        fault = f": {' from '.join(error['error'])} at {', '.join(error['at'])}" if error else ""
        return escaped(f"{self.formatTime(record)} {record.levelname} {record.name}: {message_of(record)}{fault}")


class JsonFormatter(logging.Formatter):
    """Writes one JSON object: time (UTC), level, logger, process, message, and what the event is made of."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": message_of(record),
        }
        return json.dumps(line | getattr(record, "fields", {}) | error_of(record))


def message_of(record: logging.LogRecord) -> str:
    """The message if it is our own, else where in which module it was logged."""
    if not _is_ours(record):
        left_out = getattr(record, _LEFT_OUT, 0)
        more = f"; {left_out} more such lines since the last one" if left_out else ""
        return f"logged at {PurePath(record.pathname).name}:{record.lineno} {record.funcName}{more}"
    return record.getMessage()


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == _OURS or record.name.startswith(f"{_OURS}.")


class OnceAMinute(logging.Filter):
    """Lets each place in a library log one line a minute: what it logs, a stranger may cause as often as they like."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without any place; there are as many as the libraries have."""
        super().__init__()
        self._clock = clock
        self._logged: dict[tuple[Any, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a line; the next one of its place says how many were not."""
        if _is_ours(record):
            return True
        place = (record.pathname, record.lineno, *error_of(record).get("at", ()))
        now, (logged, left_out) = self._clock(), self._logged.get(place, (float("-inf"), 0))
        if now - logged < _AGAIN_S:
            self._logged[place] = logged, left_out + 1
            return False
        self._logged[place] = now, 0
        setattr(record, _LEFT_OUT, left_out)
        return True


def escaped(text: str) -> str:
    r"""Return text with an escape in place of each character that cannot be printed.

    Examples:
        >>> escaped("é\x1b[2J\n")
        'é\\x1b[2J\\n'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def error_of(record: logging.LogRecord) -> dict[str, Any]:
    """The types of an exception and its causes, and the innermost places of the first; empty without an exception."""
    if not record.exc_info or record.exc_info[1] is None:
        return {}
    error: BaseException | None = record.exc_info[1]
    types: dict[int, str] = {}
    while error is not None and id(error) not in types:  # ``raise error from error`` has no first cause
        types[id(error)] = type(error).__name__
        error = error.__cause__ or error.__context__
    # Not by extract_tb, which reads the files of the program: there may be no descriptor or memory left.
    places = [(frame.f_code, line) for frame, line in walk_tb(record.exc_info[2])][-_PLACES:]
    at = [f"{PurePath(code.co_filename).name}:{line} {code.co_name}" for code, line in places]
    return {"error": list(types.values()), "at": at}


def configure_logs(form: str = "text", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send everything from ``level`` up to a stream, by default stderr, and whatever no code caught along with it.

    Args:
        form: ``text`` or ``json``.
        level: uvicorn's own access log, which has paths, stays off whatever it is.
        stream: of ``own_stream`` where native code may print too.
    """
    import logging.config  # every command imports this module for its --help

    logging.raiseExceptions = False  # or a handler of a library prints the arguments of a record that it cannot write
    formatter = JsonFormatter if form == "json" else TextFormatter
    alone = _Alone(form, stream or sys.stderr)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"safe": {"()": formatter}},
            "handlers": {
                "stream": {
                    "()": _Handler,
                    "stream": stream or sys.stderr,
                    "alone": alone,
                    "formatter": "safe",
                    "filters": ["bounded"],
                }
            },
            "filters": {"bounded": {"()": OnceAMinute}},
            "root": {"level": level, "handlers": ["stream"]},
            "loggers": {
                **dict.fromkeys(("uvicorn", "uvicorn.error", "alembic"), _QUIET),
                **dict.fromkeys(("sqlalchemy", "pydicom", "pynetdicom", "python_multipart"), _SILENT),
            },
        }
    )
    uncaught = _Uncaught(alone)
    sys.excepthook = uncaught.in_main
    threading.excepthook = uncaught.in_thread
    sys.unraisablehook = uncaught.unraisable
    warnings.showwarning = _log_warning


def own_stream(descriptor: int = 2) -> TextIO:
    """Take a descriptor for the log alone, by default stderr.

    What native code prints on stdout and stderr may quote a file; it is dropped.
    """
    stream = os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="replace", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for printed in (1, 2):
        os.dup2(nowhere, printed)
    os.close(nowhere)
    return stream


class _Alone:
    """Writes the line of an error without ``logging``, where that fails: no memory left, or Python ends.

    Python clears its modules while it ends. So this uses nothing but builtins and what it was made with.
    """

    def __init__(self, form: str, stream: TextIO) -> None:
        """Write in this format to this stream."""
        self._stream, self._process, self._gmtime, self._strftime = stream, os.getpid(), time.gmtime, time.strftime
        self._line = "{0} {1} hemoscope.logs: {3}\n"
        if form == "json":
            parts = '"time": "{0}", "level": "{1}", "logger": "hemoscope.logs", "process": {2}, "message": "{3}"'
            self._line = f"{{{{{parts}}}}}\n"

    def write(self, level: str, message: str, error: BaseException, trace: TracebackType | None) -> None:
        """Write type and innermost place of an error; raise nothing."""
        try:
            place = ""
            while trace is not None:
                code = trace.tb_frame.f_code
                place = f" at {code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}"
                trace = trace.tb_next
            moment = self._strftime("%Y-%m-%dT%H:%M:%S+00:00", self._gmtime())
            text = f"{message}: {type(error).__name__}{place}"
            self._stream.write(self._line.format(moment, level, self._process, text))
            self._stream.flush()
        except BaseException:  # noqa: BLE001, S110 - nothing more can be done, and Python would print it
            pass


class _Handler(logging.StreamHandler[TextIO]):
    """Logs a line, or else one that says why not: no caller gets an error, and nothing prints a record's arguments."""

    def __init__(self, stream: TextIO, alone: _Alone) -> None:
        """Log to a stream."""
        super().__init__(stream)
        self._alone = alone

    def handle(self, record: logging.LogRecord) -> bool:
        """Log a line; filters may fail, too."""
        try:
            return super().handle(record)
        except Exception:  # noqa: BLE001 - a line less ends no work
            self.handleError(record)
            return False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        """Say that a line is missing, with the error that it was about, or else the one that kept it away."""
        reason = sys.exc_info()[1]
        error = (record.exc_info and record.exc_info[1]) or reason
        if reason is not None and error is not None:
            message = f"a line could not be written ({type(reason).__name__})"
            self._alone.write("ERROR", message, error, error.__traceback__)


class _Uncaught:
    """Logs what no code caught. Its methods raise nothing: Python would print both errors with their messages."""

    def __init__(self, alone: _Alone) -> None:
        """Log; once Python ends, ``alone``."""
        self._alone, self._log, self._is_ending = alone, _log, sys.is_finalizing

    def in_main(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Be ``sys.excepthook``."""
        self._report("CRITICAL", "the process ends", error or kind(), trace)

    def in_thread(self, args: threading.ExceptHookArgs) -> None:
        """Be ``threading.excepthook``."""
        if args.exc_value is not None and args.exc_type is not SystemExit:
            name = args.thread.name if args.thread is not None else "unknown"
            self._report("ERROR", f"thread {name} ended", args.exc_value, args.exc_traceback)

    def unraisable(self, args: "sys.UnraisableHookArgs") -> None:
        """Be ``sys.unraisablehook``."""
        if args.exc_value is not None:
            self._report("ERROR", "an error that nobody can catch", args.exc_value, args.exc_traceback)

    def _report(self, level: str, message: str, error: BaseException, trace: TracebackType | None) -> None:
        if self._is_ending():
            self._alone.write(level, message, error, trace)
            return
        try:
            log = self._log.critical if level == "CRITICAL" else self._log.error
            log("%s", message, exc_info=(type(error), error, trace))
        except BaseException:  # noqa: BLE001 - Python would print it
            self._alone.write(level, message, error, trace)


def _log_warning(
    message: Warning | str,  # noqa: ARG001 - may quote a value
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    _log.warning("%s at %s:%d", category.__name__, PurePath(filename).name, lineno)
