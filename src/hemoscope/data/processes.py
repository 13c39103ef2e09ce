"""Runs tasks in parallel: on local processes by default, on a Dask cluster, or in this process.

Results are yielded in order of completion. A task must not depend on where it runs.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, resource_tracker
from typing import Any, Protocol, TypeVar

from hemoscope.errors import ConfigError, DataError, MissingExtraError

T = TypeVar("T")
R = TypeVar("R")
_CONNECT_SECONDS = 20
_SAFE_PATH = "PYTHONSAFEPATH"  # as -P: import nothing from the working directory
# glibc (mallopt(3)) returns memory to the system with each slice, and faults it in again page by page for the next one.
_KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "268435456", "MALLOC_MMAP_THRESHOLD_": "268435456"}
_ENDED = "worker processes ended repeatedly, perhaps out of memory. Use fewer --workers"


class Run(Protocol):
    """Calls a function on every task and yields the results in order of completion."""

    def __call__(self, function: Callable[[T], R], tasks: Sequence[T], /) -> Iterable[R]:
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
        MissingExtraError: there is an address, and Dask is not installed.
        DataError: (while running) workers ended repeatedly.
    """
    if workers is not None and (workers < 1 or address is not None):
        msg = f"{workers} workers and address {address}: give at least one worker, or the address of a cluster"
        raise ConfigError(msg)
    count = workers or os.cpu_count() or 1
    if address is not None:
        with _client(address) as client:
            yield _run_on(client)
    elif count == 1:
        yield map
    else:
        with _local(count) as run:
            yield run


@contextmanager
def _local(workers: int) -> Iterator[Run]:
    """Start local processes; if they end with a task, others take over once."""
    with ExitStack() as pools:

        def started() -> ProcessPoolExecutor:
            pool = _started_pool(workers)
            pools.callback(pool.shutdown, cancel_futures=True)
            return pool

        pool = started()

        def run(function: Callable[[T], R], tasks: Sequence[T], /) -> Iterator[R]:
            nonlocal pool
            left = dict(enumerate(tasks))
            for again in (True, False):
                places = {pool.submit(function, task): place for place, task in left.items()}
                try:
                    for future in as_completed(places):
                        result = future.result()
                        del left[places.pop(future)]
                        yield result
                except BrokenProcessPool as error:
                    if not again:
                        raise DataError(_ENDED) from error
                    pool = started()
                else:
                    return

        yield run


def _started_pool(workers: int) -> ProcessPoolExecutor:
    """Start all processes at once, with what they must inherit.

    Ctrl+C reaches this process alone, which ends the others in order: they inherit a mask that blocks its signal.
    """
    with _environment({_SAFE_PATH: "1"}):
        resource_tracker.ensure_running()  # it would unblock the signal when the first process starts
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment({_SAFE_PATH: "1", **_KEEP_FREED_MEMORY}):
            for _ in range(workers):  # each call starts a process while none is idle
                pool.submit(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pool


@contextmanager
def _client(address: str) -> Iterator[Any]:
    library = _distributed()
    try:
        client = library.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        msg = f"no Dask scheduler answers at {address} ({type(error).__name__}). Start one: dask scheduler"
        raise ConfigError(msg) from error
    with client:
        yield client


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started meanwhile, also by a library."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(package="distributed (Dask)", extra="study") from error
    return distributed


def _run_on(client: Any) -> Run:
    library = _distributed()

    def run(function: Callable[[T], R], tasks: Sequence[T], /) -> Iterator[R]:
        futures = client.map(function, tasks, pure=False)
        try:
            for future in library.as_completed(futures, loop=client.loop):
                yield future.result()
                future.release()
        except library.KilledWorker as error:
            raise DataError(_ENDED) from error

    return run
