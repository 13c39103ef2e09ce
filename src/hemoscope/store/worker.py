"""A worker process: leases one upload after another and reads it with a model that stays loaded.

``store.worker_process`` begins it. It exits when its standard input closes, that is when its parent exits for whatever
reason, and gives its job back first. After a kill -9 its lease runs out.
"""

import logging
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hemoscope.errors import DecoderStartError, HemoscopeError, StoreError
from hemoscope.files import UNREADABLE
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.engine import available_threads, engine_on
from hemoscope.inference.precision import precision_of
from hemoscope.inference.predictor import Predictor
from hemoscope.reports.report import model_identity
from hemoscope.store.background import Backoff, described
from hemoscope.store.jobs import FIRST_PAUSE, FIRST_PAUSE_OF_A_FILE, JobFailure, LeaseLostError, UploadJob
from hemoscope.store.node_file import sending_node
from hemoscope.store.reading import UploadReader
from hemoscope.store.refusals import PASSING
from hemoscope.store.settings import Settings
from hemoscope.store.standstill import Standstill
from hemoscope.store.storage import full_disk_refused
from hemoscope.store.store import Store, open_store_patiently

if TYPE_CHECKING:
    from hemoscope.store.outgoing import OutgoingResults

_log = logging.getLogger("hemoscope.store")
_HEARTBEATS_PER_LEASE = 6
_LOST = "upload %s was given to another worker or deleted while it was read"
_NICENESS = 5  # if processors are busy, the web server goes before the reading of the next study
_PACKAGE = Path(__file__).parents[1]


class Heartbeat:
    """The thread that keeps the worker's lease while it reads, and that shuts the process down cleanly."""

    def __init__(self, store: Store, worker_id: str, stop: threading.Event) -> None:
        """Prepare the heartbeat of this worker; it ends the process once ``stop`` is set."""
        self._store = store
        self._worker_id = worker_id
        self._job: UploadJob | None = None
        self._stop = stop
        self._standstill = Standstill()

    def start(self) -> None:
        """Start the heartbeat."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def hold(self, job: UploadJob | None) -> None:
        """Set the job that is being read, None for none."""
        self._job = job

    def _run(self) -> None:
        regular = self._store.jobs.lease_time.total_seconds() / _HEARTBEATS_PER_LEASE
        pause, backoff = regular, Backoff()
        while not self._stop.wait(pause):
            try:
                self._store.jobs.heartbeat(self._worker_id, self._job)
            except Exception as error:  # noqa: BLE001 - the lease depends on this thread; the database may come back
                _log.warning("heartbeat failed: %s", described(error))
                pause = min(backoff.next_pause_s(), regular)
            else:
                pause = regular
                backoff.reset()
            if self._stands_still():
                self._end_standstill()
        self._end()

    def _stands_still(self) -> bool:
        """Whether the reading can never end; a check that fails costs no heartbeat."""
        try:
            if self._job is not None:
                return self._standstill.lasts()
            self._standstill.reset()
        except Exception as error:  # noqa: BLE001 - the lease depends on this thread
            _log.warning("the check for threads that wait for ever failed: %s", described(error))
        return False

    def _end_standstill(self) -> None:
        """Exit, whether or not that can be logged; the attempt is counted, as of any worker that dies."""
        upload_id = self._job.upload_id if self._job is not None else "unknown"
        try:
            _log.error("upload %s: a thread died, perhaps for lack of memory, and others wait; worker exits", upload_id)
        finally:
            os._exit(1)

    def _end(self) -> None:
        """Give the job back and exit, even if the main thread is busy."""
        try:
            if self._job is not None:
                self._store.jobs.give_back(self._job)
        except LeaseLostError:
            _log.debug("the job had ended already")
        except Exception as error:  # noqa: BLE001 - it exits in any case, and the lease runs out
            _log.warning("worker exits without giving its job back: %s", described(error))
        finally:
            os._exit(0)


def _watch_parent(stop: threading.Event) -> None:
    """Set ``stop`` when the parent closes its end of standard input, or ends."""
    # Not through sys.stdin: its lock would be held at the exit.
    try:
        while os.read(sys.stdin.fileno(), 1):
            pass
    finally:
        stop.set()


def run() -> None:
    """Read settings from standard input, then work until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    os.umask(0o077)
    os.nice(_NICENESS)
    raise_oom_score()
    try:
        _work(*Settings.from_line(sys.stdin.buffer.readline()))
    except HemoscopeError as error:
        _log.error("worker cannot start: %s", error)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the log gets no traceback, whose messages may quote values
        _log.error("worker cannot start: %s", _origin(error))
        sys.exit(1)


def _work(worker_id: str, settings: Settings) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    reload = threading.Event()
    signal.signal(signal.SIGHUP, lambda _signal, _frame: reload.set())
    threading.Thread(target=_watch_parent, args=(stop,), name="watch-parent", daemon=True).start()
    # For ever: the supervisor waits for the same database, and ends this process when it ends.
    store = open_store_patiently(settings, limit_s=float("inf"), stop=stop)
    store.jobs.join(worker_id, host=socket.gethostname(), pid=os.getpid())
    heartbeat = Heartbeat(store, worker_id, stop)
    heartbeat.start()
    bundle, precision = load_bundle(settings.model), precision_of(settings.precision)
    engine = engine_on(settings.device, bundle, threads=threads_of(settings), precision=precision)
    predictor = Predictor(bundle, engine=engine)
    reader = UploadReader(
        store,
        predictor,
        keep_identity=settings.show_identity,
        deidentify=settings.deidentify,
        outgoing=_outgoing(store, predictor, settings),
    )
    if settings.worker_memory_mib is not None:
        limit_memory(settings.worker_memory_mib << 20)
    pause, backoff = threading.Event(), Backoff()
    while True:
        if reload.is_set():
            reload.clear()
            _reload(store, reader, predictor, settings)
        try:
            read = work_once(store, reader, worker_id, heartbeat)
        except Exception as error:  # noqa: BLE001 - the site depends on this loop; the fault may pass
            _log.warning("worker waits: %s", described(error))
            pause.wait(backoff.next_pause_s())
        else:
            backoff.reset()
            pause.wait(0.0 if read else settings.poll_s)


def threads_of(settings: Settings) -> int:
    """Return the threads of each worker: those given, else its share of the processors."""
    return settings.threads or available_threads(settings.workers)


def _outgoing(store: Store, predictor: Predictor, settings: Settings) -> "OutgoingResults | None":
    """Return what makes results for the node's destinations, None where there are none."""
    node = sending_node(settings)
    if node is None:
        return None
    from hemoscope.store.outgoing import OutgoingResults  # it needs the extra hospital

    model = model_identity(predictor.bundle, predictor.engine.precision)
    return OutgoingResults(store.outbox, node, card=predictor.bundle.card, model=model)


def _reload(store: Store, reader: UploadReader, predictor: Predictor, settings: Settings) -> None:
    """Read the file of the node again; a wrong one changes nothing."""
    try:
        reader.outgoing = _outgoing(store, predictor, settings)
    except HemoscopeError as error:
        _log.error("the file of the node was not read again, the old settings still count: %s", error)


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
    """Read one upload if one waits, and return whether there was one; no upload raises an error.

    Raises:
        StoreError: a fault of the site that passes, such as ``storage_full``; an upload taken was given back.
        DecoderStartError: as above.
    """
    job = store.jobs.lease(worker_id)
    if job is None:
        return False
    if heartbeat is not None:
        heartbeat.hold(job)
    try:
        _read(store, reader, job)
    finally:
        if heartbeat is not None:
            heartbeat.hold(None)
    return True


def _read(store: Store, reader: UploadReader, job: UploadJob) -> None:
    try:
        with full_disk_refused():
            reader.read(job)
    except LeaseLostError:
        _log.warning(_LOST, job.upload_id)
    except Exception as error:  # a worker survives any study; the attempt is counted and logged
        _log.error("upload %s: %s", job.upload_id, _origin(error))
        fault = _fault_of_the_site(store, error)
        if fault is None:
            _end_attempt(job, partial(store.jobs.retry, failure=_unexpected(error), first_pause=_pause_after(error)))
        else:
            paused = isinstance(fault, DecoderStartError)  # uploads that need no decoder can be read meanwhile
            if _end_attempt(job, partial(store.jobs.give_back, paused=paused)):
                raise fault from error


def _fault_of_the_site(store: Store, error: Exception) -> Exception | None:
    """Return the fault of the site that an error is or comes from, which costs no attempt; None if there is none."""
    if isinstance(error, OSError):
        try:
            store.check_storage()
        except StoreError as unusable:
            return unusable
    passing = isinstance(error, DecoderStartError) or (isinstance(error, StoreError) and error.code in PASSING)
    return error if passing else None


def _pause_after(error: Exception) -> timedelta:
    """How long the next attempt waits: an error of the system may pass, and three attempts at once would be one."""
    if not isinstance(error, OSError):
        return timedelta(0)
    return FIRST_PAUSE_OF_A_FILE if error.errno in UNREADABLE else FIRST_PAUSE


def _end_attempt(job: UploadJob, end: Callable[[UploadJob], None]) -> bool:
    """End an attempt that failed, once the database answers again; return whether the job was still this worker's.

    A fault of the site costs no attempt.
    """
    backoff = Backoff()
    while True:
        try:
            end(job)
        except LeaseLostError:
            _log.warning(_LOST, job.upload_id)
            return False
        except StoreError as error:
            if error.code not in PASSING:
                raise
            _log.warning("worker waits: %s", described(error))
            threading.Event().wait(backoff.next_pause_s())
        else:
            return True


def _unexpected(error: Exception) -> JobFailure:
    if isinstance(error, StoreError):
        return JobFailure(code=error.code, message=error.reason, remedy=error.remedy)
    if isinstance(error, MemoryError):
        message = "Reading this study needs more memory than a worker may use"
        return JobFailure(
            code="out_of_memory", message=message, remedy="Raise --worker-memory-mib, and upload it again"
        )
    if isinstance(error, OSError) and error.errno:
        message = f"An error of the system ({os.strerror(error.errno)}) ended the reading"
        remedy = "Check the disk of the storage folder, and upload it again"
        return JobFailure(code="internal_error", message=message, remedy=remedy)
    message = f"An unexpected error ({type(error).__name__}) ended the reading"
    return JobFailure(code="internal_error", message=message, remedy="Report it with the log's line")


def _origin(error: Exception) -> str:
    """An error's type and where in this package it was raised, without its message, which may quote a file."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    where = f"{Path(frames[-1].filename).relative_to(_PACKAGE)}:{frames[-1].lineno}" if frames else "outside"
    return f"{type(error).__name__} at {where}"
