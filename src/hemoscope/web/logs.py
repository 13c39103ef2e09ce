"""The server's log: to stderr, one line per event, and errors without their messages.

The message of an exception may quote a file, a header or a query; its type and its location in the program are enough
to find a fault, so nothing else is written.
"""

import logging
import logging.config
import sys
from pathlib import PurePath
from traceback import extract_tb
from types import TracebackType

_QUIET = {"level": "WARNING"}
_SILENT = {"level": "CRITICAL"}  # SQLAlchemy's pool reports as errors the lost connections that it replaces


class LocationFormatter(logging.Formatter):
    """Writes an exception as its type and traceback functions, innermost last, without its message."""

    def formatException(  # noqa: N802 (logging's own name)
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Return the types of the chain, and the locations of the last."""
        error = ei[1]
        chain = []
        while error is not None:
            chain.append(type(error).__name__)
            error = error.__cause__ or error.__context__
        locations = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in extract_tb(ei[2])]
        return f"{' from '.join(chain)} at {', '.join(locations[-8:])}"


def configure_logs() -> None:
    """Send everything from INFO up to stderr; uvicorn's own access log, which has paths, stays off."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "locations": {"()": LocationFormatter, "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "locations"}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn": _QUIET, "uvicorn.error": _QUIET, "alembic": _QUIET, "sqlalchemy": _SILENT},
        }
    )
