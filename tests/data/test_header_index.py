"""A preparation reads the header of a file once, and again only if the file changed."""

from pathlib import Path

import pytest

from hemoscope.data import prepare_dicom as preparing
from hemoscope.data.label_table import LabelledImage
from hemoscope.data.prepare import Preparation
from hemoscope.data.rsna import DATASET
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

LABELS = {f"ID_{series}{place}": LabelledImage(labels=(0,) * 6) for series in range(2) for place in range(3)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for series in range(2):
        drafts = write_series(make_phantom(seed=series, shape=(3, 32, 32)), tmp_path / "draft", seed=series)
        for place, draft in enumerate(drafts):
            draft.rename(folder / f"ID_{series}{place}.dcm")
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read."""
    names: list[str] = []
    original = preparing.identify

    def noted(task: preparing.IdentifyTask) -> object:
        names.extend(file.name for file in task.files)
        return original(task)

    monkeypatch.setattr(preparing, "identify", noted)
    return names


def prepare(images: Path, cache: Path, labels: dict[str, LabelledImage] = LABELS) -> Preparation:
    return preparing.prepare_dicom(images, labels, cache, DATASET, pseudonyms=False, workers=1)


def series_bytes(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "series").iterdir()}


def test_a_resumed_preparation_reads_the_headers_of_new_files_alone(
    images: Path, tmp_path: Path, read: list[str]
) -> None:
    new, cache = images / "ID_12.dcm", tmp_path / "cache"
    content = new.read_bytes()
    new.unlink()
    prepare(images, cache)
    new.write_bytes(content)
    del read[:]
    done = prepare(images, cache)
    assert (done.slices, read) == (6, [new.name])
    assert prepare(images, cache) == done == prepare(images, tmp_path / "fresh")
    assert series_bytes(cache) == series_bytes(tmp_path / "fresh")


def test_a_file_that_changed_under_its_name_is_read_again_with_its_series(
    images: Path, tmp_path: Path, read: list[str]
) -> None:
    cache, path = tmp_path / "cache", images / "ID_10.dcm"
    prepare(images, cache)
    before = series_bytes(cache)
    path.write_bytes(path.read_bytes()[:-2] + b"\x07\x07")
    del read[:]
    assert prepare(images, cache).slices == 6
    assert read == [path.name]
    prepare(images, tmp_path / "fresh")
    assert series_bytes(cache) == series_bytes(tmp_path / "fresh") != before


def test_labels_that_no_longer_name_the_patient_ask_the_header(images: Path, tmp_path: Path, read: list[str]) -> None:
    named = {image_id: LabelledImage(labels=(0,) * 6, patient_id="p") for image_id in LABELS}
    prepare(images, tmp_path / "cache", named)
    del read[:]
    prepare(images, tmp_path / "cache")
    assert len(read) == 6


def test_a_damaged_index_is_not_used(
    images: Path, tmp_path: Path, read: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    done = prepare(images, tmp_path / "cache")
    (index,) = (tmp_path / "cache" / "index").glob("*.parquet")
    index.write_bytes(index.read_bytes().replace(b"ID_", b"ID+"))
    del read[:]
    assert prepare(images, tmp_path / "cache") == done
    assert len(read) == 6
    assert "index of headers is damaged" in caplog.text


def test_headers_are_known_before_all_are_read(
    images: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_BATCH", 2)
    monkeypatch.setattr(preparing, "_INDEX_STEP", 2)

    def interrupted(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("headers", 6):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparing.prepare_dicom(
            images, LABELS, tmp_path / "cache", DATASET, pseudonyms=False, workers=1, show=interrupted
        )
    del read[:]
    assert prepare(images, tmp_path / "cache").slices == 6
    assert len(read) == 2
