"""``hemoscope prepare rsna``, ``prepare table`` and ``data stats`` as a person runs them."""

from pathlib import Path

import pytest

from hemoscope.cli import main
from hemoscope.data.cache import open_cache
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.testing.dicom_writer import Acquisition, write_series
from hemoscope.testing.phantom import make_phantom


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Two patients of three slices in Kaggle's layout: flat images, six lines an image, one image twice."""
    (tmp_path / "images").mkdir()
    lines: list[str] = []
    for patient, bleeds in enumerate([frozenset({Hemorrhage.SUBDURAL}), frozenset[Hemorrhage]()]):
        phantom = make_phantom(seed=patient, shape=(3, 32, 32), bleeds=bleeds)
        acquisition = Acquisition(patient_id=f"ID_p{patient}")
        files = write_series(phantom, tmp_path / "written" / str(patient), seed=patient, acquisition=acquisition)
        for place, file in enumerate(files):
            file.rename(tmp_path / "images" / f"ID_{patient}{place}.dcm")
            shown = phantom.slice_labels[place]
            lines += [f"ID_{patient}{place}_{label},{int(shown[k])}" for k, label in enumerate(LABELS)]
    lines += lines[:6]
    (tmp_path / "train.csv").write_text("\n".join(["ID,Label", *lines]) + "\n")
    return tmp_path


def words(folder: Path, dataset: str, labels: str, *more: str) -> list[str]:
    inputs = ["--images", str(folder / "images"), "--labels", str(folder / labels)]
    return ["prepare", dataset, *inputs, "--output", str(folder / "cache"), "--workers", "1", *more]


def test_rsna_is_prepared_and_described(kaggle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(kaggle, "rsna", "train.csv")) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"6 slices in {kaggle / 'cache'}, 0 left out")
    assert "a second)" in printed.out
    assert printed.err == "train.csv: rows that repeat an earlier one with equal values: 6\n"
    assert set(open_cache(kaggle / "cache").manifest["patient_id"]) == {"ID_p0", "ID_p1"}
    assert main(["data", "stats", str(kaggle / "cache"), "--output", str(kaggle / "stats")]) == 0
    shown = capsys.readouterr().out
    for part in ("non-commercial research and education", "Subdural", "more than one", "EDH", "Table I", "written to"):
        assert part in shown
    assert (kaggle / "stats" / "stats.html").is_file()


def test_any_dicom_folder_is_prepared_with_a_table_of_labels(kaggle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"ID_{patient}{place},1,,,,,1" for patient in range(2) for place in range(3)]
    (kaggle / "labels.csv").write_text("\n".join([",".join(["image_id", *LABELS]), *rows]) + "\n")
    told = ["--name", "Our head CT", "--license", "ours alone", "--doi", "10.1/x"]
    assert main(words(kaggle, "table", "labels.csv", *told)) == 0
    cache = open_cache(kaggle / "cache")
    assert (cache.dataset.name, cache.dataset.license, cache.dataset.doi) == ("Our head CT", "ours alone", "10.1/x")
    assert cache.manifest["epidural"].isna().all()
    assert all(patient.startswith("patient-") for patient in cache.manifest["patient_id"])
    assert main(["data", "stats", str(kaggle / "cache")]) == 0
    assert "written to" not in capsys.readouterr().out


def test_what_is_excluded_is_reported_and_a_long_list_is_cut(kaggle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in range(30):
        (kaggle / "images" / f"note-{place:02d}.txt").write_text("no image")
    assert main(words(kaggle, "rsna", "train.csv")) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[1] == "left out note-00.txt: note-00.txt: no row in the labels"
    assert len(told) == 22
    assert told[-1] == f"and 10 more, all in {kaggle / 'cache' / 'left_out.csv'}"


def test_labels_that_contradict_each_other_end_the_command(kaggle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (kaggle / "train.csv").open("a") as stream:
        stream.write("ID_10_any,1\n")
    assert main(words(kaggle, "rsna", "train.csv")) == 1
    assert "ID_10_any is 0 in line 20 and 1 in line 44" in capsys.readouterr().err
    assert not (kaggle / "cache").exists()


def test_workers_and_a_cluster_together_are_wrong_usage(kaggle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(kaggle, "rsna", "train.csv", "--dask", "tcp://here:8786")) != 0
    assert "at least one worker, or the address of a cluster" in capsys.readouterr().err


def test_a_dry_run_shows_columns_matches_and_positives_and_opens_no_image(
    kaggle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kaggle / "labels.csv").write_text("Name\tbleed\tepidural\tintraparenchymal\tintraventricular\tsubarachnoid\t"
        "subdural\nid_00\t1\t0\t0\t0\t0\t1\nid_01\t\t0\t0\t0\t0\t0\nother\t0\t0\t0\t0\t0\t0\n")  # fmt: skip
    (kaggle / "images" / "ID_00.dcm").write_bytes(b"not read")
    options = ["--images", str(kaggle / "images"), "--labels", str(kaggle / "labels.csv"), "--dry-run"]
    assert main(["prepare", "table", *options, "--map", "image_id=Name", "--map", "any=bleed"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "labels.csv: labels in the form one row an image, columns separated by tab",
        "any computed from the types: 1 images",
        "any: 1 positive, 2 negative, 0 unknown",
        "matched: 2 images of labels.csv and the files of images",
        "only in labels.csv: 1: other",
        "only in the files of images: 4: ID_02.dcm, ID_10.dcm",
    ):
        assert part in shown
    assert not (kaggle / "cache").exists()


def test_a_preparation_needs_its_output_and_its_terms(kaggle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(kaggle, "table", "train.csv")) == 2
    assert "--name is needed" in capsys.readouterr().err
