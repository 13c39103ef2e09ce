"""De-identified storage: geometry, pixels and probabilities as without it, and no identity anywhere."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from hemoscope.store import tables
from hemoscope.store.sources import open_upload
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary

Submit = Callable[..., StudySummary]
Work = Callable[..., int]
NAME, PATIENT = "DOE^JANE", "PID-4711"


def of_patient(content: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.PatientName, dataset.PatientID = NAME, PATIENT
    dataset.StudyDate, dataset.StudyTime = "20260102", "153000"
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def test_deidentified_storage_keeps_geometry_and_pixels_and_no_identity(
    opened: Callable[..., Store],
    submit: Submit,
    work: Work,
    series: list[bytes],
    query: Callable[..., list[Any]],
) -> None:
    store = opened(keep_source=True)
    files = [of_patient(content) for content in series]
    plain, clean = submit(store, files), submit(store, [zipped({f"{NAME}/{n}": one for n, one in enumerate(files)})])
    again = submit(store, files)
    reader_of_plain = store.jobs.lease("1" * 32)
    assert reader_of_plain is not None
    assert work(store, deidentify=True) == 2
    store.jobs.give_back(reader_of_plain)
    assert work(store, keep_identity=True) == 1
    known, unknown, other = (store.get(one.study_id) for one in (plain, clean, again))
    assert known.geometry is not None
    assert unknown.geometry is not None
    assert other.geometry is not None
    for name in ("spacing_mm", "orientation", "positions_mm", "probabilities", "boxes", "rows", "columns"):
        assert unknown.geometry[name] == known.geometry[name], name
    assert [store.pixels(clean.study_id, index) for index in range(5)] == [
        store.pixels(plain.study_id, index) for index in range(5)
    ]
    assert not set(known.geometry["sop_instance_uids"]) & set(unknown.geometry["sop_instance_uids"])
    assert unknown.geometry["sop_instance_uids"] == other.geometry["sop_instance_uids"]
    assert unknown.acquired_at is None
    kept = b"".join(path.read_bytes() for path in store.folder.source(clean.upload_id).iterdir())
    rows = [row for row in query(store, tables.studies.select()) if row.study_id == clean.study_id]
    everything = kept + (str(rows) + store.findings_json(clean.study_id)).encode()
    for secret in (NAME, PATIENT, "20260102", *known.geometry["sop_instance_uids"]):
        assert secret.encode() not in everything


@pytest.mark.parametrize("crash", ["remove_aside", "rename"])
def test_deidentifying_that_was_cut_short_is_done_again(
    store: Store, submit: Submit, work: Work, series: list[bytes], monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    def die(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    entry = submit(store, series)
    with monkeypatch.context() as patch:
        patch.setattr(store.folder if crash == "remove_aside" else Path, crash, die)
        with pytest.raises(KeyboardInterrupt):
            open_upload(store.folder, entry.upload_id, deidentify=True)
    work(store, deidentify=True)
    assert store.get(entry.study_id).state is StudyState.DONE
    assert [path.name for path in store.folder.upload(entry.upload_id).iterdir()] == [entry.study_id]


@pytest.mark.parametrize("deidentify", [False, True])
def test_the_limits_of_the_settings_hold(
    opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes], deidentify: bool
) -> None:
    store = opened(limit=("file_bytes=1k",))
    entry = submit(store, series)
    work(store, deidentify=deidentify)
    assert store.get(entry.study_id).error_code == "too_large"


def test_a_file_that_cannot_be_deidentified_is_refused(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(series[0]))
    dataset.BurnedInAnnotation = "YES"
    out = io.BytesIO()
    dataset.save_as(out)
    entry = submit(store, [out.getvalue()])
    work(store, deidentify=True)
    assert store.get(entry.study_id).error_code == "burned_in_annotation"


def test_the_site_has_one_key_that_it_keeps_to_itself(store: Store, opened: Callable[..., Store]) -> None:
    key = store.folder.pseudonym_key()
    assert len(key) == 32
    assert opened().folder.pseudonym_key() == key
    modes = {path.name: path.stat().st_mode & 0o777 for path in store.folder.root.iterdir() if path.is_file()}
    assert modes == {".pseudonym-key": 0o600, ".store-id": 0o600}
