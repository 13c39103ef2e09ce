"""``hemoscope serve`` with a short lease, so that rounds of faults take seconds: ``python -m tests.torture.serve``."""

import os
import sys
import threading
import time
from dataclasses import dataclass

from hemoscope import cli
from hemoscope.cli import settings_sources
from hemoscope.store.settings import Settings

LEASE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickSettings(Settings):
    """Settings whose leases run out soon."""

    lease_s: float = LEASE_S


if __name__ == "__main__":
    settings_sources.Settings = QuickSettings  # type: ignore[misc]
    if "FAKETIME_TIMESTAMP_FILE" in os.environ:
        # libfaketime passes clock_nanosleep, which Python sleeps by, times that the kernel refuses as invalid.
        time.sleep = lambda seconds: threading.Event().wait(seconds) and None
    sys.exit(cli.main(["serve", *sys.argv[1:]]))
