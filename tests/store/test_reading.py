"""An upload becomes pixels to view and a result as ``hemoscope predict`` prints it, or a failure with a reason."""

import hashlib
import io
import json
import logging
import tracemalloc
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from hemoscope.dicom.archive import open_archive
from hemoscope.errors import StoreError
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABELS
from hemoscope.reports.findings_json import findings_document
from hemoscope.reports.report import ModelIdentity, Report, ReportedStudy
from hemoscope.store import tables
from hemoscope.store.found_studies import further_study_id
from hemoscope.store.reading import _digest
from hemoscope.store.scan_time import moment
from hemoscope.store.store import Store
from hemoscope.store.values import Identity, StudyDetail, StudyState, StudySummary, WorklistQuery
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Submit = Callable[..., StudySummary]
Work = Callable[..., int]
NAME, PATIENT = "DOE^JANE", "PID-4711"


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def of_patient(content: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.PatientName, dataset.PatientID = NAME, PATIENT
    dataset.StudyDate, dataset.StudyTime, dataset.TimezoneOffsetFromUTC = "20260102", "153000", "+0200"
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def another_study(series: list[bytes], uid: str) -> list[bytes]:
    changed = []
    for content in series:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid, f"{uid}.1"
        out = io.BytesIO()
        dataset.save_as(out)
        changed.append(out.getvalue())
    return changed


def all_studies(store: Store) -> tuple[StudySummary, ...]:
    return store.studies(WorklistQuery(limit=1000))[0]


def test_the_result_is_what_predict_prints(
    store: Store, submit: Submit, work: Work, series: list[bytes], predictor: Predictor
) -> None:
    entry = submit(store, series)
    source = store.folder.source(entry.upload_id)
    prediction = predictor.predict(open_archive(sorted(source.glob("0*"))))
    bundle = predictor.bundle
    model = ModelIdentity(name=bundle.card.name, version=bundle.card.version, sha256=bundle.sha256, precision="float32")
    (reading,) = prediction.studies
    study = ReportedStudy(findings=reading.findings)
    expected = findings_document(Report(model=model, studies=(study,), rejected=prediction.rejected))
    assert work(store) == 1
    assert json.loads(store.findings_json(entry.study_id)) == expected
    done = store.get(entry.study_id)
    assert done.findings == expected
    assert done.state is StudyState.DONE
    assert done.urgency == reading.findings.triage.value
    assert done.suspected == tuple(one.label.value for one in reading.findings.findings if one.present)
    assert done.instances == done.stage_done == done.stage_total == len(series)
    assert store.counts().queue_depth == 0


def test_pixels_and_heat_are_those_of_the_reading(
    store: Store, submit: Submit, work: Work, series: list[bytes], predictor: Predictor
) -> None:
    entry = submit(store, series)
    archive = open_archive(sorted(store.folder.source(entry.upload_id).glob("0*")))
    (reading,) = predictor.predict(archive, maps=True).studies
    assert reading.maps is not None
    work(store)
    geometry = store.get(entry.study_id).geometry
    assert geometry is not None
    for index in range(len(series)):
        pixels = np.frombuffer(store.pixels(entry.study_id, index), dtype="<i2").reshape(64, 64)
        assert (pixels == reading.volume.hounsfield[index]).all()
        box = reading.box(index)
        assert geometry["boxes"][index] == {"top": box.top, "left": box.left, "side": box.side}
    for label in LABELS:
        expected = reading.local_heat(label, 2).values * 255
        heat = np.frombuffer(store.heatmap(entry.study_id, 2, label), dtype=np.uint8)
        assert np.abs(heat.reshape(geometry["heatmap_shape"]) - expected).max() <= 1
        assert geometry["key_slices"][label] == [ref.index for ref in reading.findings.key_slices[label]]


def test_the_page_is_served_the_radiological_convention_however_slices_are_stored(
    store: Store, submit: Submit, work: Work, tmp_path: Path, predictor: Predictor
) -> None:
    turned = Acquisition(orientation=(0.0, -1.0, 0.0, 1.0, 0.0, 0.0))
    head = make_phantom(seed=1, shape=(5, 64, 48))
    files = [path.read_bytes() for path in write_series(head, tmp_path, acquisition=turned)]
    entry = submit(store, files)
    (reading,) = predictor.predict(
        open_archive(sorted(store.folder.source(entry.upload_id).glob("0*"))), maps=True
    ).studies
    work(store)
    found = store.get(entry.study_id)
    geometry = found.geometry
    assert geometry is not None
    assert (geometry["rows"], geometry["columns"]) == (48, 64)
    assert geometry["orientation"] == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    shown = reading.canonical
    pixels = np.frombuffer(store.pixels(entry.study_id, 2), dtype="<i2").reshape(48, 64)
    assert np.array_equal(pixels, shown.volume.hounsfield[2])
    box = shown.box(2)
    assert box.width is not None, "the phantom's pixels are not square"
    assert geometry["boxes"][2] == {"top": box.top, "left": box.left, "side": box.side, "width": box.width}
    heat = np.frombuffer(store.heatmap(entry.study_id, 2, "any"), dtype=np.uint8).reshape(geometry["heatmap_shape"])
    assert np.abs(heat / 255 - shown.local_heat("any", 2).values).max() < 0.01


def test_geometry_says_where_slices_lie(
    store: Store, submit: Submit, work: Work, series: list[bytes], predictor: Predictor
) -> None:
    entry = submit(store, series)
    work(store)
    found = store.get(entry.study_id)
    assert found.geometry is not None
    assert found.findings is not None
    geometry, slices = found.geometry, found.findings["studies"][0]["slices"]
    assert (geometry["slices"], geometry["rows"], geometry["columns"]) == (5, 64, 64)
    assert geometry["labels"] == [label.value for label in LABELS]
    named = zip(geometry["sop_instance_uids"], geometry["frames"], strict=True)
    assert list(named) == [(one["sop_instance_uid"], one["frame"]) for one in slices]
    assert geometry["positions_mm"] == [one["position_mm"] for one in slices]
    assert geometry["probabilities"] == [list(one["probabilities"].values()) for one in slices]
    assert geometry["thresholds"] == dict.fromkeys(LABELS, 0.5)
    assert not geometry["assumed"]
    assert all(spacing > 0 for spacing in geometry["spacing_mm"])


def test_slices_can_be_looked_at_before_there_is_a_result(
    store: Store, submit: Submit, work: Work, series: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = submit(store, series)
    seen: list[StudyDetail] = []
    read = Predictor.read

    def look(self: Predictor, *arguments: Any, **options: Any) -> Any:
        seen.append(store.get(entry.study_id))
        assert len(store.pixels(entry.study_id, 0)) == 64 * 64 * 2
        with pytest.raises(StoreError, match=r"no heat maps to show.*until the study is done"):
            store.heatmap(entry.study_id, 0, "any")
        with pytest.raises(StoreError, match=r"no result yet"):
            store.findings_json(entry.study_id)
        return read(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "read", look)
    work(store)
    (before,) = seen
    assert (before.state, before.has_pixels, before.has_maps) == (StudyState.SCORING, True, False)
    assert before.geometry is not None
    assert before.geometry["boxes"] == []
    assert store.get(entry.study_id).has_maps


def test_pixels_that_are_not_there_are_refused(store: Store, submit: Submit, work: Work, series: list[bytes]) -> None:
    entry = submit(store, series)
    with pytest.raises(StoreError, match=r"no pixels to show") as refused:
        store.pixels(entry.study_id, 0)
    assert refused.value.code == "no_pixels"
    work(store)
    for index in (-1, 5):
        with pytest.raises(StoreError, match=f"slice {index} of a study of 5") as refused:
            store.pixels(entry.study_id, index)
        assert refused.value.code == "no_such_slice"
    with pytest.raises(StoreError, match="no label 'everything'") as refused:
        store.heatmap(entry.study_id, 0, "everything")
    assert refused.value.code == "no_such_label"


def test_a_file_that_is_not_ct_fails_with_its_code_and_refusals(store: Store, submit: Submit, work: Work) -> None:
    entry = submit(store, [b"no DICOM at all", b"nor this"])
    work(store)
    failed = store.get(entry.study_id)
    assert (failed.state, failed.error_code) == (StudyState.FAILED, "not_dicom")
    assert failed.error_message == "no DICOM prefix and no DICOM elements at its start (2 of 2 files)"
    assert failed.error_cure == "Give DICOM files (CT slices); leave other files out"
    document = json.loads(store.findings_json(entry.study_id))
    assert document["studies"] == []
    assert [one["code"] for one in document["rejected"]] == ["not_dicom", "not_dicom"]
    assert not failed.has_pixels


def test_an_archive_without_a_file_fails_with_a_code(store: Store, submit: Submit, work: Work) -> None:
    entry = submit(store, [zipped({})])
    work(store)
    assert store.get(entry.study_id).error_code in ("nothing_found", "not_dicom", "bad_archive")
    assert store.get(entry.study_id).state is StudyState.FAILED


def test_a_bad_file_beside_good_ones_is_reported_and_stops_nothing(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    entry = submit(store, [b"no DICOM at all", *series])
    work(store)
    done = store.get(entry.study_id)
    assert done.state is StudyState.DONE
    assert done.findings is not None
    assert [one["code"] for one in done.findings["rejected"]] == ["not_dicom"]


def test_every_study_of_an_upload_gets_a_row_of_its_own(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    sagittal = []
    for content in another_study(series, "1.2.3.1"):
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        out = io.BytesIO()
        dataset.save_as(out)
        sagittal.append(out.getvalue())
    files = {f"{number}.dcm": content for number, content in enumerate([*series, *sagittal])}
    files |= {f"c{number}.dcm": content for number, content in enumerate(another_study(series, "1.2.3.2"))}
    entry = submit(store, [zipped(files)], by="anna")
    work(store)
    studies = all_studies(store)
    assert sorted(one.state for one in studies) == [StudyState.DONE, StudyState.DONE, StudyState.FAILED]
    expected = {entry.study_id, further_study_id(entry.upload_id, 1), further_study_id(entry.upload_id, 2)}
    assert {one.study_id for one in studies} == expected
    assert {(one.upload_id, one.submitted_by, one.received_at) for one in studies} == {
        (entry.upload_id, "anna", entry.received_at)
    }
    (failed,) = [one for one in studies if one.state is StudyState.FAILED]
    assert failed.error_code == "no_series"
    assert failed.error_cure == "Export the study again from its source, as axial CT of the head, and upload that"
    assert "--series" not in f"{failed.error_message}{store.findings_json(failed.study_id)}", (
        "there are no options here"
    )
    documents = [json.loads(store.findings_json(one.study_id)) for one in studies if one.state is StudyState.DONE]
    assert len({document["studies"][0]["study_instance_uid"] for document in documents}) == 2


@pytest.mark.parametrize("keep_source", [False, True])
def test_sources_are_removed_once_read_unless_they_are_to_be_kept(
    opened: Callable[..., Store], submit: Submit, work: Work, series: list[bytes], keep_source: bool
) -> None:
    store = opened(keep_source=keep_source)
    entry = submit(store, series)
    work(store)
    store.sweep()
    assert store.folder.source(entry.upload_id).is_dir() == keep_source
    assert list(store.folder.trash.iterdir()) == []


def test_identity_is_stored_only_if_the_site_asks_for_it(
    store: Store, submit: Submit, work: Work, series: list[bytes], query: Callable[..., list[Any]], tmp_path: Path
) -> None:
    files = [zipped({f"{NAME}/{PATIENT}-{n}.dcm": of_patient(content) for n, content in enumerate(series)})]
    entry = submit(store, files)
    work(store)
    found = store.get(entry.study_id)
    assert found.identity is None
    assert found.state is StudyState.DONE
    everything = [row for table in tables.metadata.tables.values() for row in query(store, table.select())]
    assert NAME not in str(everything)
    assert PATIENT not in str(everything)
    assert store.studies(WorklistQuery(identity=True, search="doe"))[1] == 0

    shown = submit(store, files)
    work(store, keep_identity=True)
    assert store.get(shown.study_id).identity == Identity(name=NAME, id=PATIENT)
    assert [one.study_id for one in store.studies(WorklistQuery(identity=True, search="jane pid"))[0]] == [
        shown.study_id
    ]


def test_the_time_of_the_scan_is_utc(store: Store, submit: Submit, work: Work, series: list[bytes]) -> None:
    entry = submit(store, [of_patient(content) for content in series])
    work(store)
    assert store.get(entry.study_id).acquired_at == datetime(2026, 1, 2, 13, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20260102", "15", datetime(2026, 1, 2, 15, tzinfo=UTC)),
        ("2026.01.02", "153000.123456", datetime(2026, 1, 2, 15, 30, tzinfo=UTC)),
        ("20260102", "", datetime(2026, 1, 2, tzinfo=UTC)),
        ("20261302", "1200", None),
        ("20260102", "9999", None),
        ("", "1200", None),
        ("00000101", "0000", None),
    ],
)
def test_dates_of_any_form_become_a_moment_or_none(date: str, time: str, expected: datetime | None) -> None:
    assert moment(date, time, "+0000") == expected


def test_a_time_without_a_zone_is_that_of_this_machine() -> None:
    found = moment("20260102", "1530", "")
    assert found is not None
    assert found.astimezone().replace(tzinfo=None) == datetime(2026, 1, 2, 15, 30)


def test_an_unexpected_error_is_logged_without_identity_and_reported(
    store: Store,
    submit: Submit,
    work: Work,
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def explode(*_arguments: Any, **_options: Any) -> None:
        raise ZeroDivisionError(NAME)

    entry = submit(store, series)
    with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
        patch.setattr(Predictor, "read", explode)
        assert work(store) == 3
    failed = store.get(entry.study_id)
    assert (failed.state, failed.error_code) == (StudyState.FAILED, "internal_error")
    assert "ZeroDivisionError" in (failed.error_message or "")
    assert "ZeroDivisionError at inference/predictor.py:" in caplog.text
    assert NAME not in caplog.text + str(failed)
    assert work(store) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), "out_of_memory"), (StoreError(code="no_maps", reason="odd", remedy="wait"), "no_maps")],
)
def test_too_little_memory_and_errors_of_the_store_are_reported_with_a_code(
    store: Store,
    submit: Submit,
    work: Work,
    series: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise error

    entry = submit(store, series)
    monkeypatch.setattr(Predictor, "read", fail)
    work(store)
    assert store.get(entry.study_id).error_code == code


def test_a_study_deleted_while_it_is_read_leaves_nothing(
    store: Store, submit: Submit, work: Work, series: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = submit(store, series)
    read = Predictor.read

    def delete_first(self: Predictor, *arguments: Any, **options: Any) -> Any:
        store.delete(entry.study_id, by="anna")
        return read(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "read", delete_first)
    assert work(store) == 1
    assert store.studies() == ((), 0)
    assert list(store.folder.uploads()) == []


def test_progress_is_reported_without_flooding_the_database(
    store: Store, submit: Submit, work: Work, series: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemoscope.store.reading._PROGRESS_EVERY_S", 0.0)
    reported: list[tuple[str, int, int]] = []
    progress = store.results.progress

    def noted(job: Any, study_id: Any, *, state: StudyState, done: int, total: int) -> None:
        progress(job, study_id, state=state, done=done, total=total)
        if study_id is not None:
            reported.append((state.value, done, total))

    monkeypatch.setattr(store.results, "progress", noted)
    submit(store, series)
    work(store)
    assert reported == [(state, done, 5) for state in ("reading", "scoring") for done in range(1, 6)]
    monkeypatch.setattr("hemoscope.store.reading._PROGRESS_EVERY_S", 3600.0)
    reported.clear()
    submit(store, series)
    work(store)
    assert reported == []


def test_the_digest_of_a_volume_is_that_of_shape_and_bytes_without_a_copy_of_them() -> None:
    volume = np.arange(20 * 256 * 256, dtype="<i2").reshape(20, 256, 256)
    expected = hashlib.sha256(repr(volume.shape).encode() + volume.tobytes()).hexdigest()
    tracemalloc.start()
    try:
        assert _digest(volume) == expected
        assert tracemalloc.get_traced_memory()[1] < volume.nbytes / 10
    finally:
        tracemalloc.stop()


def test_an_empty_file_of_a_study_is_refused_by_name(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    """A copy that was interrupted leaves a slice without bytes at the end: the study looked complete."""
    entry = submit(store, [*series, b""])
    work(store)
    document = json.loads(store.findings_json(entry.study_id))
    assert [(one["source"], one["code"]) for one in document["rejected"]] == [(f"{len(series) + 1:06d}", "not_dicom")]
