"""A state machine of store and queue: two servers over one database, in any order of everything that can happen.

Hypothesis chooses the steps and shortens what fails. The model knows what was accepted and what was deleted; after each
step the store is compared with it. At the end all that waits is read: each accepted study has ended, once.
"""

import io
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hemoscope.errors import StoreError
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.predictor import Predictor
from hemoscope.store import (
    audit_and_sessions,
    database,
    jobs,
    removal,
    results,
    sweep,
    tables,
    uploads,
    worker,
    worklist,
)
from hemoscope.store.found_studies import further_study_id
from hemoscope.store.jobs import JobFailure, LeaseLostError, UploadJob
from hemoscope.store.reading import UploadReader
from hemoscope.store.refusals import refusal
from hemoscope.store.settings import Settings
from hemoscope.store.storage import VOLUME, Storage
from hemoscope.store.store import Store, open_store
from hemoscope.store.values import StudyState, StudySummary, WorklistQuery
from hemoscope.store.worker import work_once
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

from ..tiny_model import write_tiny_bundle

LEASE_S = 15.0
KINDS = {"study": 1, "two studies": 2, "no study": 1}  # and the studies that each has
FAULTS = ("storage_full", "storage_unusable", "MemoryError", "ValueError", "OSError")
FINAL = (StudyState.DONE, StudyState.FAILED)
CODES = {
    "no_ct",
    "no_series",
    "lost_upload",
    "decoder_died",
    "not_dicom",
    "worker_killed",
    "test",
    "internal_error",
    "out_of_memory",
    "storage_full",
}
servers, places = st.integers(0, 1), st.integers(0, 20)


@cache
def predictor() -> Predictor:
    """The tiny model."""
    folder = Path(tempfile.mkdtemp(prefix="hemoscope-torture-")) / "tiny"
    return Predictor(load_bundle(write_tiny_bundle(folder).folder), threads=1)


@cache
def files_of(kind: str) -> tuple[bytes, ...]:
    """What an upload of a kind brings."""
    if kind == "no study":
        return (b"no image",)
    with tempfile.TemporaryDirectory(prefix="hemoscope-torture-") as folder:
        found: list[bytes] = []
        for seed in range(KINDS[kind]):
            phantom = make_phantom(seed=seed, shape=(2, 32, 32))
            found += [one.read_bytes() for one in write_series(phantom, Path(folder) / str(seed), seed=seed)]
    return tuple(found)


class StoreMachine(RuleBasedStateMachine):
    """Everything that servers, workers, users and crashes do to one store."""

    steps = 0

    def __init__(self) -> None:
        """Open the same store twice, with clocks that the steps move."""
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hemoscope-torture-"))
        self.ahead_s, self.days = 0.0, 0.0
        self.patch = pytest.MonkeyPatch()
        for module in (jobs, sweep):
            self.patch.setattr(module, "monotonic", lambda: time.monotonic() + self.ahead_s)
        for module in (jobs, worker):  # what failed is tried again at once
            self.patch.setattr(module, "FIRST_PAUSE", timedelta(0))
        self.patch.setattr(worker, "FIRST_PAUSE_OF_A_FILE", timedelta(0))
        right = database.server_time
        for one in (audit_and_sessions, jobs, removal, results, sweep, uploads, worklist):
            self.patch.setattr(one, "server_time", lambda connection: right(connection) + timedelta(days=self.days))
        url = f"sqlite:///{self.folder}/store.sqlite"
        self.settings = Settings(database=url, storage=self.folder / "storage", lease_s=LEASE_S)
        self.stores = [self._opened(), self._opened()]
        self.kinds: dict[str, str] = {}  # by upload
        self.received: dict[str, float] = {}  # by upload: the day
        self.accepted: set[str] = set()
        self.deleted: set[str] = set()
        self.held: list[tuple[int, UploadJob]] = []

    def _opened(self) -> Store:
        return open_store(self.settings)

    def teardown(self) -> None:
        """Let everything end, and look once more."""
        try:
            self._drain()
        finally:
            self.patch.undo()
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)

    @initialize()
    def begin(self) -> None:
        """Join two workers that only watch."""
        for number, store in enumerate(self.stores):
            store.jobs.join(str(number) * 32, host="here", pid=1)

    @rule(server=servers, kind=st.sampled_from(sorted(KINDS)))
    def upload(self, server: int, kind: str) -> None:
        """Upload something that is accepted."""
        with self.stores[server].begin_upload() as upload:
            for content in files_of(kind):
                upload.add_file(io.BytesIO(content))
            entry = self.stores[server].accept(upload, submitted_by=f"user {len(self.kinds) % 2}")
        self.kinds[upload.upload_id], self.received[upload.upload_id] = kind, self.days
        self.accepted.add(entry.study_id)

    @rule(server=servers)
    def upload_that_breaks_off(self, server: int) -> None:
        """Begin an upload and lose the connection."""
        with suppress(ConnectionError), self.stores[server].begin_upload() as upload:
            upload.add_file(io.BytesIO(b"half"))
            raise ConnectionError

    @rule(server=servers)
    def work(self, server: int) -> None:
        """Read what waits the longest."""
        self._work(server)

    @rule(server=servers, name=st.sampled_from(FAULTS))
    def work_with_a_fault(self, server: int, name: str) -> None:
        """Read with a disk or a memory that fails."""
        with fault(name):
            self._work(server)

    def _work(self, server: int) -> bool:
        store = self.stores[server]
        reader = UploadReader(store, predictor(), keep_identity=False, deidentify=False)
        try:
            return work_once(store, reader, secrets.token_hex(16))
        except StoreError as error:
            if error.code not in ("storage_full", "storage_unusable"):
                raise
            return True

    @rule(server=servers)
    def lease(self, server: int) -> None:
        """Take a job, and keep it."""
        job = self.stores[server].jobs.lease(secrets.token_hex(16))
        if job is not None:
            self.held.append((server, job))

    @precondition(lambda self: self.held)
    @rule(place=places, how=st.sampled_from(["read", "died", "retry", "give_back", "beat", "vanished"]))
    def held_job(self, place: int, how: str) -> None:
        """End a job that a worker took, which may be another's by now."""
        server, job = self.held[place % len(self.held)]
        store = self.stores[server]
        if how not in ("beat", "vanished"):
            self.held.remove((server, job))
        try:
            match how:
                case "read":
                    UploadReader(store, predictor(), keep_identity=False, deidentify=False).read(job)
                case "died":
                    store.jobs.worker_died(job.worker_id)
                case "retry":
                    store.jobs.retry(job, JobFailure(code="test", message="a test", remedy="none"))
                case "give_back":
                    store.jobs.give_back(job)
                case "beat":
                    store.jobs.heartbeat(job.worker_id, job)
        except LeaseLostError:
            assert how in ("read", "retry", "give_back")

    @precondition(lambda self: self.accepted)
    @rule(server=servers, place=places)
    def delete(self, server: int, place: int) -> None:
        """Delete a study that is listed."""
        listed = sorted(one.study_id for one in self._listed())
        if listed:
            study_id = listed[place % len(listed)]
            self.stores[server].delete(study_id, by="tester")
            self.deleted.add(study_id)

    @rule(server=servers)
    def sweep(self, server: int) -> None:
        """Tidy up, as a server does every ten minutes."""
        self.stores[server].sweep()
        self.stores[server].empty_trash()

    @rule(server=servers, days=st.sampled_from([0.5, 20.0]))
    def days_pass(self, server: int, days: float) -> None:
        """Let days pass, and delete what is older than thirty."""
        self.days += days
        old = {one.study_id for one in self._listed() if self.days - self.received[one.upload_id] > 30}
        self.stores[server].retention(30)
        self.deleted |= old

    @rule(hours=st.sampled_from([0.0, 2.0]))
    def time_passes(self, hours: float) -> None:
        """Let leases run out while both servers watch, and sometimes hours."""
        self.ahead_s += 3600 * hours
        for _ in range(5):
            self.ahead_s += LEASE_S / 3
            for number, store in enumerate(self.stores):
                store.jobs.heartbeat(str(number) * 32, None)

    @rule(server=servers)
    def restart(self, server: int) -> None:
        """Restart a server; the jobs of its workers run out."""
        self.stores[server].close()
        self.stores[server] = self._opened()

    def _listed(self) -> tuple[StudySummary, ...]:
        return self.stores[0].studies(WorklistQuery(limit=1000))[0]

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """Compare the store with the model."""
        type(self).steps += 1
        listed = self._listed()
        ids = [one.study_id for one in listed]
        assert len(ids) == len(set(ids)), "a study is listed twice"
        assert not self.deleted & set(ids), "a deleted study is back"
        assert self.accepted - self.deleted <= set(ids), "an accepted study is gone"
        known = self.accepted | {further_study_id(upload_id, 1) for upload_id in self.kinds}
        assert set(ids) <= known, "a study that nobody uploaded"
        for one in listed:
            self._check(one)

    def _check(self, one: StudySummary) -> None:
        store = self.stores[1]
        upload = store.folder.upload(one.upload_id)
        if one.state in FINAL:
            if one.state is StudyState.DONE:
                assert self.kinds[one.upload_id] != "no study"
                assert len(store.pixels(one.study_id, 1)) == 32 * 32 * 2
                assert len(json.loads(store.findings_json(one.study_id))["studies"]) == 1
            else:
                assert one.error_code in CODES, one.error_code
        elif self._source_is_needed(one):
            found = len(list((upload / "source").glob("0*")))
            assert found == len(files_of(self.kinds[one.upload_id])), "files of an upload that waits are gone"

    def _source_is_needed(self, one: StudySummary) -> bool:
        with self.stores[0]._database.reading() as connection:
            job = sa.select(tables.jobs.c.state).where(tables.jobs.c.upload_id == one.upload_id)
            return connection.execute(job).scalar() in ("queued", "running")

    def _drain(self) -> None:
        """Read everything with a sound machine, tidy up after hours, and check that all ended once."""
        self.time_passes(0.0)
        while self._work(0):
            self.time_passes(0.0)
        self.nothing_is_lost_or_doubled()
        listed = self._listed()
        assert all(one.state in FINAL for one in listed), "a study never ended"
        with self.stores[0]._database.reading() as connection:
            written = sorted(connection.execute(sa.select(tables.results.c.study_id)).scalars())
        done = {one.study_id for one in listed if one.state is StudyState.DONE}
        assert done <= set(written) <= {one.study_id for one in listed}, "a result is missing or of no study"
        for store in self.stores:
            store.sweep()
            self.ahead_s += 3700
            store.sweep()
        folder = self.stores[0].folder
        left = {path.name for path in folder.uploads()}
        assert left <= {one.upload_id for one in listed}, "a folder of no study is left"
        assert not list(folder.trash.iterdir())
        assert {one.upload_id for one in listed if one.state is StudyState.DONE} <= left
        assert all(
            (folder.study(one.upload_id, one.study_id) / VOLUME).exists() for one in listed if one.study_id in done
        )


@contextmanager
def fault(name: str) -> Iterator[None]:
    """Make the next array that is written fail."""
    times = iter([True])
    write = Storage.write_array

    def failing(self: Storage, *arguments: Any) -> None:
        if next(times, False):
            errors = {"MemoryError": MemoryError(), "ValueError": ValueError("x"), "OSError": OSError(5, "I/O error")}
            raise errors.get(name) or refusal(name, "a test")
        write(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "write_array", failing)
        yield
