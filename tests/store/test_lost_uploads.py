"""Uploaded files that were lost or damaged before they were read: the study says so and is never complete."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hemoscope.dicom.archive import open_archive
from hemoscope.store.sources import open_upload
from hemoscope.store.storage import SOURCE_SUMS
from hemoscope.store.store import Store
from hemoscope.store.values import StudyState, StudySummary

Submit = Callable[..., StudySummary]
Work = Callable[..., int]


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


DAMAGE = {
    "gone": lambda source: (source / "000002").unlink(),
    "a bit of a pixel": lambda source: flip(source / "000002", 8 * (source / "000002").stat().st_size - 100),
    "a bit of a header": lambda source: flip(source / "000002", 8 * 600),
    "another file": lambda source: shutil.copy(source / "000003", source / "000002"),
    "a bit of a checksum": lambda source: flip(source / SOURCE_SUMS, 3),
    "a bit of a name": lambda source: flip(source / SOURCE_SUMS, 8 * 67),
    "a folder in its place": lambda source: ((source / "000002").unlink(), (source / "000002").mkdir()),
}


@pytest.mark.parametrize("deidentify", [False, True])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_study_with_a_lost_file_is_incomplete_and_says_why(
    store: Store,
    submit: Submit,
    work: Work,
    series: list[bytes],
    damage: Callable[[Path], object],
    deidentify: bool,
) -> None:
    entry = submit(store, series)
    damage(store.folder.source(entry.upload_id))
    work(store, deidentify=deidentify)
    done = store.get(entry.study_id)
    assert done.state is StudyState.DONE
    (study,) = json.loads(store.findings_json(entry.study_id))["studies"]
    assert study["state"] == "incomplete"
    assert "lost_upload" in {one["code"] for one in study["unread"]["reasons"]}
    assert done.findings is not None
    assert "lost_upload" in {one["code"] for one in done.findings["rejected"]}
    (message,) = {one["message"] for one in study["unread"]["reasons"] if one["code"] == "lost_upload"}
    assert message.startswith(("an uploaded file was lost or damaged", "2 uploaded files were lost or damaged"))
    assert message.endswith("Upload the study again")


def test_an_upload_whose_files_are_all_lost_fails_with_the_reason(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    entry = submit(store, series)
    for path in store.folder.source(entry.upload_id).glob("0*"):
        path.unlink()
    work(store)
    failed = store.get(entry.study_id)
    assert (failed.state, failed.error_code) == (StudyState.FAILED, "lost_upload")
    assert failed.error_cure == "Upload the study again"


def test_an_upload_whose_folder_is_lost_fails_with_the_reason(
    store: Store, submit: Submit, work: Work, series: list[bytes]
) -> None:
    entry = submit(store, series)
    shutil.rmtree(store.folder.source(entry.upload_id))
    work(store)
    assert store.get(entry.study_id).error_code == "lost_upload"


def test_an_upload_of_which_nothing_can_be_deidentified_lost_nothing(
    store: Store, submit: Submit, series: list[bytes]
) -> None:
    entry = submit(store, [b"no DICOM at all"])
    opened = open_upload(store.folder, entry.upload_id, deidentify=True)
    assert [one.code for one in opened.rejected] == ["not_dicom"]


def test_an_upload_of_an_earlier_version_is_read_with_a_warning(
    store: Store, submit: Submit, work: Work, series: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    entry = submit(store, series)
    (store.folder.source(entry.upload_id) / SOURCE_SUMS).unlink()
    work(store)
    (study,) = json.loads(store.findings_json(entry.study_id))["studies"]
    assert study["unread"]["reasons"] == [] or "lost_upload" not in {one["code"] for one in study["unread"]["reasons"]}
    assert "An upload has no checksums, as an earlier version wrote it" in caplog.text


def test_whole_uploads_are_read_as_before(store: Store, submit: Submit, series: list[bytes]) -> None:
    entry = submit(store, series)
    source = store.folder.source(entry.upload_id)
    opened = open_upload(store.folder, entry.upload_id, deidentify=False)
    assert opened.rejected == ()
    assert opened.studies == open_archive(sorted(source.glob("0*"))).studies
    assert len(open_archive(source).rejected) == 0, "a reader of the folder passes over the checksums"
