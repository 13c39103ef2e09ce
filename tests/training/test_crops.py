"""Crops: the array used in serving, with masks and labels, in memory and in files that survive interruption."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemoscope.data.cache import Cache
from hemoscope.dicom.read import read_slice
from hemoscope.errors import DataError
from hemoscope.inference.preprocess import AIR, Preprocessing, channels, model_input
from hemoscope.inference.windows import BRAIN
from hemoscope.labels import LABELS, SUBTYPES, Hemorrhage
from hemoscope.testing.dicom_writer import write_series as write_dicom
from hemoscope.testing.phantom import make_phantom
from hemoscope.training import crops as crops_module
from hemoscope.training.augment import AugmentConfig
from hemoscope.training.crops import Crops, load_crops
from hemoscope.training.dataset import PlainSlices, SampleIndex, SamplingConfig, SliceDataset
from hemoscope.volume import HounsfieldVolume

NO_CHANGE = AugmentConfig(flip=0, rotation=0, scale=0, shift=0, gain=0, offset=0, noise=0, blur=0)
NO_LESIONS = SamplingConfig(kind="all", pasted=0, made=0)
SMALL = Preprocessing(size=64)
MakeCache = Callable[..., Cache]


def images_of(cache: Cache) -> list[str]:
    return list(cache.manifest["image_id"])


def learned(crops: Crops, row: int, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The image of a training sample that nothing changed."""
    return SliceDataset(crops, preprocessing, NO_CHANGE, NO_LESIONS, seed=1)[SampleIndex(row, 0, 0)].image.numpy()


@pytest.mark.parametrize("neighbours", [0, 1, 2])
@pytest.mark.parametrize("crop", ["head", "none"])
@pytest.mark.parametrize("size", [32, 256])
def test_training_and_serving_see_the_identical_array(
    tmp_path: Path, make_cache: MakeCache, size: int, crop: str, neighbours: int
) -> None:
    """The rule of one preprocessing: files read by serving, and the same slices through every road of training."""
    preprocessing = Preprocessing(size=size, crop=crop, neighbours=neighbours)  # type: ignore[arg-type]
    phantom = make_phantom(seed=8, shape=(4, 160, 160), bleeds=frozenset(SUBTYPES), table=True)
    files = write_dicom(phantom, tmp_path / "dicom")
    served = HounsfieldVolume(
        hounsfield=np.stack([np.rint(read_slice(path).hounsfield).astype(np.int16) for path in files]),
        spacing_mm=phantom.spacing_mm,
        positions_mm=(None,) * 4,
        orientation=None,
    )
    cache = make_cache(tmp_path / "cache", np.array(phantom.hounsfield), spacing_mm=phantom.spacing_mm)
    scored = PlainSlices(cache, images_of(cache), preprocessing)
    in_memory = load_crops(cache, images_of(cache), preprocessing)
    in_files = load_crops(cache, images_of(cache), preprocessing, folder=tmp_path / "crops")
    for index in range(4):
        expected = model_input(served, index, preprocessing)
        assert expected.shape == (3 * (2 * neighbours + 1), size, size)
        assert 0.05 < expected.mean() < 0.95
        assert np.array_equal(scored[index].numpy(), expected)
        assert np.array_equal(learned(in_memory, index, preprocessing), expected)
        assert np.array_equal(learned(in_files, index, preprocessing), expected)


@pytest.mark.parametrize("spacing_mm", [1.0, 2.5, 5.0, None])
def test_cropped_slices_are_the_model_input_before_the_windows(
    tmp_path: Path, make_cache: MakeCache, spacing_mm: float | None
) -> None:
    """Thin slices too, which are averaged into slabs."""
    hounsfield = np.array(make_phantom(seed=4, shape=(9, 96, 96), spacing_mm=(1.0, 2.4, 2.4)).hounsfield)
    cache = make_cache(tmp_path, hounsfield, spacing_mm=(spacing_mm, None, None))
    crops = load_crops(cache, images_of(cache), SMALL)
    volume = cache.read_series("p").volume
    for index in range(9):
        assert np.array_equal(channels(crops.hounsfield[index], SMALL), model_input(volume, index, SMALL))


@pytest.mark.parametrize("in_files", [False, True])
def test_crops_bring_masks_and_labels_of_the_right_slices(phantom_cache: Cache, tmp_path: Path, in_files: bool) -> None:
    shown: list[tuple[int, int]] = []
    crops = load_crops(
        phantom_cache,
        [f"{patient}_{i}" for patient in ("p4", "p1") for i in (2, 0, 1)],
        SMALL,
        folder=tmp_path if in_files else None,
        progress=lambda done, total: shown.append((done, total)),
    )
    assert shown == [(3, 6), (6, 6)]
    assert crops.table["image_id"].tolist() == [f"p{p}_{i}" for p in (1, 4) for i in range(3)]
    for place, row in crops.table.iterrows():
        assert crops.labels[place].tolist() == [row[label.value] for label in LABELS]
        mask, bleeds = crops.mask(place), bool(row["any"])
        assert mask.any() == (crops.mask_of[place] >= 0) == bleeds
        if bleeds:
            assert 40 < np.median(crops.hounsfield[place, 0][mask > 0]) < 90


def test_a_mask_lies_on_the_same_pixels_as_its_lesion_after_the_crop(tmp_path: Path, make_cache: MakeCache) -> None:
    """A square lesion in a square head: mask and pixels through the same box."""
    hounsfield = np.full((1, 96, 96), AIR, dtype=np.int16)
    hounsfield[0, 20:80, 10:70] = 30
    mask = np.zeros(hounsfield.shape, dtype=bool)
    mask[0, 40:56, 24:44] = True
    hounsfield[mask] = 130
    crops = load_crops(make_cache(tmp_path, hounsfield, mask=mask), ["i0"], SMALL)
    assert ((crops.hounsfield[0, 0] > 80) == (crops.mask(0) > 0)).mean() > 0.99


@pytest.mark.parametrize("label", SUBTYPES)
def test_labels_of_the_crops_are_in_label_order_and_unknown_ones_are_nan(
    tmp_path: Path, label: Hemorrhage, make_cache: MakeCache
) -> None:
    known = [None if name is Hemorrhage.EPIDURAL else int(name in (Hemorrhage.ANY, label)) for name in LABELS]
    cache = make_cache(tmp_path, np.zeros((1, 32, 32), dtype=np.int16), labels=[known])
    row = load_crops(cache, ["i0"], SMALL).labels[0]
    assert np.isnan(row[LABELS.index(Hemorrhage.EPIDURAL)])
    assert [LABELS[k] for k in np.flatnonzero(row == 1)] == [
        name for name in (Hemorrhage.ANY, label) if name is not Hemorrhage.EPIDURAL
    ]


def test_an_image_that_the_data_lacks_is_refused(phantom_cache: Cache) -> None:
    with pytest.raises(DataError, match="2 images are not in the prepared data, first p0_7"):
        load_crops(phantom_cache, ["p0_0", "p0_8", "p0_7"], SMALL)


def test_a_mask_that_the_manifest_promises_must_be_there(tmp_path: Path, make_cache: MakeCache) -> None:
    cache = make_cache(tmp_path, np.zeros((1, 32, 32), dtype=np.int16))
    cache.manifest["masked"] = True
    with pytest.raises(DataError, match="i0: no mask in its series, but the manifest lists one"):
        load_crops(cache, ["i0"], SMALL)


def test_crops_in_files_are_written_once_and_mapped(
    phantom_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_crops(phantom_cache, images_of(phantom_cache), SMALL)
    first = load_crops(phantom_cache, images_of(phantom_cache), SMALL, folder=tmp_path / "crops")
    monkeypatch.setattr(Cache, "read_series", lambda *_: pytest.fail("read a series again"))
    again = load_crops(phantom_cache, images_of(phantom_cache)[::-1], SMALL, folder=tmp_path / "crops")
    for found in (first, again):
        assert isinstance(found.hounsfield, np.memmap)
        assert not found.hounsfield.flags.writeable
        assert np.array_equal(found.hounsfield, plain.hounsfield)
        assert np.array_equal(found.masks, plain.masks)
        assert np.array_equal(found.mask_of, plain.mask_of)
    assert not list((tmp_path / "crops").glob("*.part"))


def test_mapped_crops_go_to_another_process_as_the_names_of_their_files(phantom_cache: Cache, tmp_path: Path) -> None:
    """A worker that is spawned gets what is pickled: never a hundred gigabytes of pixels."""
    crops = load_crops(phantom_cache, images_of(phantom_cache), SMALL, folder=tmp_path)
    sent = pickle.dumps(crops)
    assert len(sent) < crops.hounsfield.nbytes / 10
    plain = load_crops(phantom_cache, images_of(phantom_cache), SMALL)
    for found in (pickle.loads(sent), pickle.loads(pickle.dumps(plain))):
        assert np.array_equal(found.hounsfield, crops.hounsfield)
        assert np.array_equal(found.masks, crops.masks)
        assert np.array_equal(found.mask_of, crops.mask_of)
        assert np.array_equal(found.labels, crops.labels)
        assert found.table.equals(crops.table)
    assert isinstance(pickle.loads(sent).hounsfield, np.memmap)


def test_other_windows_share_the_files_and_other_sizes_do_not(phantom_cache: Cache, tmp_path: Path) -> None:
    """Crops are Hounsfield units: windows come later."""

    def folders() -> int:
        return sum(path.is_dir() for path in tmp_path.iterdir())

    images = images_of(phantom_cache)
    for preprocessing, expected in (
        (SMALL, 1),
        (Preprocessing(size=64, windows=(BRAIN,)), 1),
        (Preprocessing(size=32), 2),
        (Preprocessing(size=64, neighbours=1), 3),
    ):
        load_crops(phantom_cache, images, preprocessing, folder=tmp_path)
        assert folders() == expected
    load_crops(phantom_cache, images[:-1], SMALL, folder=tmp_path)
    assert folders() == 4


def _killed_while_writing(cache: Cache, folder: Path) -> None:
    """Crop, and die by kill -9 in the middle of the third series: its crops are half written and not logged."""
    seen: list[int] = []
    original = crops_module.stacked

    def stacked(*args: object) -> NDArray[np.float32]:
        seen.append(1)
        if len(seen) == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)  # type: ignore[arg-type]

    crops_module.stacked = stacked  # type: ignore[assignment]
    load_crops(cache, images_of(cache), SMALL, folder=folder)


@pytest.mark.parametrize("torn_line", ["", "p2"])
def test_writing_resumes_after_a_kill(
    phantom_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn_line: str
) -> None:
    child = multiprocessing.get_context("fork").Process(target=_killed_while_writing, args=(phantom_cache, tmp_path))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    (part,) = tmp_path.glob("*.part")
    assert (part / "written.txt").read_text() == "p0\np1\n"
    with (part / "written.txt").open("a") as log:
        log.write(torn_line)

    read: list[str] = []
    shown: list[int] = []
    original = Cache.read_series
    monkeypatch.setattr(Cache, "read_series", lambda self, series: read.append(series) or original(self, series))
    crops = load_crops(
        phantom_cache, images_of(phantom_cache), SMALL, folder=tmp_path, progress=lambda done, _: shown.append(done)
    )
    assert read == ["p2", "p3", "p4", "p5"]
    assert shown == [9, 12, 15, 18]
    plain = load_crops(phantom_cache, images_of(phantom_cache), SMALL)
    assert np.array_equal(crops.hounsfield, plain.hounsfield)
    assert np.array_equal(crops.masks, plain.masks)


def test_a_kill_before_the_files_had_their_size_starts_over(phantom_cache: Cache, tmp_path: Path) -> None:
    load_crops(phantom_cache, images_of(phantom_cache), SMALL, folder=tmp_path)
    (whole,) = (path for path in tmp_path.iterdir() if path.is_dir())
    part = whole.rename(tmp_path / f"{whole.name}.part")
    (part / "written.txt").unlink()
    (part / "hounsfield.npy").write_bytes(b"half")
    crops = load_crops(phantom_cache, images_of(phantom_cache), SMALL, folder=tmp_path)
    assert np.array_equal(crops.hounsfield, load_crops(phantom_cache, images_of(phantom_cache), SMALL).hounsfield)


def _load(cache: Cache, folder: Path, results: "multiprocessing.SimpleQueue[float]") -> None:
    results.put(float(load_crops(cache, images_of(cache), SMALL, folder=folder).hounsfield.sum()))


def test_processes_that_start_at_once_share_one_writing(phantom_cache: Cache, tmp_path: Path) -> None:
    """As the processes of a training on several devices do."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_load, args=(phantom_cache, tmp_path, results)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert results.get() == results.get()
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 1


def all_of(crops: Crops) -> list[bytes]:
    rows = range(len(crops.table))
    return [crops.stack(row).tobytes() for row in rows] + [crops.mask(row).tobytes() for row in rows]


@pytest.mark.filterwarnings("ignore:Data type alias:DeprecationWarning")  # of a damaged header
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("name", ["hounsfield.npy", "outlines.npy", "checksums.npy"])
def test_any_bit_of_stored_crops_that_flips_is_named_when_it_is_read(
    phantom_cache: Cache, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    images, preprocessing = images_of(phantom_cache)[:6], Preprocessing(size=32)
    before = all_of(load_crops(phantom_cache, images, preprocessing, folder=tmp_path))
    (path,) = tmp_path.glob(f"*/{name}")
    whole = path.read_bytes()
    # A header as often as the values, which are many more.
    bit = data.draw(st.integers(0, 8 * 128 - 1) | st.integers(0, 8 * len(whole) - 1), label="bit")
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    try:
        found = all_of(load_crops(phantom_cache, images, preprocessing, folder=tmp_path))
    except DataError as error:
        assert "Delete the folder of crops: they are written again" in str(error)  # noqa: PT017 - either end is right
    else:
        assert found == before  # a blank of the header, or a checksum of a mask that a slice has not
        assert name == "checksums.npy" or bit < 8 * 128
    finally:
        path.write_bytes(whole)


def test_crops_in_another_process_are_checked_too(phantom_cache: Cache, tmp_path: Path) -> None:
    crops = load_crops(phantom_cache, images_of(phantom_cache), SMALL, folder=tmp_path)
    there = pickle.loads(pickle.dumps(crops))
    (path,) = tmp_path.glob("*/hounsfield.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    last = len(crops.table) - 1
    there.stack(0)
    with pytest.raises(DataError, match=rf"hounsfield.npy: the crop of {crops.table['image_id'][last]} is damaged"):
        there.stack(last)
