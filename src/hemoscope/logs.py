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
from traceback import extract_tb
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
    types = []
    while error is not None:
        types.append(type(error).__name__)
        error = error.__cause__ or error.__context__
    frames = extract_tb(record.exc_info[2])[-_PLACES:]
    return {"error": types, "at": [f"{PurePath(one.filename).name}:{one.lineno} {one.name}" for one in frames]}


def configure_logs(form: str = "text", *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send everything from ``level`` up to a stream, by default stderr, and whatever no code caught along with it.

    Args:
        form: ``text`` or ``json``.
        level: uvicorn's own access log, which has paths, stays off whatever it is.
        stream: of ``own_stream`` where native code may print too.
    """
    import logging.config  # every command imports this module for its --help

    formatter = JsonFormatter if form == "json" else TextFormatter
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"safe": {"()": formatter}},
            "handlers": {
                "stream": {
                    "class": "logging.StreamHandler",
                    "stream": stream or sys.stderr,
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
    logging.raiseExceptions = False  # a message that cannot be written would be printed with its arguments
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def own_stream() -> TextIO:
    """Take stderr for the log alone: what native code prints there, and on stdout, may quote a file and is dropped."""
    stream = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for printed in (1, 2):
        os.dup2(nowhere, printed)
    os.close(nowhere)
    return stream


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("the process ends", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "unknown"
        _log.error("thread %s ended", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        _log.error("an error that nobody can catch", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def _log_warning(
    message: Warning | str,  # noqa: ARG001 - may quote a value
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    _log.warning("%s at %s:%d", category.__name__, PurePath(filename).name, lineno)
