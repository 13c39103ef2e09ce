"""The cache of prepared series: written atomically, restored bit for bit, and refused if damaged."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemoscope.checksums import write_sums
from hemoscope.data import cache as cache_module
from hemoscope.data.cache import COLUMNS, open_cache, series_path, stored_images, write_manifest, write_series
from hemoscope.errors import DataError, MissingExtraError
from hemoscope.inference.card import TrainingData

DATASET = TrainingData(
    name="phantoms", version="1", doi="10.0/none", license="CC0", attribution="nobody", changes="made"
)


def row(image_id: str, *, labels: tuple[int | None, ...] = (1, 0, 0, 0, 0, 1)) -> dict[str, object]:
    values = (image_id, "p1", "p1", "p1", 0, True, *labels)
    return dict(zip(COLUMNS, values, strict=True))


def write_small(folder: Path) -> NDArray[np.int16]:
    hounsfield = np.random.default_rng(5).integers(-1024, 3071, (3, 5, 7), dtype=np.int16)
    write_series(folder, "p1", hounsfield=hounsfield)
    write_manifest(folder, [row("a")], DATASET)
    return hounsfield


def test_a_series_file_is_what_numpy_writes(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    hounsfield = random.integers(-1024, 3071, (3, 300, 301), dtype=np.int16)  # more than one step of writing
    write_series(tmp_path, "p1", hounsfield=hounsfield, mask=hounsfield > 0, images=["a", "b", "\u00e7"])
    path = series_path(tmp_path, "p1")
    with np.load(path) as stored:
        np.savez(tmp_path / "again.npz", **{name: stored[name] for name in stored.files})
    assert path.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_a_slice_with_exchanged_axes_comes_back_as_it_was(tmp_path: Path) -> None:
    hounsfield = np.arange(35, dtype=np.int16).reshape(1, 5, 7).transpose(0, 2, 1)
    assert hounsfield.flags.f_contiguous
    assert not hounsfield.flags.c_contiguous
    write_series(tmp_path, "p1", hounsfield=hounsfield)
    write_manifest(tmp_path, [row("a")], DATASET)
    assert np.array_equal(open_cache(tmp_path).read_series("p1").volume.hounsfield, hounsfield)


@pytest.mark.parametrize("spacing_mm", [(None, None, None), (5.0, 0.45, 0.45), (None, 0.5, 0.5)])
def test_a_series_comes_back_as_it_was(tmp_path: Path, spacing_mm: tuple[float | None, ...]) -> None:
    random = np.random.default_rng(1)
    hounsfield = random.integers(-32768, 32767, (3, 5, 7), dtype=np.int16)
    mask = random.random((3, 5, 7)) < 0.3  # 105 voxels: not a whole number of bytes
    write_series(tmp_path, "p1", hounsfield=hounsfield, spacing_mm=spacing_mm, mask=mask)  # type: ignore[arg-type]
    write_manifest(tmp_path, [row("a")], DATASET)
    found = open_cache(tmp_path).read_series("p1")
    assert np.array_equal(found.volume.hounsfield, hounsfield)
    assert found.mask is not None
    assert found.mask.dtype == bool
    assert np.array_equal(found.mask, mask)
    assert found.volume.spacing_mm == spacing_mm
    first = spacing_mm[0]
    assert found.volume.positions_mm == tuple(None if first is None else i * first for i in range(3))
    assert open_cache(tmp_path).read_positions("p1", [2, 0]) == found.volume.positions_mm[2::-2]


def test_positions_of_a_series_that_the_cache_lacks_are_an_error(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(DataError, match=r"series/p9\.npz: not a readable series"):
        open_cache(tmp_path).read_positions("p9", [0])


def test_a_mask_takes_one_bit_a_voxel(tmp_path: Path) -> None:
    mask = np.ones((4, 64, 64), dtype=bool)
    write_series(tmp_path, "p1", hounsfield=np.zeros(mask.shape, dtype=np.int16), mask=mask)
    with np.load(series_path(tmp_path, "p1")) as stored:
        assert stored["mask"].nbytes == mask.size // 8


def test_a_series_without_outlines_has_no_mask(tmp_path: Path) -> None:
    write_small(tmp_path)
    assert open_cache(tmp_path).read_series("p1").mask is None


def test_the_series_knows_which_images_it_holds(tmp_path: Path) -> None:
    hounsfield = np.zeros((2, 4, 4), dtype=np.int16)
    write_series(tmp_path, "p1", hounsfield=hounsfield, images=("p1_1", "p1_2"))
    assert stored_images(tmp_path, "p1") == ("p1_1", "p1_2")
    assert stored_images(tmp_path, "p2") == ()


def test_a_damaged_series_holds_no_images(tmp_path: Path) -> None:
    write_series(tmp_path, "p1", hounsfield=np.zeros((2, 4, 4), dtype=np.int16), images=("a", "b"))
    path = series_path(tmp_path, "p1")
    path.write_bytes(path.read_bytes()[:-30])
    assert stored_images(tmp_path, "p1") == ()


def test_another_number_of_images_than_slices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 images for 2 slices"):
        write_series(tmp_path, "p1", hounsfield=np.zeros((2, 4, 4), dtype=np.int16), images=("a",))


def test_what_the_dataset_is_travels_with_it(tmp_path: Path) -> None:
    write_small(tmp_path)
    assert open_cache(tmp_path).dataset == DATASET
    assert json.loads((tmp_path / "dataset.json").read_text())["license"] == "CC0"


def test_labels_may_be_unknown(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_manifest(tmp_path, [row("a", labels=(None,) * 6), row("b")], DATASET)
    manifest = open_cache(tmp_path).manifest
    assert manifest["any"].isna().tolist() == [True, False]
    assert manifest["subdural"].tolist()[1] == 1


def test_a_series_that_fails_half_way_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hounsfield = write_small(tmp_path)

    def full_disk(archive: zipfile.ZipFile, _name: str, _array: object) -> None:
        archive.writestr("hounsfield.npy", b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_array", full_disk)
    for series_id in ("p1", "p2"):
        with pytest.raises(OSError, match="No space left"):
            write_series(tmp_path, series_id, hounsfield=hounsfield)
    monkeypatch.undo()
    assert np.array_equal(open_cache(tmp_path).read_series("p1").volume.hounsfield, hounsfield)
    assert [path.name for path in (tmp_path / "series").iterdir()] == ["p1.npz"]


@pytest.mark.parametrize("series_id", ["", "../p1", "/etc/passwd", ".hidden", "a/b", "a b", "x" * 129, "p1\n", "p\0"])
def test_an_id_that_could_name_another_place_is_refused(tmp_path: Path, series_id: str) -> None:
    with pytest.raises(DataError, match="not safe as a file name"):
        write_series(tmp_path, series_id, hounsfield=np.zeros((1, 2, 2), dtype=np.int16))
    write_small(tmp_path)
    with pytest.raises(DataError, match="not safe as a file name"):
        open_cache(tmp_path).read_series(series_id)


def test_an_absent_series_is_refused_and_named_without_its_folder(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(DataError, match=r"^series/p2\.npz: not a readable series.*prepare again") as caught:
        open_cache(tmp_path).read_series("p2")
    assert str(tmp_path) not in str(caught.value)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_series_is_refused_or_restored_but_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    hounsfield = write_small(folder)
    path = series_path(folder, "p1")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = open_cache(folder).read_series("p1")
    except DataError as error:
        assert "not a readable series" in str(error)  # noqa: PT017 - either end is right
    else:
        assert np.array_equal(found.volume.hounsfield, hounsfield)


def test_a_pickle_in_place_of_a_series_is_refused_and_never_run(tmp_path: Path) -> None:
    write_small(tmp_path)
    np.savez(series_path(tmp_path, "p1"), hounsfield=np.array([print], dtype=object), spacing_mm=np.zeros(3))
    with pytest.raises(DataError, match="not a readable series"):
        open_cache(tmp_path).read_series("p1")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no manifest\.parquet\. Create it with: hemoscope prepare"):
        open_cache(tmp_path)


def test_a_manifest_that_is_damaged_is_refused(tmp_path: Path) -> None:
    write_small(tmp_path)
    path = tmp_path / "manifest.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"manifest\.parquet: its SHA-256 is not that in SHA256SUMS.*Prepare the data"):
        open_cache(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()  # as an earlier version leaves it
    with pytest.raises(DataError, match=r"manifest\.parquet: not a readable table .*Prepare the data again"):
        open_cache(tmp_path)


def test_a_manifest_with_other_columns_is_refused(tmp_path: Path) -> None:
    write_small(tmp_path)
    table = open_cache(tmp_path).manifest.drop(columns="masked")
    table.to_parquet(tmp_path / "manifest.parquet")
    write_sums(tmp_path, ("manifest.parquet", "dataset.json"))
    with pytest.raises(DataError, match=r"manifest\.parquet has columns .*Prepare the data again"):
        open_cache(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{}", '{"name": 3}'])
def test_a_cache_without_a_description_is_refused(tmp_path: Path, content: str | None) -> None:
    write_small(tmp_path)
    path = tmp_path / "dataset.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json does not describe the dataset"):
        open_cache(tmp_path)


def test_an_image_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(DataError, match="1 image ids occur twice, first b"):
        write_manifest(tmp_path, [row("a"), row("b"), row("b")], DATASET)


def test_without_pandas_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[study\]'"):
        open_cache(tmp_path)


def write_whole(folder: Path) -> None:
    hounsfield = np.random.default_rng(5).integers(-1024, 3071, (3, 5, 7), dtype=np.int16)
    images, places = ("a", "b", "c"), (0.0, 5.0, 11.0)
    write_series(
        folder,
        "p1",
        hounsfield=hounsfield,
        mask=hounsfield > 0,
        images=images,
        positions_mm=places,
        thickness_mm=places,
    )
    write_manifest(folder, [row(image) for image in images], DATASET)


def everything(folder: Path) -> str:
    """All that a cache says."""
    cache = open_cache(folder)
    found = cache.read_series("p1")
    assert found.mask is not None
    pixels = found.volume.hounsfield.tolist(), found.mask.tolist()
    places = found.volume.positions_mm, found.volume.thickness_mm, cache.read_positions("p1", [0, 2])
    return repr((cache.manifest.to_csv(), cache.dataset, pixels, places))


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("name", ["manifest.parquet", "dataset.json", "SHA256SUMS", "series/p1.npz"])
def test_any_bit_that_flips_is_named_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    write_whole(folder)
    before = everything(folder)
    path = folder / name
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1), label="bit")
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        found = everything(folder)
    except DataError as error:
        assert any(one in str(error) for one in (path.name, "SHA256SUMS"))  # noqa: PT017 - either end is right
        assert "repare" in str(error)  # noqa: PT017
    else:
        assert found == before
        assert name == "series/p1.npz", "a time or an attribute of an archive's member, which nothing reads"


@pytest.mark.parametrize("lost", ["mask", "positions_mm", "version", "sha256"])
def test_an_array_whose_name_is_damaged_does_not_count_as_missing(tmp_path: Path, lost: str) -> None:
    write_whole(tmp_path)
    path = series_path(tmp_path, "p1")
    path.write_bytes(path.read_bytes().replace(f"{lost}.npy".encode(), f"{lost[:-1]}_.npy".encode()))
    with pytest.raises(DataError, match="1 arrays have unknown names"):
        open_cache(tmp_path).read_series("p1")
    with pytest.raises(DataError, match="1 arrays have unknown names"):
        open_cache(tmp_path).read_positions("p1", [0])


def _of_version_1(path: Path) -> dict[str, NDArray[Any]]:
    """Rewrite a series file as version 1 wrote it: SHA-256 over the content of all arrays."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name not in ("version", "sha256")}
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode() + arrays[name].tobytes())
    np.savez(path, **arrays, sha256=np.frombuffer(digest.digest(), dtype=np.uint8))
    return arrays


def test_a_series_of_version_1_is_read_and_kept_by_a_later_preparation(tmp_path: Path) -> None:
    write_whole(tmp_path)
    before, path = everything(tmp_path), series_path(tmp_path, "p1")
    _of_version_1(path)
    assert everything(tmp_path) == before
    assert stored_images(tmp_path, "p1") == ("a", "b", "c")


def test_a_series_of_version_1_whose_content_is_not_its_checksums_is_refused(tmp_path: Path) -> None:
    write_whole(tmp_path)
    path = series_path(tmp_path, "p1")
    arrays = _of_version_1(path)
    with np.load(path) as stored:
        digest = stored["sha256"]
    np.savez(path, **{**arrays, "hounsfield": arrays["hounsfield"] + 1, "sha256": digest})
    assert stored_images(tmp_path, "p1") == ()
    with pytest.raises(DataError, match=r"series/p1\.npz: .*its checksum is wrong"):
        open_cache(tmp_path).read_series("p1")


def test_an_array_that_another_one_took_the_place_of_is_refused(tmp_path: Path) -> None:
    write_whole(tmp_path)
    path = series_path(tmp_path, "p1")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "hounsfield": arrays["hounsfield"] + 1})  # whole for the archive, with its own CRC-32
    assert stored_images(tmp_path, "p1") == ()
    for read in (
        lambda: open_cache(tmp_path).read_series("p1"),
        lambda: open_cache(tmp_path).read_positions("p1", [0]),
    ):
        with pytest.raises(DataError, match=r"series/p1\.npz: .*its checksum is wrong"):
            read()


def test_a_pixel_that_is_damaged_is_found_when_the_series_is_read_and_when_it_is_prepared_again(tmp_path: Path) -> None:
    hounsfield = write_small(tmp_path)
    path = series_path(tmp_path, "p1")
    content, pixels = path.read_bytes(), hounsfield.tobytes()
    path.write_bytes(content.replace(pixels, pixels[:100] + bytes([pixels[100] ^ 1]) + pixels[101:]))
    assert path.read_bytes() != content
    assert stored_images(tmp_path, "p1") == ()
    with pytest.raises(DataError, match=r"series/p1\.npz: not a readable series of this cache \(BadZipFile\)"):
        open_cache(tmp_path).read_series("p1")


def test_a_series_of_a_later_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_FORMAT", 3)
    write_small(tmp_path)
    monkeypatch.undo()
    with pytest.raises(DataError, match="it is of format 3, of a later version of Hemoscope than this one"):
        open_cache(tmp_path).read_series("p1")


def test_data_of_an_earlier_version_are_read_with_a_warning_and_prepared_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_whole(tmp_path)
    before = everything(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    path = series_path(tmp_path, "p1")
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files if name not in ("version", "sha256")}
    np.savez(path, **arrays)
    assert everything(tmp_path) == before
    assert "has no checksums, as an earlier version wrote it: damage goes unnoticed. Prepare it again" in caplog.text
    assert stored_images(tmp_path, "p1") == (), "so that preparing again writes a checksum"
    write_manifest(tmp_path, [row("a")], DATASET)
    with pytest.raises(DataError, match=r"series/p1\.npz: .*it has no checksum"):
        open_cache(tmp_path).read_series("p1")
