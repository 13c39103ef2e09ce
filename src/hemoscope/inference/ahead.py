"""Scores a series while it is still decoded, so that no processor waits for the end of a stage.

Whether a series is read at all is known only when all of it is decoded: a slice may be refused, or all of its values.
Scores made ahead are then thrown away, and what is read instead is scored as if there had been none. So are errors: if
they were not of a slice that never came, they come again.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from types import TracebackType
from typing import Generic, Self, TypeVar

from hemoscope.dicom.arrival import SliceArrival
from hemoscope.progress import Progress
from hemoscope.volume import HounsfieldVolume

__all__ = ["ScoresAhead"]

R = TypeVar("R")


class ScoresAhead(Generic[R]):
    """At most one volume at a time, scored in a thread that has ended when the block ends."""

    def __init__(self, score: Callable[[HounsfieldVolume, Progress], R]) -> None:
        """Score with a function, which is called in another thread."""
        self._score = score
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="score-ahead")
        self._begun: tuple[HounsfieldVolume, Future[R], Queue[tuple[int, int] | None]] | None = None

    def __enter__(self) -> Self:
        """Begin without a volume."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop, and wait until the thread has ended."""
        self._stop()
        self._pool.shutdown()

    def begin(self, volume: HounsfieldVolume) -> None:
        """Score a volume whose slices are about to be decoded; an earlier one was refused."""
        self._stop()
        shown: Queue[tuple[int, int] | None] = Queue()
        future = self._pool.submit(self._score, volume, lambda done, total: shown.put((done, total)))
        future.add_done_callback(lambda _: shown.put(None))
        self._begun = volume, future, shown

    def result(self, volume: HounsfieldVolume, progress: Progress | None) -> R | None:
        """Wait for the scores of a decoded volume; None if it is not the one that was begun, or scoring failed."""
        if self._begun is None or not _same(self._begun[0], volume):
            self._stop()
            return None
        _, future, shown = self._begun
        for done, total in iter(shown.get, None):
            if progress is not None:
                progress(done, total)
        return None if future.exception() is not None else future.result()

    def _stop(self) -> None:
        if self._begun is None:
            return
        volume, future, _ = self._begun
        self._begun = None
        if isinstance(volume.arrival, SliceArrival):
            volume.arrival.stop()
        future.cancel()
        if not future.cancelled():
            future.exception()  # waits


def _same(begun: HounsfieldVolume, decoded: HounsfieldVolume) -> bool:
    """Whether a decoded volume is what was begun: the same memory, all its slices."""
    one, other = begun.hounsfield, decoded.hounsfield
    return one.shape == other.shape and one.ctypes.data == other.ctypes.data
