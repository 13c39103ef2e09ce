"""A worker process: leases one upload after the other and reads it with a model that stays loaded.

Started by ``store.supervisor`` as ``python -m hemoscope.store.worker``. It ends when its standard input does, that is
when its parent ends, however that happens: it gives its job back first. A kill -9 leaves the job to the lease.
"""

import logging
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

from hemoscope.errors import HemoscopeError, StoreError
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.predictor import Predictor
from hemoscope.store.jobs import Job, JobFailure, LeaseLostError
from hemoscope.store.reading import UploadReader
from hemoscope.store.store import Store, open_store
from hemoscope.store.worker_settings import WorkerSettings

_log = logging.getLogger("hemoscope.store")
_BEATS_IN_A_LEASE = 6
_PAUSE_WITHOUT_DATABASE_S = 1.0
_COURTESY = 5  # where processors are short, the page goes before the reading of the next study
_PACKAGE = Path(__file__).parents[1]


class Pulse:
    """The thread that keeps the worker's lease while it reads, and that ends the process in order."""

    def __init__(self, store: Store, worker_id: str) -> None:
        """Beat for this worker."""
        self._store = store
        self._worker_id = worker_id
        self._job: Job | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to beat, and to watch standard input and SIGTERM."""
        signal.signal(signal.SIGTERM, lambda _signal, _frame: self._stop.set())
        threading.Thread(target=self._watch_parent, name="watch-parent", daemon=True).start()
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def hold(self, job: Job | None) -> None:
        """Say which job is being read."""
        self._job = job

    def _watch_parent(self) -> None:
        # Ends when the parent closes its end, or ends. Not through sys.stdin: its lock would be held at the exit.
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._stop.set()

    def _run(self) -> None:
        pause = self._store.jobs.lease_time.total_seconds() / _BEATS_IN_A_LEASE
        while not self._stop.wait(pause):
            try:
                self._store.jobs.beat(self._worker_id, self._job)
            except StoreError as error:  # the database may come back before the lease ends
                _log.warning("worker cannot beat: %s", error.code)
        self._end()

    def _end(self) -> None:
        """Give the job back and end the process, whatever the main thread is computing."""
        try:
            if self._job is not None:
                self._store.jobs.give_back(self._job)
        except LeaseLostError:
            _log.debug("the job was over already")
        except StoreError as error:
            _log.warning("worker ends without giving its job back: %s", error.code)
        finally:
            os._exit(0)


def main() -> None:
    """Read settings from standard input, then work until it ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    os.umask(0o077)
    os.nice(_COURTESY)
    end_first()
    try:
        _work(*WorkerSettings.from_line(sys.stdin.buffer.readline()))
    except HemoscopeError as error:
        _log.error("worker cannot start: %s", error)
        sys.exit(1)


def _work(worker_id: str, settings: WorkerSettings) -> None:
    store = open_store(
        settings.url,
        settings.storage,
        keep_source=settings.keep_source,
        lease=settings.lease,
        attempts=settings.attempts,
    )
    store.jobs.join(worker_id, host=socket.gethostname(), pid=os.getpid())
    pulse = Pulse(store, worker_id)
    pulse.start()
    predictor = Predictor(load_bundle(settings.model), threads=settings.threads)
    reader = UploadReader(store, predictor, keep_identity=settings.keep_identity, deidentify=settings.deidentify)
    if settings.memory_bytes is not None:
        limit_memory(settings.memory_bytes)
    pause = threading.Event()
    while True:
        pause.wait(0.0 if work_once(store, reader, worker_id, pulse) else settings.poll_s)


def end_first() -> None:
    """Let Linux end this process, and not the server or the database, where a study takes all memory of the machine.

    A process may always make itself more likely to be chosen (proc(5), oom_score_adj); its job is counted and named.
    """
    with suppress(FileNotFoundError):  # another system than Linux has no such choice
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def limit_memory(further_bytes: int) -> None:
    """Let this process allocate so many bytes more than it has now: a study too large fails, not the machine.

    RLIMIT_DATA counts heap, private mappings and thread stacks; RLIMIT_AS would count what OpenVINO only reserves. It
    is set once the model is loaded, whose size nobody needs to know.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    now_bytes = int(status.split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (now_bytes + further_bytes, now_bytes + further_bytes))


def work_once(store: Store, reader: UploadReader, worker_id: str, pulse: Pulse | None = None) -> bool:
    """Read one upload if one waits; whatever is wrong with it, the worker lives on. True where there was one."""
    try:
        job = store.jobs.lease(worker_id)
        if job is None:
            return False
        if pulse is not None:
            pulse.hold(job)
        _read(store, reader, job)
    except StoreError as error:
        _log.warning("worker waits: %s", error.code)
        threading.Event().wait(_PAUSE_WITHOUT_DATABASE_S)
    finally:
        if pulse is not None:
            pulse.hold(None)
    return True


def _read(store: Store, reader: UploadReader, job: Job) -> None:
    try:
        reader.read(job)
    except LeaseLostError:
        _log.warning("upload %s was taken away while it was read", job.upload_id)
    except Exception as error:  # noqa: BLE001 - a worker outlives any study; the job is counted, logged and named
        _log.error("upload %s: %s", job.upload_id, _place(error))
        try:
            store.jobs.went_wrong(job, _unexpected(error))
        except LeaseLostError:
            _log.warning("upload %s was taken away while it was read", job.upload_id)


def _unexpected(error: Exception) -> JobFailure:
    if isinstance(error, StoreError):
        return JobFailure(code=error.code, message=error.reason, remedy=error.remedy)
    if isinstance(error, MemoryError):
        message = "Reading this study needs more memory than a worker may use"
        return JobFailure(code="out_of_memory", message=message, remedy="Raise the limit, and upload it again")
    message = f"An unexpected error ({type(error).__name__}) ended the reading"
    return JobFailure(code="internal_error", message=message, remedy="Report it with the log's line")


def _place(error: Exception) -> str:
    """An error's type and where in this package it came up, without its message, which may quote a file."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    where = f"{Path(frames[-1].filename).relative_to(_PACKAGE)}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {where}"


if __name__ == "__main__":
    main()
