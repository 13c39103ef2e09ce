"""No bit of stored pixels changes without being noticed."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemoscope.errors import StoreError
from hemoscope.store.store import Store
from hemoscope.store.stored_slices import _warn_once, open_slices, write_slices
from hemoscope.store.values import StudySummary

Submit = Callable[..., StudySummary]
Work = Callable[..., int]


@pytest.fixture(params=[np.dtype("<i2"), np.dtype("<f2")], ids=str)
def array(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(1).integers(-1024, 3000, size=(3, 2, 3, 5)).astype(request.param)


def written(array: np.ndarray, path: Path) -> Path:
    with path.open("wb") as file:
        write_slices(file, array)
    return path


def test_what_was_written_is_read_without_loading_the_other_slices(array: np.ndarray, tmp_path: Path) -> None:
    found = open_slices(written(array, tmp_path / "volume.npy"))
    assert len(found) == 3
    assert found[1].dtype == array.dtype
    assert np.array_equal(np.stack(list(found)), array)
    assert np.load(tmp_path / "volume.npy")["values"].tolist() == array.tolist(), "NumPy reads it without Hemoscope"


@pytest.mark.filterwarnings("ignore:Data type alias:DeprecationWarning")  # of a damaged header
def test_every_single_bit_that_flips_is_noticed_or_changes_nothing(array: np.ndarray, tmp_path: Path) -> None:
    path = written(array, tmp_path / "volume.npy")
    content, silent = path.read_bytes(), 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = np.stack(list(open_slices(path)))
        except StoreError:
            continue
        silent += 1
        assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes()), bit
    assert silent < 20, "bits of the blanks in the header"


def test_slices_in_each_others_place_and_a_file_cut_short_are_noticed(array: np.ndarray, tmp_path: Path) -> None:
    path = written(array, tmp_path / "volume.npy")
    content = path.read_bytes()
    size = 4 + array[0].nbytes
    path.write_bytes(content[: -2 * size] + content[-size:] + content[-2 * size : -size])
    with pytest.raises(StoreError, match=r"not those that were written\. Upload the study again"):
        open_slices(path)[1]
    path.write_bytes(content[:-1])
    with pytest.raises(StoreError, match="not those that were written"):
        open_slices(path)


def test_pixels_of_an_earlier_version_are_shown_with_a_warning(
    array: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_once.cache_clear()
    np.save(tmp_path / "volume.npy", array)
    with caplog.at_level(logging.WARNING):
        found = [np.stack(list(open_slices(tmp_path / "volume.npy"))) for _ in range(2)]
    assert np.array_equal(found[0], array)
    assert caplog.text.count("A stored study has no checksums") == 1


@pytest.mark.parametrize(("name", "view"), [("volume.npy", "pixels"), ("maps.npy", "heatmap")])
def test_the_page_gets_a_named_refusal_instead_of_damaged_pixels(
    store: Store, submit: Submit, work: Work, series: list[bytes], name: str, view: str
) -> None:
    entry = submit(store, series)
    work(store)
    path = store.folder.study(entry.upload_id, entry.study_id) / name
    content = bytearray(path.read_bytes())
    content[-9] ^= 16  # in the last slice
    path.write_bytes(content)

    def show(index: int) -> bytes:
        return store.pixels(entry.study_id, index) if view == "pixels" else store.heatmap(entry.study_id, index, "any")

    assert show(0)
    with pytest.raises(StoreError, match="pixels in the storage folder are not those that were written") as refused:
        [show(index) for index in range(len(series))]
    assert refused.value.code == "damaged_pixels"
