"""Work on many folders, of which one that the disk cannot handle keeps no other one waiting."""

import logging
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

_log = logging.getLogger("hemoscope.store")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def for_each(items: Iterable[_Item], act: Callable[[_Item], _Result], *, what: str) -> list[_Result]:
    """Call ``act`` with each item and return the results.

    Those that raise an OSError are counted in the log, with the first error, and are left for the next time. Other
    errors end the work: they are of the database or of the whole storage, and would repeat with every item.
    """
    results, errors = list[_Result](), list[OSError]()
    for item in list(items):
        try:
            results.append(act(item))
        except OSError as error:
            errors.append(error)
    if errors:
        why = os.strerror(errors[0].errno) if errors[0].errno else type(errors[0]).__name__
        _log.error("%d %s cannot be handled (%s); they are tried again later", len(errors), what, why)
    return results
