"""Errors of the system that pass: they fail no study at once, and leave none of its files out."""

import errno
import io
import json
import os
import secrets
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import uid

from hemoscope.dicom import decoder_pool
from hemoscope.dicom.decoder_pool import DecoderPool
from hemoscope.errors import DecoderStartError, StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.store import jobs, tables
from hemoscope.store.database import server_time
from hemoscope.store.found_studies import further_study_id
from hemoscope.store.outbox import Outbox
from hemoscope.store.reading import UploadReader
from hemoscope.store.refusals import refusal
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary
from hemoscope.store.worker import work_once
from hemoscope.testing.pixel_coding import PixelCoding

from .conftest import series_bytes

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]
TEN_SECONDS, TWO_MINUTES, TWENTY_MINUTES = 1 / 360, 1 / 30, 1 / 3


@pytest.fixture
def read(store: Store, predictor: Predictor) -> Callable[..., bool]:
    """``read()``: one attempt at what waits."""

    def build(*, deidentify: bool = False) -> bool:
        reader = UploadReader(store, predictor, keep_identity=False, deidentify=deidentify)
        return work_once(store, reader, secrets.token_hex(16))

    return build


def failing(name: str, number: int, *, from_call: int = 1) -> Callable[..., Any]:
    """``Path.open``, which fails for a file of this name from one of its calls on."""
    right, calls = Path.open, 0

    def open_file(path: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        if path.name == name:
            calls += 1
            if calls >= from_call:
                raise OSError(number, os.strerror(number))
        return right(path, *arguments, **options)

    return open_file


def without_decoders(patch: pytest.MonkeyPatch) -> None:
    """Let no decoder process start."""
    patch.setattr(decoder_pool, "_pools", [DecoderPool()])
    patch.setattr(decoder_pool, "_COMMAND", ("/nonexistent/python",))


@pytest.fixture
def compressed(tmp_path: Path) -> list[bytes]:
    return series_bytes(tmp_path / "given", seed=1, coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1))


def attempts(store: Store, query: Query) -> int:
    ((count,),) = query(store, tables.jobs.select().with_only_columns(tables.jobs.c.attempts))
    return int(count)


@pytest.mark.parametrize("deidentify", [False, True])
@pytest.mark.parametrize(
    ("number", "from_call"), [(errno.EIO, 1), (errno.ESTALE, 1), (errno.ENOMEM, 1), (errno.EACCES, 1), (errno.EIO, 2)]
)
def test_a_file_that_cannot_be_read_for_a_moment_is_read_after_a_pause(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    query: Query,
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
    number: int,
    from_call: int,
    deidentify: bool,
) -> None:
    """The second call comes after the checksums were found right."""
    entry = submit(store, series)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing("000003", number, from_call=from_call))
        assert read(deidentify=deidentify)
    assert (store.get(entry.study_id).state, attempts(store, query)) == (StudyState.QUEUED, 1)
    assert not read(deidentify=deidentify), "it waits"
    set_clock(TWO_MINUTES)
    assert read(deidentify=deidentify)
    done = store.get(entry.study_id)
    assert (done.state, done.instances, attempts(store, query)) == (StudyState.DONE, len(series), 2)
    assert done.findings is not None
    assert done.findings["rejected"] == []


def test_a_file_that_can_never_be_read_leaves_the_study_incomplete(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
) -> None:
    entry = submit(store, series)
    monkeypatch.setattr(Path, "open", failing("000003", errno.EIO))
    for hours in (0, TWO_MINUTES, TWENTY_MINUTES):
        set_clock(hours)
        assert read()
    assert store.get(entry.study_id).state is StudyState.DONE
    (study,) = json.loads(store.findings_json(entry.study_id))["studies"]
    assert study["state"] == "incomplete"
    assert "lost_upload" in {one["code"] for one in study["unread"]["reasons"]}


def test_an_error_of_an_unusable_storage_costs_no_attempt(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    query: Query,
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = submit(store, series)

    def read_only() -> None:
        raise refusal("storage_unusable", "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing("000003", errno.EIO))
        patch.setattr(store.folder, "check_writable", read_only)
        for _ in range(store.jobs.attempts + 1):
            with pytest.raises(StoreError, match="read-only"):
                read()
    assert (store.get(entry.study_id).state, attempts(store, query)) == (StudyState.QUEUED, 0)
    assert read()
    assert store.get(entry.study_id).state is StudyState.DONE


def refusing(name: str, step: str, number: int) -> Callable[..., Any]:
    """A method of ``Path``, which fails for files of this name."""
    right = getattr(Path, step)

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise OSError(number, os.strerror(number))
        return right(path, *arguments, **options)

    return refuse


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_study_that_is_lost_between_attempts_gives_its_row_to_no_other_one(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    series: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
    lost: int,
    *,
    deleted: bool,
) -> None:
    files = [series[0], *(series_bytes(tmp_path / str(seed), seed=seed)[0] for seed in (2, 3))]
    files.sort(key=lambda file: str(pydicom.dcmread(io.BytesIO(file)).StudyInstanceUID))
    entry = submit(store, files)
    ids = [entry.study_id, *(further_study_id(entry.upload_id, ordinal) for ordinal in (1, 2))]
    right, calls = Predictor.read_study, 0

    def read_study(self: Predictor, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1 + lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return right(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "read_study", read_study)
    assert read()
    if deleted:
        store.delete(ids.pop(), by="agnes")
    uploaded = [path for path in store.folder.source(entry.upload_id).iterdir() if path.read_bytes() == files[lost]]
    uploaded[0].unlink()
    set_clock(TEN_SECONDS)
    assert read()
    assert [store.get(one).state for one in ids] == [
        StudyState.FAILED if number == lost else StudyState.DONE for number in range(len(ids))
    ]
    assert store.get(ids[lost]).error_code == "lost_upload"
    assert calls == 3, "no study was read again"


@pytest.mark.parametrize("step", ["mkdir", "rename"])
def test_a_fault_of_the_copies_of_one_upload_costs_attempts_and_ends(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
    step: str,
) -> None:
    entry = submit(store, series)
    monkeypatch.setattr(Path, step, refusing("clean", step, errno.EACCES))
    for hours in (0, TWO_MINUTES, TWENTY_MINUTES):
        set_clock(hours)
        assert read(deidentify=True)
    failed = store.get(entry.study_id)
    assert (failed.state, failed.error_code) == (StudyState.FAILED, "internal_error")


def test_studies_of_an_upload_do_not_wait_for_one_that_cannot_be_read_for_a_moment(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    series: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
) -> None:
    entry = submit(store, [*series, *series_bytes(tmp_path / "other", seed=2)])
    right, calls = Predictor.read_study, 0

    def read_study(self: Predictor, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return right(self, *arguments, **options)

    def states() -> list[StudyState]:
        ids = entry.study_id, further_study_id(entry.upload_id, 1)
        return [store.get(one).state for one in ids]

    monkeypatch.setattr(Predictor, "read_study", read_study)
    assert read()
    assert states() == [StudyState.QUEUED, StudyState.DONE]
    assert not read(), "it waits"
    set_clock(TEN_SECONDS)
    assert read()
    assert (states(), calls) == ([StudyState.DONE, StudyState.DONE], 3)


@pytest.mark.parametrize("step", ["mkdir", "rename"])
def test_copies_that_cannot_be_written_are_the_fault_of_the_storage(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    query: Query,
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    entry = submit(store, series)

    def read_only() -> None:
        raise refusal("storage_unusable", "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, refusing("clean", step, errno.EROFS))
        patch.setattr(store.folder, "check_writable", read_only)
        for _ in range(store.jobs.attempts + 1):
            with pytest.raises(StoreError, match="Read-only file system"):
                read(deidentify=True)
    assert attempts(store, query) == 0
    assert read(deidentify=True)
    assert store.get(entry.study_id).state is StudyState.DONE


def test_a_result_that_cannot_be_written_is_the_fault_of_the_storage(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="Read-only file system") as refused:
        Outbox(store.database, tmp_path / "outbox").write(b"a report")
    assert refused.value.code == "storage_unusable"


def test_a_pause_that_a_wrong_clock_made_long_is_over(
    store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, [b"x"])
    job = store.jobs.lease("1" * 32)
    assert job is not None
    with monkeypatch.context() as ahead:
        ahead.setattr(jobs, "server_time", lambda connection: server_time(connection) + timedelta(days=1))
        store.jobs.retry(
            job, jobs.JobFailure(code="test", message="a test", remedy="none"), first_pause=jobs.FIRST_PAUSE
        )
    assert store.jobs.lease("1" * 32) is not None


def test_a_machine_that_starts_no_decoder_costs_no_attempt_and_no_slice(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    query: Query,
    set_clock: Callable[[float], None],
    compressed: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = submit(store, compressed)
    with monkeypatch.context() as patch:
        without_decoders(patch)
        for number in range(store.jobs.attempts + 1):
            set_clock(number * TWO_MINUTES)
            with pytest.raises(DecoderStartError):
                read()
            assert not read(), "it waits"
    assert (store.get(entry.study_id).state, attempts(store, query)) == (StudyState.QUEUED, 0)
    set_clock(TWENTY_MINUTES)
    assert read()
    done = store.get(entry.study_id)
    assert (done.state, done.instances) == (StudyState.DONE, len(compressed))


def test_an_upload_that_waits_for_a_decoder_keeps_no_later_one_of_its_submitter_waiting(
    store: Store,
    submit: Submit,
    read: Callable[..., bool],
    compressed: list[bytes],
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = submit(store, compressed), submit(store, series)
    without_decoders(monkeypatch)
    with pytest.raises(DecoderStartError):
        read()
    assert read()
    assert [store.get(one.study_id).state for one in (first, second)] == [StudyState.QUEUED, StudyState.DONE]
