"""Runs the state machine and the API's contract for a while, and counts their steps and requests."""

import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from .tally import Count, Tally

_EXAMPLES = 5
_STEPS = 40
_REQUESTS = 3


def run_store_machine(tally: Tally, seconds: float) -> Count:
    """Run the state machine of store and queue from new seeds until the time is up."""
    from .store_machine import StoreMachine

    chosen = settings(
        max_examples=_EXAMPLES,
        stateful_step_count=_STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def once(number: int) -> int:
        before = StoreMachine.steps
        run_state_machine_as_test(seed(number)(StoreMachine), settings=chosen)
        return StoreMachine.steps - before

    logging.getLogger("hemoscope").setLevel(logging.CRITICAL)  # faults are logged by the thousand
    return _repeat(tally, "store and queue", seconds, once)


def run_contract(tally: Tally, seconds: float) -> Count:
    """Send requests that schemathesis makes from the API's own document until the time is up."""
    from ..web.test_contract import application_in, document_of, hold_to_the_document
    from .store_machine import files_of, predictor

    with tempfile.TemporaryDirectory(prefix="hemoscope-torture-") as folder:
        made = application_in(Path(folder), predictor(), _zip(files_of("study")))
        with closing(made):
            document = document_of(next(made))
            return _repeat(
                tally,
                "REST requests",
                seconds,
                lambda number: hold_to_the_document(document, _REQUESTS, random_seed=number),
            )


def _zip(files: tuple[bytes, ...]) -> bytes:
    from .dicom_targets import zip_of

    return zip_of({f"{number}.dcm": content for number, content in enumerate(files)})


def _repeat(tally: Tally, kind: str, seconds: float, once: Callable[[int], int]) -> Count:
    """Call a function with new seeds until the time is up; an error is kept with its seed."""
    count, end = Count(), time.monotonic() + seconds
    while time.monotonic() < end:
        number = time.time_ns() % 2**32
        try:
            count.done += once(number)
        except Exception:  # noqa: BLE001 - this is what is looked for
            count.found += 1
            kept = tally.keep(kind, f"seed-{number}.txt", traceback.format_exc().encode())
            sys.stderr.write(f"{kind}: seed {number} failed, see {kept}\n")
    return count
