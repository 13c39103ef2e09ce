"""The server's log: to stderr, a line an event, and errors without their words.

The message of an exception may quote a file, a header or a query; its type and its place in the program are enough to
find a fault, so that is all that is written.
"""

import logging
import logging.config
import sys
from pathlib import PurePath
from traceback import extract_tb
from types import TracebackType

_QUIET = {"level": "WARNING"}


class PlacesFormatter(logging.Formatter):
    """Writes of an exception its type and the functions it passed, innermost last, and nothing of its message."""

    def formatException(  # noqa: N802 (logging's own name)
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """Return the types of the chain, and the places of the last."""
        error = ei[1]
        chain = []
        while error is not None:
            chain.append(type(error).__name__)
            error = error.__cause__ or error.__context__
        places = [f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in extract_tb(ei[2])]
        return f"{' from '.join(chain)} at {', '.join(places[-8:])}"


def configure_logs() -> None:
    """Send everything from INFO up to stderr; uvicorn's own access log, which has paths, stays off."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"places": {"()": PlacesFormatter, "fmt": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "places"}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn": _QUIET, "uvicorn.error": _QUIET, "alembic": _QUIET, "sqlalchemy": _QUIET},
        }
    )
