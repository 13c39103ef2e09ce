"""Runs tasks in parallel: on local Dask processes by default, on a Dask cluster, or in this process.

Results are yielded in order of completion. A task must not depend on where it runs.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

from hemoscope.errors import ConfigError, DataError, MissingExtraError

T = TypeVar("T")
R = TypeVar("R")
_CONNECT_SECONDS = 20
_AHEAD = 4  # tasks handed out for each thread of a worker, so that memory does not grow with their number
_SAFE_PATH = "PYTHONSAFEPATH"


class Run(Protocol):
    """Calls a function on every task and yields the results in order of completion."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterable[R]:
        """Yield one result per task."""
        ...


@contextmanager
def processes(*, workers: int | None = None, address: str | None = None) -> Iterator[Run]:
    """Start workers and yield a function that runs tasks on them.

    Args:
        workers: local processes; None: one per processor; 1: only this process.
        address: of a Dask scheduler, such as ``tcp://host:8786``, to use instead of local processes. Its workers need
            hemoscope and the same folders at the same paths. Dask's protocol transfers code: trusted networks only.

    Raises:
        ConfigError: fewer than one worker, both ``workers`` and ``address``, or no scheduler answers at the address.
        MissingExtraError: Dask is not installed.
        DataError: (while running) a worker ended repeatedly on one task.
    """
    if workers is not None and (workers < 1 or address is not None):
        msg = f"{workers} workers and address {address}: give at least one worker, or the address of a cluster"
        raise ConfigError(msg)
    count = workers or os.cpu_count() or 1
    if address is None and count == 1:
        yield map
        return
    with _client(count, address) as client:
        yield _run_on(client)


@contextmanager
def _client(workers: int, address: str | None) -> Iterator[Any]:
    library = _distributed()
    if address is not None:
        try:
            client = library.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            msg = f"no Dask scheduler answers at {address} ({type(error).__name__}). Start one: dask scheduler"
            raise ConfigError(msg) from error
        with client:
            yield client
        return
    # One thread per process: decoders need not be thread-safe. A task holds at most one series in memory.
    options: dict[str, Any] = {"threads_per_worker": 1, "processes": True, "memory_limit": 0}
    options["silence_logs"] = logging.CRITICAL  # what goes wrong is raised; the rest is about ending, on a busy machine
    # Without an address Dask takes its fixed port, on every interface; this one is free, and local.
    options["dashboard_address"] = "127.0.0.1:0"
    # Processes and threads inherit the mask: Ctrl+C reaches this thread alone, once it can end the others in order.
    with _safe_path():
        resource_tracker.ensure_running()  # it would unblock the signal when the first process starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _safe_path():
            cluster = library.LocalCluster(n_workers=workers, **options)
            with cluster, library.Client(cluster, set_as_default=False) as client:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                yield client
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let Python processes import nothing from the working directory (``-P``), also those that a library starts."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(package="distributed (Dask)", extra="study") from error
    return distributed


def _run_on(client: Any) -> Run:
    library = _distributed()

    def run(function: Callable[[T], R], tasks: Iterable[T], /) -> Iterator[R]:
        left = iter(tasks)
        waiting = _AHEAD * max(1, sum(client.nthreads().values()))
        futures = library.as_completed(loop=client.loop)
        try:
            for task in islice(left, waiting):
                futures.add(client.submit(function, task, pure=False))
            for future in futures:
                for task in islice(left, 1):
                    futures.add(client.submit(function, task, pure=False))
                yield future.result()
                future.release()
        except library.KilledWorker as error:
            msg = "a worker process ended repeatedly on one task, perhaps out of memory. Use fewer --workers"
            raise DataError(msg) from error

    return run
