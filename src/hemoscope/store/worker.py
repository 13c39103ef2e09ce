"""A worker process: leases one upload after another and reads it with a model that stays loaded.

Started by ``store.supervisor`` as ``python -m hemoscope.store.worker``. It exits when its standard input closes,
that is when its parent exits for whatever reason, and gives its job back first. After a kill -9 its lease runs out.
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
from hemoscope.store.jobs import JobFailure, LeaseLostError, UploadJob
from hemoscope.store.reading import UploadReader
from hemoscope.store.settings import Settings
from hemoscope.store.store import Store, open_store

_log = logging.getLogger("hemoscope.store")
_HEARTBEATS_PER_LEASE = 6
_PAUSE_WITHOUT_DATABASE_S = 1.0
_NICENESS = 5  # if processors are busy, the web server goes before the reading of the next study
_PACKAGE = Path(__file__).parents[1]


class Heartbeat:
    """The thread that keeps the worker's lease while it reads, and that shuts the process down cleanly."""

    def __init__(self, store: Store, worker_id: str) -> None:
        """Prepare the heartbeat of this worker."""
        self._store = store
        self._worker_id = worker_id
        self._job: UploadJob | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the heartbeat, and watch standard input and SIGTERM."""
        signal.signal(signal.SIGTERM, lambda _signal, _frame: self._stop.set())
        threading.Thread(target=self._watch_parent, name="watch-parent", daemon=True).start()
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def hold(self, job: UploadJob | None) -> None:
        """Set the job that is being read, None for none."""
        self._job = job

    def _watch_parent(self) -> None:
        # Ends when the parent closes its end, or ends. Not through sys.stdin: its lock would be held at the exit.
        while os.read(sys.stdin.fileno(), 1):
            pass
        self._stop.set()

    def _run(self) -> None:
        pause = self._store.jobs.lease_time.total_seconds() / _HEARTBEATS_PER_LEASE
        while not self._stop.wait(pause):
            try:
                self._store.jobs.heartbeat(self._worker_id, self._job)
            except StoreError as error:  # the database may come back before the lease ends
                _log.warning("heartbeat failed: %s", error.code)
        self._end()

    def _end(self) -> None:
        """Give the job back and exit, even if the main thread is busy."""
        try:
            if self._job is not None:
                self._store.jobs.give_back(self._job)
        except LeaseLostError:
            _log.debug("the job had ended already")
        except StoreError as error:
            _log.warning("worker exits without giving its job back: %s", error.code)
        finally:
            os._exit(0)


def main() -> None:
    """Read settings from standard input, then work until it ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.umask(0o077)
    os.nice(_NICENESS)
    raise_oom_score()
    try:
        _work(*Settings.from_line(sys.stdin.buffer.readline()))
    except HemoscopeError as error:
        _log.error("worker cannot start: %s", error)
        sys.exit(1)


def _work(worker_id: str, settings: Settings) -> None:
    store = open_store(settings)
    store.jobs.join(worker_id, host=socket.gethostname(), pid=os.getpid())
    heartbeat = Heartbeat(store, worker_id)
    heartbeat.start()
    predictor = Predictor(load_bundle(settings.model), threads=settings.threads)
    reader = UploadReader(store, predictor, keep_identity=settings.show_identity, deidentify=settings.deidentify)
    if settings.worker_memory_mib is not None:
        limit_memory(settings.worker_memory_mib << 20)
    pause = threading.Event()
    while True:
        pause.wait(0.0 if work_once(store, reader, worker_id, heartbeat) else settings.poll_s)


def raise_oom_score() -> None:
    """Let Linux kill this process rather than the server or the database if a study takes all memory of the machine.

    A process may always raise its own oom_score_adj (proc(5)); the attempt at its job is counted.
    """
    with suppress(FileNotFoundError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def limit_memory(further_bytes: int) -> None:
    """Limit how many bytes this process may allocate from now on: a study too large fails, not the machine.

    RLIMIT_DATA counts heap, private mappings and thread stacks; RLIMIT_AS would count what OpenVINO only reserves. It
    is set after the model is loaded, so that the model's size does not count.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    now_bytes = int(status.split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (now_bytes + further_bytes, now_bytes + further_bytes))


def work_once(store: Store, reader: UploadReader, worker_id: str, heartbeat: Heartbeat | None = None) -> bool:
    """Read one upload if one waits, and return whether there was one; the worker survives any upload."""
    try:
        job = store.jobs.lease(worker_id)
        if job is None:
            return False
        if heartbeat is not None:
            heartbeat.hold(job)
        _read(store, reader, job)
    except StoreError as error:
        _log.warning("worker waits: %s", error.code)
        threading.Event().wait(_PAUSE_WITHOUT_DATABASE_S)
    finally:
        if heartbeat is not None:
            heartbeat.hold(None)
    return True


def _read(store: Store, reader: UploadReader, job: UploadJob) -> None:
    try:
        reader.read(job)
    except LeaseLostError:
        _log.warning("upload %s was given to another worker or deleted while it was read", job.upload_id)
    except Exception as error:  # noqa: BLE001 - a worker survives any study; the attempt is counted and logged
        _log.error("upload %s: %s", job.upload_id, _origin(error))
        try:
            store.jobs.retry(job, _unexpected(error))
        except LeaseLostError:
            _log.warning("upload %s was given to another worker or deleted while it was read", job.upload_id)


def _unexpected(error: Exception) -> JobFailure:
    if isinstance(error, StoreError):
        return JobFailure(code=error.code, message=error.reason, remedy=error.remedy)
    if isinstance(error, MemoryError):
        message = "Reading this study needs more memory than a worker may use"
        return JobFailure(
            code="out_of_memory", message=message, remedy="Raise --worker-memory-mib, and upload it again"
        )
    message = f"An unexpected error ({type(error).__name__}) ended the reading"
    return JobFailure(code="internal_error", message=message, remedy="Report it with the log's line")


def _origin(error: Exception) -> str:
    """An error's type and where in this package it was raised, without its message, which may quote a file."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    where = f"{Path(frames[-1].filename).relative_to(_PACKAGE)}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {where}"


if __name__ == "__main__":
    main()
