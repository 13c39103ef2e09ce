"""Labelled DICOM that cannot be prepared is left out with its reason; the rest becomes a cache."""

import zipfile
from pathlib import Path

import pydicom
import pytest

from hemoscope.data import dicom_series
from hemoscope.data.cache import open_cache
from hemoscope.data.label_table import LabelledImage
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DataError
from hemoscope.testing.dicom_writer import write_series

from .conftest import image_id_of, phantom, prepare, rewrite


def test_an_image_above_a_limit_is_left_out_and_one_in_an_archive_too(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"the limit file_bytes is 100\. .*--limit"):
        prepare(kaggle, labels, tmp_path / "none", limits=ReadLimits(file_bytes=100))
    path = kaggle / f"{image_id_of(0, 0)}.dcm"
    with zipfile.ZipFile(kaggle / "more.zip", "w") as archive:
        archive.write(path, path.name)
    path.unlink()
    largest = max(file.stat().st_size for file in kaggle.glob("*.dcm"))
    done = prepare(kaggle, labels, tmp_path / "cache", limits=ReadLimits(file_bytes=largest))
    assert (path.stem, f"more.zip/{path.name}: it is in an archive. Unpack that first") in done.left_out


def test_what_cannot_be_read_is_excluded_with_its_reason_and_never_replaced(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    cut, text, gone, strange = (image_id_of(0, place) for place in range(4))
    (kaggle / f"{cut}.dcm").write_bytes((kaggle / f"{cut}.dcm").read_bytes()[:-300])
    (kaggle / f"{text}.dcm").write_text("no picture")
    (kaggle / f"{gone}.dcm").unlink()
    (kaggle / f"{strange}.dcm").rename(kaggle / "ID_strange.dcm")
    done = prepare(kaggle, labels, tmp_path / "cache")
    assert done.slices == 8
    reasons = dict(done.left_out)
    assert set(reasons) == {cut, text, gone, strange, "ID_strange"}
    assert "Copy or export the file again; part of it is missing" in reasons[cut]
    assert "Give DICOM files" in reasons[text]
    assert reasons[gone] == reasons[strange] == "labelled, but no file in the folder has this name"
    assert reasons["ID_strange"] == "ID_strange.dcm: no row in the labels"
    listed = (tmp_path / "cache" / "left_out.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in listed] == ["image_id", *sorted(reasons)]
    assert "ID_p0" not in open_cache(tmp_path / "cache").manifest["patient_id"].tolist()
    assert str(tmp_path) not in " ".join(listed)


def test_a_slice_that_fails_only_in_decoding_leaves_the_others(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    path = kaggle / f"{image_id_of(1, 2)}.dcm"
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    broken = bytearray(dataset.PixelData)
    broken[12:16] = b"\xff\xff\xff\x0f"
    dataset.PixelData = bytes(broken)
    dataset.save_as(path)
    done = prepare(kaggle, labels, tmp_path / "cache")
    assert [image_id for image_id, _ in done.left_out] == [image_id_of(1, 2)]
    assert done.left_out[0][1].startswith(path.name)
    rows = open_cache(tmp_path / "cache").manifest.query("patient_id == 'ID_p1'")
    assert rows["index"].tolist() == [0, 1, 2]
    assert rows["image_id"].tolist() == [image_id_of(1, place) for place in (0, 1, 3)]


def test_a_series_of_which_no_slice_decodes_is_excluded(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hemoscope.errors import SeriesError

    def fail(*_arguments: object, **_options: object) -> None:
        msg = "no slice of series 1.2 can be decoded: spoilt"
        raise SeriesError(msg)

    monkeypatch.setattr(dicom_series, "read_series", fail)
    with pytest.raises(DataError, match=r"none of the 12 labelled images could be read; the first reason: ID_.*spoilt"):
        prepare(kaggle, labels, tmp_path / "cache")
    assert not (tmp_path / "cache" / "manifest.parquet").exists()


def test_a_series_of_two_patients_is_excluded(kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path) -> None:
    rewrite(kaggle / f"{image_id_of(0, 1)}.dcm", PatientID="another")
    done = prepare(kaggle, labels, tmp_path / "cache")
    assert done.slices == 8
    assert len(done.left_out) == 4
    assert "holds slices of 2 patients or studies" in done.left_out[0][1]
    assert "another" not in str(done.left_out)


def test_a_file_without_a_patient_or_a_series_is_excluded(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    rewrite(kaggle / f"{image_id_of(0, 0)}.dcm", PatientID="")
    rewrite(kaggle / f"{image_id_of(0, 1)}.dcm", SeriesInstanceUID="")
    reasons = dict(prepare(kaggle, labels, tmp_path / "cache").left_out)
    assert "no patient ID (0010,0020). Add a column" in reasons[image_id_of(0, 0)]
    assert "no study or series instance UID" in reasons[image_id_of(0, 1)]


def test_a_series_uid_that_could_name_another_place_is_excluded(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    for place in range(4):
        with pytest.warns(UserWarning, match="Invalid value for VR UI"):
            rewrite(kaggle / f"{image_id_of(0, place)}.dcm", SeriesInstanceUID="../../evil")
    done = prepare(kaggle, labels, tmp_path / "cache")
    assert done.slices == 8
    assert "is not safe as a file name" in done.left_out[0][1]
    assert not list(tmp_path.rglob("*evil*"))


def test_a_file_of_several_frames_is_excluded(tmp_path: Path) -> None:
    (file,) = write_series(phantom(0), tmp_path / "images", seed=0, enhanced=True)
    write_series(phantom(1), tmp_path / "images" / "more", seed=1)
    known = {name: LabelledImage(labels=(0,) * 6) for name in ("IM0001", "more/IM0001")}
    done = prepare(tmp_path / "images", known, tmp_path / "cache")
    reasons = [reason for _, reason in done.left_out]
    assert any(f"{file.name}: 4 frames, but one labelled slice is expected" in reason for reason in reasons)
    assert done.slices == 1
    assert open_cache(tmp_path / "cache").manifest["image_id"].tolist() == ["more/IM0001"]


@pytest.mark.parametrize(
    ("moment", "reason"), [("open_image", "of another series"), ("read_series", "replaced or written")]
)
def test_a_file_that_is_replaced_while_it_is_prepared_is_left_out_by_name(
    kaggle: Path,
    labels: dict[str, LabelledImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    reason: str,
) -> None:
    """Before its header is read again, and before its pixels are, if the series is too large to be kept in memory."""
    monkeypatch.setattr(dicom_series, "_HELD_BYTES", 0)
    victim, other = (kaggle / f"{image_id_of(patient, 2)}.dcm" for patient in (0, 1))
    original = getattr(dicom_series, moment)
    content = other.read_bytes()

    def replaced(*words: object, **options: object) -> object:
        whole = victim.read_bytes()
        victim.write_bytes(content)
        try:
            return original(victim.read_bytes() if words[0] == whole else words[0], *words[1:], **options)
        finally:
            victim.write_bytes(whole)

    monkeypatch.setattr(dicom_series, moment, replaced)
    done = prepare(kaggle, labels, tmp_path / "cache")
    ((image_id, why),) = done.left_out
    assert image_id == victim.stem
    assert f"{victim.name}: " in why
    assert reason in why
    assert image_id not in set(open_cache(tmp_path / "cache").manifest["image_id"])
    assert done.slices == 11
