"""Other axial series of a study are kept on request, and go with the study."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.errors import StoreError
from hemoscope.store import other_series, reading
from hemoscope.store.backup import make_backup
from hemoscope.store.store import Store
from hemoscope.store.values import StudyDetail, StudyState, StudySummary
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

HEAD = make_phantom(seed=5, shape=(5, 64, 64))
THIN = make_phantom(seed=5, shape=(10, 64, 64), spacing_mm=(2.5, *HEAD.spacing_mm[1:]))
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
NAME = "WINTERBOTTOM"


@pytest.fixture
def files(tmp_path: Path) -> list[bytes]:
    """A study of four series: the one that is read, a thin one of a sharp kernel, a coronal one, one of elsewhere."""
    soft, bone = Acquisition(), Acquisition(series_number=2, convolution_kernel="H60s", series_description=NAME)
    coronal = Acquisition(series_number=3, orientation=CORONAL)
    elsewhere = Acquisition(series_number=4, convolution_kernel="H70s")
    heads = ((HEAD, soft), (THIN, bone), (HEAD, coronal), (HEAD, elsewhere))
    contents = []
    for number, (head, acquisition) in enumerate(heads):
        paths = write_series(head, tmp_path / f"in{number}", seed=5, acquisition=acquisition)
        contents += [of_frame("1.2.9" if acquisition is elsewhere else "1.2.8", path.read_bytes()) for path in paths]
    return contents


def of_frame(uid: str, content: bytes) -> bytes:
    return changed(content, FrameOfReferenceUID=uid)


def changed(content: bytes, **elements: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    for name, value in elements.items():
        setattr(dataset, name, value)
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.fixture
def room(opened: Callable[..., Store]) -> Store:
    return opened(keep_series=5, keep_source=True)


def read(
    store: Store, submit: Callable[..., StudySummary], work: Callable[..., int], files: list[bytes]
) -> StudyDetail:
    entry = submit(store, files)
    work(store)
    return store.get(entry.study_id)


def test_the_other_axial_series_is_kept_as_it_was_sent(
    room: Store, submit: Callable[..., StudySummary], work: Callable[..., int], files: list[bytes]
) -> None:
    study = read(room, submit, work, files)
    (kept,) = study.series
    assert kept.description == "2.5 mm, kernel H60s"
    assert NAME not in study.model_dump_json()
    assert [one.kept_series for one in room.changes_since(0).studies] == [1], "a page that has none fetches it"
    archive = open_archive(sorted(room.folder.source(study.upload_id).glob("0*")))
    (series,) = [one for one in archive.studies[0].series if len(one) == len(THIN.hounsfield)]
    expected = read_series(archive, series).volume
    assert kept.geometry["positions_mm"] == list(expected.positions_mm)
    for index in range(len(THIN.hounsfield)):
        assert np.array_equal(room.series_pixels(study.study_id, 1, index), expected.hounsfield[index])
    for number, index, code in ((2, 0, "no_such_series"), (1, len(THIN.hounsfield), "no_such_slice")):
        with pytest.raises(StoreError) as refused:
            room.series_pixels(study.study_id, number, index)
        assert refused.value.code == code


def test_other_series_are_kept_on_request_alone_and_no_more_than_asked_for(
    opened: Callable[..., Store], submit: Callable[..., StudySummary], work: Callable[..., int], files: list[bytes]
) -> None:
    study = read(opened(), submit, work, files)
    assert study.series == ()
    assert study.findings is not None
    assert len(study.findings["studies"][0]["skipped_series"]) == 3, "what was not read is said as before"


def test_a_kept_series_is_in_a_backup_and_goes_with_its_study(
    room: Store, submit: Callable[..., StudySummary], work: Callable[..., int], files: list[bytes], tmp_path: Path
) -> None:
    study = read(room, submit, work, files)
    where = f"{study.upload_id}/{study.study_id}/series-1.npy"
    make_backup(room.database, room.folder, tmp_path / "backup")
    assert (tmp_path / "backup" / "storage" / where).is_file()
    room.delete(study.study_id, by="admin")
    assert not (room.folder.root / where).exists()


def test_no_study_waits_for_the_other_series_of_another(
    room: Store,
    submit: Callable[..., StudySummary],
    work: Callable[..., int],
    files: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = [changed(content, StudyInstanceUID="1.2.3") for content in files]
    seen: list[set[StudyState]] = []

    def keep(*arguments: Any, **options: Any) -> None:
        seen.append({one.state for one in room.studies()[0]})
        other_series.keep_series(*arguments, **options)

    monkeypatch.setattr(reading, "keep_series", keep)
    submit(room, files + second)
    work(room)
    assert seen == [{StudyState.DONE}, {StudyState.DONE}]
    assert [len(room.get(one.study_id).series) for one in room.studies()[0]] == [1, 1]


def test_a_series_of_an_unknown_frame_of_reference_is_not_kept(
    room: Store, submit: Callable[..., StudySummary], work: Callable[..., int], files: list[bytes]
) -> None:
    assert read(room, submit, work, [of_frame("", content) for content in files]).series == ()
