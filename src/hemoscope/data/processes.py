"""Many tasks on many processes: Dask's local ones by default, a Dask cluster by its address, or this process alone.

Results come as they are done, in any order. What a task does must not depend on where it runs.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from hemoscope.errors import ConfigError, DataError, MissingExtraError

T = TypeVar("T")
R = TypeVar("R")
_CONNECT_SECONDS = 20


class Run(Protocol):
    """Call a function on every task and yield the results as they are done."""

    def __call__(self, function: Callable[[T], R], tasks: Sequence[T], /) -> Iterable[R]:
        """Yield one result a task."""
        ...


@contextmanager
def processes(*, workers: int | None = None, address: str | None = None) -> Iterator[Run]:
    """Start workers and yield a way to run tasks on them.

    Args:
        workers: local processes; None: one a processor; 1: no other process than this one.
        address: of a Dask scheduler, as ``tcp://host:8786``, whose workers see the same folders by the same paths and
            have hemoscope installed; instead of local processes. Dask's wire carries code: trusted networks only.

    Raises:
        ConfigError: fewer than one worker, both ``workers`` and ``address``, or nobody answers at the address.
        MissingExtraError: Dask is not installed.
        DataError: (while running) a worker ended again and again on one task.
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
    # One thread a process: decoders are safe alone, and NumPy needs no more. One series is the most a task holds.
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": None, "memory_limit": 0}
    cluster = library.LocalCluster(n_workers=workers, **options)
    with cluster, library.Client(cluster, set_as_default=False) as client:
        yield client


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
            msg = "a worker process ended several times on one task, out of memory perhaps. Use fewer --workers"
            raise DataError(msg) from error

    return run
