"""Each study of an upload keeps its row, whichever studies an attempt finds: no row gets another study's result."""

import errno
import io
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from hemoscope.dicom.archive import open_archive
from hemoscope.inference.predictor import Predictor
from hemoscope.store import tables
from hemoscope.store.found_studies import FoundStudy, found_studies, further_study_id
from hemoscope.store.jobs import UploadJob
from hemoscope.store.reading import UploadReader
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary
from hemoscope.store.worker import work_once

from .conftest import series_bytes

Submit = Callable[..., StudySummary]
Query = Callable[..., list[Any]]
TEN_SECONDS = 1 / 360
A, B, C, D = (FoundStudy(instances=1, study_instance_uid=f"1.{one}", source_sha256=one * 64) for one in "abcd")


def leased(store: Store) -> UploadJob:
    job = store.jobs.lease("1" * 32)
    assert job is not None
    return job


def attempt(store: Store, *found: FoundStudy) -> tuple[str | None, ...]:
    """The rows that an attempt reads, which then breaks off."""
    job = leased(store)
    begun = store.results.begin(job, found)
    if begun:
        store.jobs.give_back(job)
    return begun


def ended_as(store: Store, study_id: str) -> tuple[StudyState, str | None]:
    found = store.get(study_id)
    return found.state, found.error_code


LOST = (StudyState.FAILED, "lost_upload")
WAITS = (StudyState.QUEUED, None)


def test_a_study_that_appears_as_another_is_lost_gets_a_row_of_its_own(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"], by="anna")
    first, second = attempt(store, A, B)
    assert first == entry.study_id
    assert second is not None
    third = further_study_id(entry.upload_id, 2)
    assert attempt(store, B, C) == (second, third)
    assert [ended_as(store, one) for one in (first, second, third)] == [LOST, WAITS, WAITS]
    new = store.get(third)
    assert (new.upload_id, new.submitted_by, new.received_at) == (entry.upload_id, "anna", entry.received_at)
    assert attempt(store, B, C) == (second, third)


def test_the_only_study_of_an_upload_gives_its_row_to_no_other_one(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    assert attempt(store, A) == (entry.study_id,)
    assert attempt(store, B) == (further_study_id(entry.upload_id, 1),)
    assert ended_as(store, entry.study_id) == LOST


def test_studies_found_in_another_order_keep_their_rows(store: Store, submit: Submit) -> None:
    submit(store, [b"x"])
    first, second, third = attempt(store, A, B, C)
    assert attempt(store, C, A, B) == (third, first, second)


def test_a_deleted_study_does_not_come_back_as_another_one_appears(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    first, second, third = attempt(store, A, B, C)
    assert first is not None
    assert second is not None
    store.delete(second, by="anna")
    assert attempt(store, B, C, D) == (None, third, further_study_id(entry.upload_id, 3))
    assert ended_as(store, first) == LOST


def test_the_row_of_what_the_node_received_keeps_its_uid(store: Store, submit: Submit, query: Query) -> None:
    entry = submit(store, [b"x"], uid="1.b")
    attempt(store, B)
    attempt(store, A, B)
    uids = {row.study_id: row.study_instance_uid for row in query(store, tables.studies.select())}
    assert uids == {entry.study_id: "1.b", further_study_id(entry.upload_id, 1): None}


def test_rows_of_an_earlier_version_are_known_by_their_place(store: Store, submit: Submit, query: Query) -> None:
    submit(store, [b"x"])
    rows = attempt(store, A, B)
    query(store, tables.studies.update().values(source_sha256=None))
    assert attempt(store, A, B) == rows
    first, second = rows
    assert attempt(store, B) == (second,), "from now on they have digests"
    assert first is not None
    assert ended_as(store, first) == LOST


def test_rows_of_an_earlier_version_fail_if_the_number_of_studies_changed(
    store: Store, submit: Submit, query: Query
) -> None:
    submit(store, [b"x"])
    rows = attempt(store, A, B, C)
    query(store, tables.studies.update().values(source_sha256=None))
    assert attempt(store, A, B) == ()
    assert [ended_as(store, str(one)) for one in rows] == [LOST] * 3
    assert store.jobs.lease("1" * 32) is None


def test_an_attempt_that_finds_nothing_leaves_the_row_its_digest(store: Store, submit: Submit) -> None:
    entry = submit(store, [b"x"])
    attempt(store, A)
    assert attempt(store, *found_studies((), entry.upload_id)) == (entry.study_id,)
    assert attempt(store, B) == (further_study_id(entry.upload_id, 1),)


def written(folder: Path, files: list[bytes], **values: str) -> list[Path]:
    """Files with these elements, in a folder."""
    folder.mkdir()
    for number, content in enumerate(files):
        dataset = pydicom.dcmread(io.BytesIO(content))
        for name, value in values.items():
            setattr(dataset, name, value)
        dataset.save_as(folder / f"{folder.name}{number}.dcm")
    return sorted(folder.iterdir())


def test_a_study_that_lost_a_file_is_known_again(series: list[bytes], tmp_path: Path) -> None:
    paths = written(tmp_path / "one", series)
    whole, less = (found_studies(open_archive(some).studies, "upload")[0] for some in (paths, paths[1:]))
    assert (whole.instances, less.instances) == (5, 4)
    assert whole.source_sha256 == less.source_sha256


def test_patients_with_one_study_uid_are_told_apart_by_their_files(series: list[bytes], tmp_path: Path) -> None:
    paths = [
        path
        for name in ("Ash", "Elm")
        for path in written(tmp_path / name, series, StudyInstanceUID="1.2", PatientName=name, PatientID=name)
    ]
    whole = [one.source_sha256 for one in found_studies(open_archive(paths).studies, "upload")]
    less = [one.source_sha256 for one in found_studies(open_archive(paths[1:]).studies, "upload")]
    assert len(set(whole)) == 2
    assert len(set(whole) & set(less)) == 1, "only that of the patient whose files are all there"


def test_results_stay_with_their_studies_if_one_is_lost_and_another_appears(
    store: Store,
    submit: Submit,
    predictor: Predictor,
    series: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_clock: Callable[[float], None],
) -> None:
    """The disk has lost the third study's file at the first attempt, and the first one's at the second."""
    files = [series[0], *(series_bytes(tmp_path / str(seed), seed=seed)[0] for seed in (2, 3))]
    files.sort(key=lambda file: str(pydicom.dcmread(io.BytesIO(file)).StudyInstanceUID))
    uids = [str(pydicom.dcmread(io.BytesIO(file)).StudyInstanceUID) for file in files]
    entry = submit(store, files)
    first, _second, third = (store.folder.source(entry.upload_id) / f"00000{number}" for number in (1, 2, 3))
    reader = UploadReader(store, predictor, keep_identity=False, deidentify=False)

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    third.rename(tmp_path / "away")
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "read_study", fail)
        assert work_once(store, reader, secrets.token_hex(16))
    (tmp_path / "away").rename(third)
    first.unlink()
    set_clock(TEN_SECONDS)
    assert work_once(store, reader, secrets.token_hex(16))
    assert ended_as(store, entry.study_id) == LOST
    for number in (1, 2):
        (study,) = json.loads(store.findings_json(further_study_id(entry.upload_id, number)))["studies"]
        assert study["study_instance_uid"] == uids[number]
