"""Archives in folders and in one another are read under the same limits as their files would be."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hemoscope.dicom.archive import Archive, open_archive, read_series
from hemoscope.dicom.containers import OpenArchives, kind_of
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import Phantom

Files = Mapping[str, bytes]


def zip_of(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tar_of(files: Files, mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar_gz_of(files: Files) -> bytes:
    return gzip.compress(tar_of(files))


def codes(archive: Archive) -> dict[str, str]:
    return {one.source: one.code for one in archive.rejected}


def slices(archive: Archive) -> int:
    return sum(len(series) for study in archive.studies for series in study.series)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Three small slices."""
    from hemoscope.testing.phantom import make_phantom

    paths = write_series(make_phantom(seed=3, shape=(9, 64, 64)).hounsfield[3:6], tmp_path_factory.mktemp("plain"))
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Files], Path]:
    """``written({"a/b.zip": ...})``: a folder with these files."""

    def write(files: Files) -> Path:
        for name, data in files.items():
            path = tmp_path / "given" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "given"

    return write


PACKERS = {"zip": zip_of, "tar": tar_of, "tar.gz": tar_gz_of, "tgz": tar_gz_of, "TAR.GZ": tar_gz_of}


class TestPlaces:
    @pytest.mark.parametrize("extension", PACKERS)
    def test_a_folder_of_archives_is_read(self, files: Files, head: Phantom, written, extension: str) -> None:
        (first, one), *others = files.items()
        packed = {
            f"a.{extension}": PACKERS[extension]({first: one}),
            f"b/c.{extension}": PACKERS[extension](dict(others)),
        }
        archive = open_archive([written(packed)])
        assert archive.rejected == ()
        assert f"a.{extension}/{first}" in archive.sources
        (series,) = archive.studies[0].series
        assert (read_series(archive, series).volume.hounsfield == head.hounsfield[3:6]).all()

    @pytest.mark.parametrize("inner", PACKERS)
    @pytest.mark.parametrize("outer", PACKERS)
    def test_an_archive_in_an_archive_is_read(self, files: Files, written, outer: str, inner: str) -> None:
        folder = written({"study": PACKERS[outer]({f"inner.{inner}": PACKERS[inner](files), "notes.txt": b"text"})})
        archive = open_archive([folder / "study"])
        assert codes(archive) == {"notes.txt": "not_dicom"}
        assert slices(archive) == 3
        assert f"inner.{inner}/IM0001.dcm" in archive.sources

    def test_files_compressed_with_gzip_are_read(self, files: Files, head: Phantom, written) -> None:
        folder = written({f"{name}.gz": gzip.compress(data) for name, data in files.items()})
        archive = open_archive([folder])
        assert set(archive.sources) == {f"{name}.gz" for name in files}
        (series,) = archive.studies[0].series
        assert (read_series(archive, series, threads=3).volume.hounsfield == head.hounsfield[3:6]).all()
        assert slices(open_archive([folder / "IM0001.dcm.gz"])) == 1

    def test_a_given_path_is_an_archive_by_its_content(self, files: Files, written) -> None:
        folder = written({"000001": zip_of(files), "000002": tar_gz_of(files), "000003": b"MZ program" + zip_of(files)})
        for path in sorted(folder.iterdir()):
            assert slices(open_archive([path])) == 3
        assert codes(open_archive([folder])) == dict.fromkeys(("000001", "000002", "000003"), "not_dicom")

    def test_an_image_whose_preamble_looks_like_an_archive_is_an_image(self, files: Files, written) -> None:
        data = b"PK\x03\x04" + files["IM0001.dcm"][4:]
        folder = written({"IM0001.zip": data, "IM0002.dcm": b"\x1f\x8b\x08" + files["IM0002.dcm"][3:]})
        assert slices(open_archive([folder])) == 2
        assert slices(open_archive([folder / "IM0001.zip"])) == 1

    def test_members_that_share_a_name_are_all_read(self, files: Files, head: Phantom, written) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        same = stream.getvalue().replace(b"IM0002.dcm", b"IM0001.dcm").replace(b"IM0003.dcm", b"IM0001.dcm")
        found = open_archive([written({"study.zip": same}) / "study.zip"])
        assert set(found.sources) == {"1/IM0001.dcm", "1/IM0001.dcm (2)", "1/IM0001.dcm (3)"}
        assert (read_series(found, found.studies[0].series[0]).volume.hounsfield == head.hounsfield[3:6]).all()

    def test_an_archive_without_files_is_refused_not_passed_over(self, files: Files, written) -> None:
        folder = written({"a.zip": zip_of({"b.zip": zip_of({}), **files}), "c.tar": tar_of({"__MACOSX/._x": b"x"})})
        archive = open_archive([folder])
        assert codes(archive) == {"a.zip/b.zip": "bad_archive", "c.tar": "bad_archive"}
        assert archive.rejected[0].message.startswith("there is no file in it. Make the archive again")
        assert slices(archive) == 3

    def test_links_and_devices_in_a_tar_are_no_files(self, files: Files, written) -> None:
        stream = io.BytesIO(tar_of(files))
        with tarfile.open(fileobj=stream, mode="a") as archive:
            for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("dev", tarfile.CHRTYPE)):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "/etc/passwd"
                archive.addfile(info)
        archive = open_archive([written({"a.tar": stream.getvalue()})])
        assert archive.rejected == ()
        assert len(archive.sources) == 3

    def test_names_that_lead_elsewhere_only_name_sources(self, files: Files, written) -> None:
        data = tar_of({"../../IM1.dcm": files["IM0001.dcm"], "/etc/IM2.dcm": files["IM0002.dcm"]})
        assert set(open_archive([written({"a.tar": data}) / "a.tar"]).sources) == {"IM1.dcm", "etc/IM2.dcm"}

    @pytest.mark.parametrize("pack", [zip_of, tar_of])
    def test_no_file_of_an_archive_is_passed_over(self, files: Files, written, pack: Callable[[Files], bytes]) -> None:
        image = files["IM0001.dcm"]
        hidden = {".c.dcm": image, ".h/c": image, "__MACOSX/c": image, "a/.b/c": image}
        litter = {"__MACOSX/._x": b"x", ".DS_Store": b"x", "a/Thumbs.db": b"x", "._x": b"x"}
        folder = written({"a.arc": pack({**files, **hidden, **litter, "..\\IM9": image})})
        archive = open_archive([folder / "a.arc"])
        assert codes(archive) == {**dict.fromkeys(hidden, "hidden_file"), "a.arc": "system_files"}
        assert "4 files that the archiving program added" in archive.rejected[0].message
        assert set(archive.sources) == {*files, "IM9"}, "a name of Windows is read"

    def test_a_file_name_that_is_no_text_is_shown_as_text(self, files: Files, tmp_path: Path) -> None:
        for number, name in enumerate((b"\xcd\xbc\xff", b"\xcd\xbc\xfe"), 1):
            (tmp_path / os.fsdecode(name)).write_bytes(files[f"IM000{number}.dcm"])
        archive = open_archive([tmp_path])
        assert slices(archive) == 2
        assert all(name.encode() for name in archive.sources)


class TestLimits:
    def test_archives_in_one_another_have_a_limit(self, files: Files, written) -> None:
        three = zip_of({"3.zip": zip_of({"2.zip": zip_of(files)}), "IM0009.dcm": files["IM0001.dcm"]})
        folder = written({"three.zip": three, "deep.zip": zip_of({"4.zip": three})})
        assert len(open_archive([folder / "three.zip"]).sources) == 4
        deep = folder / "deep.zip"
        archive = open_archive([deep])
        assert codes(archive) == {"4.zip/3.zip/2.zip": "too_large"}
        assert "the limit archive_depth = 3" in archive.rejected[0].message
        assert "raise that limit with the option --limit NAME=VALUE" in archive.rejected[0].message
        assert slices(archive) == 1
        assert len(open_archive([deep], limits=ReadLimits(archive_depth=4)).sources) == 4
        assert codes(open_archive([deep], limits=ReadLimits(archive_depth=1))) == {"4.zip": "too_large"}

    def test_an_archive_that_holds_itself_ends(self, written) -> None:
        """Each level inflates to the next: only the depth ends it."""
        data = zip_of({"x.dcm": b"x"})
        for _ in range(6):
            data = zip_of({"x.zip": data})
        archive = open_archive([written({"x.zip": data})])
        assert list(codes(archive).values()) == ["too_large"]

    def test_nested_archives_share_the_bytes_of_the_outer_one(self, written) -> None:
        inner = zip_of({"zeros.dcm": bytes(1_000_000)})
        folder = written({"bomb.zip": zip_of({f"{number}.zip": inner for number in range(10)})})
        archive = open_archive([folder / "bomb.zip"], limits=ReadLimits(archive_bytes=3_500_000))
        assert list(codes(archive).values()).count("too_large") == 7
        assert "the limit archive_bytes is 3500000" in archive.rejected[0].message

    def test_a_gzip_bomb_inflates_to_the_limit_and_no_further(self, written) -> None:
        data = gzip.compress(bytes(20_000_000))
        folder = written({"a.dcm.gz": data, "b.zip": zip_of({"c.gz": data})})
        archive = open_archive([folder], limits=ReadLimits(file_bytes=1_000_000))
        assert codes(archive) == {"a.dcm.gz": "too_large", "b.zip/c.gz": "too_large"}
        assert "file_bytes = 1000000" in archive.rejected[0].message

    @pytest.mark.parametrize("pack", [zip_of, tar_of, tar_gz_of])
    def test_members_count_in_archives_and_folders(self, files: Files, written, pack: Callable[[Files], bytes]) -> None:
        folder = written({"a": pack(files), "b.zip": zip_of({"a.zip": pack(files)})})
        assert codes(open_archive([folder / "a"], limits=ReadLimits(members=2))) == {"a": "too_large"}
        shutil.copy(folder / "a", folder / "a.tar")
        archive = open_archive([folder], limits=ReadLimits(members=4))
        assert [one.code for one in archive.rejected] == ["too_large"]
        assert "more files than the limit members = 4" in archive.rejected[0].message

    def test_few_archives_are_open_at_a_time(self, files: Files, written) -> None:
        folder = written({f"{number}.zip": zip_of({f"{number}.dcm": files["IM0001.dcm"]}) for number in range(30)})
        before = len(list(Path("/proc/self/fd").iterdir()))
        archive = open_archive([folder])
        assert len(archive.sources) == 30
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 9

    def test_archives_in_memory_are_closed_for_the_next(self, files: Files) -> None:
        opened = OpenArchives()

        class Fake:
            def __init__(self, memory: int) -> None:
                self.memory, self.closed = memory, False

            def open(self, _limits: ReadLimits) -> "Fake":
                return self

            def close(self) -> None:
                self.closed = True

        limits = ReadLimits(file_bytes=100)
        large = [Fake(80), Fake(30), Fake(60)]
        for one in large:
            opened.get(one, limits)
        assert [one.closed for one in large] == [True, False, False]


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("a.zip", b"PK\x03\x04" + bytes(600)),
            ("a.gz", gzip.compress(bytes(range(256)) * 40)[:-40]),
            ("a.gz", b"\x1f\x8b\x08\x00" + b"\xff" * 600),
            ("a.tar.gz", gzip.compress(tar_of({"a": b"x" * 2000})[:1800])),
        ],
        ids=("zip without members", "gzip cut short", "gzip of noise", "tar cut short"),  # the data hold a time
    )
    def test_a_damaged_archive_is_refused_and_the_rest_is_read(self, files: Files, written, name: str, data) -> None:
        for folder in (written({**files, name: data}), written({"all.zip": zip_of({**files, name: data})}) / "all.zip"):
            archive = open_archive([folder])
            (code,) = [one.code for one in archive.rejected if one.source.startswith(name)]
            assert code == "bad_archive"
            assert slices(archive) >= 3

    def test_an_archive_that_vanishes_is_unreadable(self, files: Files, written) -> None:
        folder = written({f"{number:02d}.zip": zip_of({"a.dcm": files["IM0001.dcm"]}) for number in range(20)})
        archive = open_archive([folder])  # only the last of them are still open
        (folder / "00.zip").unlink()
        with pytest.raises(DicomReadError, match="cannot be opened: No such file") as caught:
            archive.load("00.zip/a.dcm")
        assert caught.value.code == "unreadable"

    def test_a_tar_with_a_damaged_header_is_not_cut_short_in_silence(self, files: Files, written) -> None:
        data = bytearray(tar_of(files))
        place = data.index(b"IM0002.dcm")
        data[place + 148 : place + 156] = b"99999999"
        assert codes(open_archive([written({"a.tar": bytes(data)})])) == {"a.tar": "bad_archive"}

    def test_every_cut_and_flip_ends_in_slices_or_refusals(self, files: Files, written) -> None:
        import random

        chance = random.Random(7)
        whole = {name: PACKERS[name]({"in.zip": zip_of(files), **files}) for name in ("zip", "tar", "tar.gz")}
        damaged = {}
        for number in range(60):
            extension, data = chance.choice(list(whole.items()))
            data = bytearray(data)
            for _ in range(chance.choice((1, 5, 40))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            damaged[f"{number}.{extension}"] = bytes(data[: chance.randrange(len(data))] if number % 2 else data)
        archive = open_archive([written(damaged)])
        assert {one.code for one in archive.rejected} >= {"bad_archive"}


def test_the_kinds_of_files() -> None:
    assert [kind_of(data) for data in (b"", b"PK\x05\x06", gzip.compress(b""), tar_of({"a": b""}))] == [
        None, "zip", "gzip", "tar",
    ]  # fmt: skip
