"""Runs tasks in parallel: on local processes by default, on a Dask cluster, or in this process.

Results are yielded in order of completion. A task must not depend on where it runs.
"""

import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing import get_context, resource_tracker
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from hemoscope.errors import ConfigError, DataError, MissingExtraError
from hemoscope.processors import available_processors

T = TypeVar("T")
R = TypeVar("R")
_CONNECT_SECONDS = 20
_AHEAD = 4  # tasks handed out for each process, so that memory does not grow with their number
_SAFE_PATH = "PYTHONSAFEPATH"  # as -P: import nothing from the working directory
# glibc (mallopt(3)) returns memory to the system with each slice, and faults it in again page by page for the next one.
_KEPT_BYTES = 256 << 20
_KEEP_FREED_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES), "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES)}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_ENDED = "worker processes ended repeatedly, perhaps out of memory. Use fewer --workers"


class Run(Protocol):
    """Calls a function on every task and yields the results in order of completion."""

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterable[R]:
        """Yield one result per task."""
        ...


@contextmanager
def processes(*, workers: int | None = None, address: str | None = None) -> Iterator[Run]:
    """Start workers and yield a function that runs tasks on them.

    Args:
        workers: local processes; None: one per processor available; 1: only this process.
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
    count = workers or available_processors()
    if address is not None:
        with _client(address) as client:
            yield _run_on(client)
    elif count == 1:
        with _freed_memory_kept():
            yield map
    else:
        with _local(count) as run:
            yield run


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Do in this process what worker processes inherit; without glibc, nothing. At the end, memory is returned.

    The settings stay: those from before cannot be had again, since glibc no longer adapts what was set.
    """
    library = ctypes.CDLL(None)
    known = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD) if known else ():
        library.mallopt(option, _KEPT_BYTES)
    try:
        yield
    finally:
        if known:
            library.malloc_trim(0)


@contextmanager
def _local(workers: int) -> Iterator[Run]:
    """Start local processes; if they end with a task, others take over once."""
    with ExitStack() as pools:

        def started() -> ProcessPoolExecutor:
            pool = _started_pool(workers)
            pools.callback(pool.shutdown, cancel_futures=True)
            return pool

        first = started()

        def run(function: Callable[[T], R], tasks: Iterable[T], /) -> Iterator[R]:
            handed, pool, again = _Handed(function, tasks, most=_AHEAD * workers), first, True
            while True:
                try:
                    yield from handed.results(pool)
                except BrokenProcessPool as error:
                    if not again:
                        raise DataError(_ENDED) from error
                    again, pool = False, started()
                else:
                    return

        yield run


class _Handed(Generic[T, R]):
    """Tasks that were handed to a pool and have no result yet; a few at a time, so that memory does not grow."""

    def __init__(self, function: Callable[[T], R], tasks: Iterable[T], *, most: int) -> None:
        """Hand out at most ``most`` tasks at a time."""
        self._function, self._upcoming, self._most = function, iter(tasks), most
        self._waiting: deque[T] = deque()
        self._running: dict[Future[R], T] = {}
        self._done: SimpleQueue[Future[R]] = SimpleQueue()

    def results(self, pool: Executor) -> Iterator[R]:
        """Yield results in order of completion; a task that a broken pool had begins again with the next one."""
        self._waiting.extendleft(self._running.values())
        self._running.clear()
        # Not concurrent.futures.wait: interrupted by Ctrl+C, it may keep locks for which the pool's own thread waits.
        self._done = SimpleQueue()
        while self._hand_out(pool):
            future = self._done.get()
            result = future.result()
            del self._running[future]
            yield result

    def _hand_out(self, pool: Executor) -> bool:
        """Fill the pool; returns whether anything runs."""
        room = self._most - len(self._running)
        self._waiting.extend(islice(self._upcoming, max(room - len(self._waiting), 0)))
        while self._waiting and len(self._running) < self._most:
            task = self._waiting[0]
            future = pool.submit(self._function, task)
            self._running[future] = task
            self._waiting.popleft()
            future.add_done_callback(self._done.put)
        return bool(self._running)


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
            raise DataError(_ENDED) from error

    return run
