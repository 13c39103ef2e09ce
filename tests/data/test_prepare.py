"""Preparing CT-ICH: the cache's content, excluded slices, and resuming."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemoscope.data import prepare as prepare_module
from hemoscope.data.cache import open_cache, series_path
from hemoscope.data.ct_ich import DATASET
from hemoscope.data.prepare import prepare_ct_ich
from hemoscope.errors import DataError
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.testing.phantom import make_phantom

BLEEDS = frozenset({Hemorrhage.SUBDURAL, Hemorrhage.INTRAVENTRICULAR})


@pytest.fixture
def release(tmp_path: Path, make_ct_ich: Callable[..., Path]) -> Path:
    """Two patients of three slices; p1 bleeds, p2 does not."""
    return make_ct_ich(tmp_path / "release", {"p1": BLEEDS, "p2": frozenset()})


def test_the_cache_holds_each_patient_as_one_series_in_hounsfield_units(release: Path, tmp_path: Path) -> None:
    done = prepare_ct_ich(release, tmp_path / "cache")
    assert (done.slices, done.left_out) == (6, ())
    cache = open_cache(tmp_path / "cache")
    assert cache.dataset == DATASET
    phantom = make_phantom(seed=0, shape=(3, 64, 64), bleeds=BLEEDS)
    series = cache.read_series("p1")
    seen = np.clip(phantom.hounsfield, -900, 2300)
    assert abs(np.clip(series.volume.hounsfield, -900, None) - seen).max() <= 20
    assert series.mask is not None
    assert np.array_equal(series.mask, phantom.masks["any"])
    assert cache.read_series("p2").mask is None
    assert series.volume.spacing_mm == (None, None, None)


def test_the_manifest_has_patient_and_labels_of_each_slice(release: Path, tmp_path: Path) -> None:
    prepare_ct_ich(release, tmp_path / "cache")
    manifest = open_cache(tmp_path / "cache").manifest
    assert manifest["image_id"].tolist() == [f"p{p}_00{n}" for p in (1, 2) for n in (1, 2, 3)]
    for column in ("patient_id", "study_id", "series_id"):
        assert manifest[column].tolist() == ["p1"] * 3 + ["p2"] * 3
    assert manifest["index"].tolist() == [0, 1, 2, 0, 1, 2]
    shown = make_phantom(seed=0, shape=(3, 64, 64), bleeds=BLEEDS).slice_labels
    assert np.array_equal(manifest[list(LABELS)].to_numpy(dtype=bool), np.concatenate([shown, np.zeros((3, 6), bool)]))
    assert manifest["masked"].tolist() == [*shown[:, 0].tolist(), False, False, False]


def test_a_slice_that_cannot_be_read_is_excluded_and_listed(release: Path, tmp_path: Path) -> None:
    (release / "patients/p2/brain/2.png").write_bytes(b"no picture")
    done = prepare_ct_ich(release, tmp_path / "cache")
    assert done.slices == 5
    assert [image_id for image_id, _ in done.left_out] == ["p2_002"]
    assert done.left_out[0][1].startswith("2.png: not a readable image")
    cache = open_cache(tmp_path / "cache")
    p2 = cache.manifest[cache.manifest["patient_id"] == "p2"]
    assert p2["image_id"].tolist() == ["p2_001", "p2_003"]
    assert p2["index"].tolist() == [0, 1]
    third = make_phantom(seed=1, shape=(3, 64, 64)).hounsfield[2]
    assert (
        abs(np.clip(cache.read_series("p2").volume.hounsfield[1], -900, None) - np.clip(third, -900, None)).max() < 20
    )


def test_a_mask_that_does_not_fit_its_slice_leaves_the_slice_out(release: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (10, 10)).save(release / "patients/p1/brain/2_mask.png")
    done = prepare_ct_ich(release, tmp_path / "cache")
    assert done.left_out[0][0] == "p1_002"
    assert "a mask of (10, 10) for a slice of (64, 64)" in done.left_out[0][1]


def test_a_slice_that_was_restored_is_in_the_next_preparation(release: Path, tmp_path: Path) -> None:
    """Manifest and series must agree again: an index into a series of fewer slices would mean another slice."""
    path = release / "patients/p1/brain/1.png"
    whole = path.read_bytes()
    path.write_bytes(b"no picture")
    assert prepare_ct_ich(release, tmp_path / "cache").slices == 5
    path.write_bytes(whole)
    assert prepare_ct_ich(release, tmp_path / "cache").slices == 6
    cache = open_cache(tmp_path / "cache")
    assert len(cache.read_series("p1").volume) == 3
    assert cache.manifest["image_id"].tolist()[0] == "p1_001"


def test_an_interrupted_preparation_resumes_with_the_same_result(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read_hounsfield = prepare_module.read_hounsfield

    def interrupted(brain: Path, bone: Path | None, *, image_id: str) -> object:
        if image_id == "p2_002" and reads.count(image_id) == 0:
            reads.append(image_id)
            raise KeyboardInterrupt
        reads.append(image_id)
        return read_hounsfield(brain, bone, image_id=image_id)

    monkeypatch.setattr(prepare_module, "read_hounsfield", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_ct_ich(release, tmp_path / "cache")
    with pytest.raises(DataError, match=r"holds no manifest\.parquet"):
        open_cache(tmp_path / "cache")
    reads[:] = ["p2_002"]
    assert prepare_ct_ich(release, tmp_path / "cache").slices == 6
    assert not [image_id for image_id in reads if image_id.startswith("p1")]
    prepare_ct_ich(release, tmp_path / "at-once")
    names = ("manifest.parquet", "dataset.json", "series/p1.npz", "series/p2.npz")
    for name in names:
        assert (tmp_path / "cache" / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes(), name


def test_a_damaged_series_is_prepared_again(release: Path, tmp_path: Path) -> None:
    prepare_ct_ich(release, tmp_path / "cache")
    path = series_path(tmp_path / "cache", "p1")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    prepare_ct_ich(release, tmp_path / "cache")
    assert path.read_bytes() == whole


def test_progress_counts_slices_to_the_end(release: Path, tmp_path: Path) -> None:
    (release / "patients/p2/brain/2.png").unlink()
    shown: list[tuple[int, int]] = []
    prepare_ct_ich(release, tmp_path / "cache", progress=lambda done, total: shown.append((done, total)))
    assert shown == [(3, 6), (6, 6)]


def test_slices_of_one_patient_in_two_sizes_are_refused(release: Path, tmp_path: Path) -> None:
    from PIL import Image

    for folder in ("brain", "bone"):
        Image.new("L", (32, 32)).save(release / f"patients/p2/{folder}/1.png")
    with pytest.raises(DataError, match=r"patient p2: slices of different sizes \[\(32, 32\), \(64, 64\)\]"):
        prepare_ct_ich(release, tmp_path / "cache")


def test_a_release_of_which_nothing_can_be_read_is_refused(release: Path, tmp_path: Path) -> None:
    for path in release.glob("patients/*/brain/*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"none of the 6 slices could be read; the first reason: 1\.png"):
        prepare_ct_ich(release, tmp_path / "cache")
    assert not (tmp_path / "cache" / "manifest.parquet").exists()
