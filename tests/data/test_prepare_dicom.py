"""Preparing labelled DICOM: phantoms in Kaggle's layout become a cache, the same on any number of workers."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from hemoscope.data import dicom_series
from hemoscope.data.cache import open_cache, series_path
from hemoscope.data.label_table import LabelledImage
from hemoscope.data.prepare_dicom import prepare_dicom
from hemoscope.data.rsna import DATASET, read_rsna_labels
from hemoscope.errors import DataError
from hemoscope.labels import LABELS
from hemoscope.testing.dicom_writer import Acquisition, stable_uid, write_series
from hemoscope.testing.phantom import make_phantom

from .conftest import image_id_of, phantom, prepare


def stored_bytes(cache: Path) -> dict[str, bytes]:
    """All files but the index, which holds times of change of the images."""
    paths = (path for path in cache.rglob("*") if path.is_file() and path.parent.name != "index")
    return {path.relative_to(cache).as_posix(): path.read_bytes() for path in paths}


def test_a_series_lies_in_anatomical_order_in_hounsfield_units(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    done = prepare(kaggle, labels, tmp_path / "cache")
    assert (done.slices, done.left_out) == (12, ())
    cache = open_cache(tmp_path / "cache")
    assert cache.dataset == DATASET
    assert cache.manifest["patient_id"].tolist() == ["ID_p0"] * 4 + ["ID_p1"] * 4 + ["ID_p2"] * 4
    assert cache.manifest["series_id"].nunique() == 3
    for patient in range(3):
        rows = cache.manifest[cache.manifest["patient_id"] == f"ID_p{patient}"]
        assert rows["image_id"].tolist() == [image_id_of(patient, place) for place in range(4)]
        assert rows["index"].tolist() == [0, 1, 2, 3]
        assert np.array_equal(rows[list(LABELS)].to_numpy(dtype=bool), phantom(patient).slice_labels)
        series = cache.read_series(rows["series_id"].iloc[0])
        assert np.array_equal(series.volume.hounsfield, phantom(patient).hounsfield)
        assert series.volume.spacing_mm == pytest.approx(phantom(patient).spacing_mm, abs=1e-5)
        assert series.volume.positions_mm == pytest.approx(phantom(patient).positions_mm, abs=1e-5)
        assert series.mask is None


def test_processes_and_a_cluster_give_the_same_bytes_as_no_process_at_all(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    from distributed import LocalCluster

    prepare(kaggle, labels, tmp_path / "here")
    shown: list[tuple[str, int, int]] = []
    prepare(kaggle, labels, tmp_path / "processes", workers=2, show=lambda *step: shown.append(step))
    assert shown[0] == ("headers", 12, 12)
    assert sorted(shown[1:]) == [("slices", done, 12) for done in (4, 8, 12)]
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        prepare(kaggle, labels, tmp_path / "cluster", workers=None, dask=cluster.scheduler_address)
    expected = stored_bytes(tmp_path / "here")
    assert stored_bytes(tmp_path / "processes") == expected
    assert stored_bytes(tmp_path / "cluster") == expected


def test_slices_that_do_not_fit_into_one_stack_become_stacks_of_their_own(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    """One series UID, two sizes and a doubled place: every labelled slice is kept, none beside a false neighbour."""
    small = make_phantom(seed=9, shape=(1, 16, 16))
    (file,) = write_series(small, tmp_path / "small", seed=0, acquisition=Acquisition(patient_id="ID_p0"))
    file.rename(kaggle / "ID_small.dcm")
    (kaggle / "ID_twin.dcm").write_bytes((kaggle / f"{image_id_of(0, 1)}.dcm").read_bytes())
    labels |= dict.fromkeys(("ID_small", "ID_twin"), LabelledImage(labels=(0,) * 6))
    done = prepare(kaggle, labels, tmp_path / "cache")
    assert (done.slices, done.left_out) == (14, ())
    cache = open_cache(tmp_path / "cache")
    mine = cache.manifest[cache.manifest["patient_id"] == "ID_p0"]
    uid = str(stable_uid(0, "series", 1))
    assert {name: len(rows) for name, rows in mine.groupby("series_id")} == {
        uid: 4,
        f"{uid}_part2": 1,
        f"{uid}_part3": 1,
    }
    shapes = {cache.read_series(name).volume.hounsfield.shape for name in mine["series_id"]}
    assert shapes == {(4, 32, 32), (1, 32, 32), (1, 16, 16)}
    before = stored_bytes(tmp_path / "cache")
    prepare(kaggle, labels, tmp_path / "cache")
    assert stored_bytes(tmp_path / "cache") == before
    for name in ("ID_small", "ID_twin"):
        (kaggle / f"{name}.dcm").unlink()
    prepare(kaggle, labels, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "series").glob("*_part*"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many slices each decoding read."""
    counts: list[int] = []
    read_series = dicom_series.read_series

    def counted(archive: object, series: object, **options: object) -> object:
        counts.append(len(series))  # type: ignore[arg-type]
        return read_series(archive, series, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dicom_series, "read_series", counted)
    return iter([counts])


def test_an_interrupted_preparation_resumes_with_the_same_result(
    kaggle: Path,
    labels: dict[str, LabelledImage],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoded: Iterator[list[int]],
) -> None:
    counts = next(decoded)

    def interrupt(stage: str, done: int, _total: int) -> None:
        if stage == "slices" and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(kaggle, labels, tmp_path / "cache", show=interrupt)
    with pytest.raises(DataError, match=r"holds no manifest\.parquet"):
        open_cache(tmp_path / "cache")
    assert prepare(kaggle, labels, tmp_path / "cache").slices == 12
    assert counts == [4, 4, 4]
    prepare(kaggle, labels, tmp_path / "at-once")
    assert stored_bytes(tmp_path / "cache") == stored_bytes(tmp_path / "at-once")


def test_a_file_that_was_restored_and_a_damaged_series_are_read_again(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    prepare(kaggle, labels, tmp_path / "whole")
    path = kaggle / f"{image_id_of(2, 0)}.dcm"
    content = path.read_bytes()
    path.write_bytes(b"")
    assert prepare(kaggle, labels, tmp_path / "cache").slices == 11
    path.write_bytes(content)
    damaged = series_path(tmp_path / "cache", str(stable_uid(1, "series", 1)))
    damaged.write_bytes(damaged.read_bytes()[:500])
    assert prepare(kaggle, labels, tmp_path / "cache").slices == 12
    assert stored_bytes(tmp_path / "cache") == stored_bytes(tmp_path / "whole")


def test_labels_that_changed_need_no_decoding(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path, decoded: Iterator[list[int]]
) -> None:
    counts = next(decoded)
    prepare(kaggle, labels, tmp_path / "cache")
    labels[image_id_of(0, 0)] = LabelledImage(labels=(1, None, None, None, None, None))
    prepare(kaggle, labels, tmp_path / "cache")
    assert len(counts) == 3
    row = open_cache(tmp_path / "cache").manifest.set_index("image_id").loc[image_id_of(0, 0)]
    assert row["any"] == 1
    assert row[[label.value for label in LABELS[1:]]].isna().all()


def test_patient_ids_of_a_hospital_are_hashed_and_the_table_may_name_patients_itself(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    for place in range(4):
        image_id = image_id_of(1, place)
        labels[image_id] = replace(labels[image_id], patient_id="mine")
    prepare(kaggle, labels, tmp_path / "cache", pseudonyms=True)
    patients = open_cache(tmp_path / "cache").manifest["patient_id"]
    assert patients.nunique() == 3
    assert "mine" in set(patients)
    assert not any("ID_p" in patient for patient in patients)
    assert sum(patient.startswith("patient-") for patient in patients.unique()) == 2


def test_an_id_that_fits_files_in_two_folders_is_refused_before_anything_is_read(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    name = f"{image_id_of(0, 0)}.dcm"
    (kaggle / "copy").mkdir()
    (kaggle / "copy" / name).write_bytes((kaggle / name).read_bytes())
    with pytest.raises(DataError, match=rf"{image_id_of(0, 0)} fits .*copy/{name}.*Write the folder into image_id"):
        prepare(kaggle, labels, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_elements_that_fill_more_than_the_first_bytes_are_read_to_their_end(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    path = kaggle / f"{image_id_of(0, 0)}.dcm"
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x00091001, "OB", os.urandom(200_000))
    dataset.add_new(0x00090010, "LO", "private")
    dataset.save_as(path)
    assert prepare(kaggle, labels, tmp_path / "cache").slices == 12


def test_a_cache_of_another_dataset_is_not_written_over(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    prepare(kaggle, labels, tmp_path / "cache")
    other = replace(DATASET, name="another")
    with pytest.raises(DataError, match="cache holds 'RSNA 2019 Brain CT Hemorrhage', not 'another'"):
        prepare_dicom(kaggle, labels, tmp_path / "cache", other, workers=1)


def test_images_that_are_no_folder_are_refused(labels: dict[str, LabelledImage], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent is not a folder"):
        prepare(tmp_path / "absent", labels, tmp_path / "cache")


@pytest.mark.shared_data
def test_real_slices_of_rsna_are_prepared_with_the_image_that_occurs_twice_once(
    shared_data_dir: Path, tmp_path: Path
) -> None:
    folder = shared_data_dir / "rsna-dicom"
    known = read_rsna_labels(folder / "stage_2_train.csv")
    assert len(known) == 66
    done = prepare(folder / "images", known, tmp_path / "cache")
    assert (done.slices, len(done.left_out)) == (66, 21)
    assert all("no row in the labels" in reason for _, reason in done.left_out)
    manifest = open_cache(tmp_path / "cache").manifest
    assert (manifest["image_id"] == "ID_00008ce3c").sum() == 1
    assert manifest["patient_id"].nunique() == 31
    assert manifest["any"].sum() == 20
    assert manifest.loc[manifest["any"] == 1, "patient_id"].nunique() == 10
    assert manifest["epidural"].sum() == 0
    assert manifest.groupby("series_id").size().max() == 36


def test_the_stages_of_progress_are_reported_once_each(
    kaggle: Path, labels: dict[str, LabelledImage], tmp_path: Path
) -> None:
    shown: list[tuple[str, int, int]] = []
    (kaggle / f"{image_id_of(0, 0)}.dcm").write_bytes(b"")
    prepare(kaggle, labels, tmp_path / "cache", show=lambda *step: shown.append(step))
    assert shown[0] == ("headers", 12, 12)
    assert shown[-1] == ("slices", 11, 11)
