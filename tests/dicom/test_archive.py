"""Folders, ZIPs, DICOMDIRs and lists become studies; one bad input never stops the others; names tell no secrets."""

import errno
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, uid

from hemoscope.dicom import read
from hemoscope.dicom.archive import Archive, DecodedSeries, open_archive, read_series
from hemoscope.dicom.read_limits import ReadLimits
from hemoscope.dicom.refusals import refusal
from hemoscope.dicom.series_choice import choose_series
from hemoscope.errors import DicomReadError, SeriesError
from hemoscope.testing import non_ct_objects
from hemoscope.testing.dicom_writer import PixelCoding, enhanced_ct_dataset, save, write_series
from hemoscope.testing.phantom import Phantom, make_phantom


@pytest.fixture
def folder(head: Phantom, tmp_path: Path) -> Path:
    """A series in a folder below the given one; file names run against anatomical order."""
    paths = write_series(head, tmp_path / "given" / "Doe^John")
    for index, path in enumerate(paths):
        path.rename(path.with_name(f"{99 - index}.dcm"))
    return tmp_path / "given"


def zipped(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*.dcm")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def decoded(archive: Archive, **options: object) -> DecodedSeries:
    return read_series(archive, choose_series(archive.studies[0]).series, **options)


def codes(archive: Archive) -> dict[str, str]:
    return {one.source: one.code for one in archive.rejected}


class _Lost:
    """A source that was there when the archive was opened and can no longer be read."""

    def __init__(self, name: str, code: str) -> None:
        self.name, self.code = name, code

    def load(self, _limits: ReadLimits) -> bytes:
        raise refusal(self.name, self.code, f"{self.code} by a test")


@pytest.fixture(scope="class")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive of nine slices: those of ``head``."""
    folder = tmp_path_factory.mktemp("nine")
    write_series(make_phantom(seed=3, shape=(9, 64, 64)), folder)
    return open_archive([folder])


class TestFolders:
    def test_a_folder_is_read_below_and_in_anatomical_order(self, folder: Path, head: Phantom) -> None:
        archive = open_archive([folder])
        assert archive.rejected == ()
        series = decoded(archive)
        assert (series.volume.hounsfield == head.hounsfield).all()
        assert series.volume.spacing_mm == pytest.approx(head.spacing_mm)
        assert series.volume.orientation == (1, 0, 0, 0, 1, 0)
        assert list(series.volume.positions_mm) == sorted(series.volume.positions_mm)
        assert [one.source for one in series.slices][:2] == ["Doe^John/99.dcm", "Doe^John/98.dcm"]

    def test_bad_inputs_are_refused_and_named_and_the_rest_is_read(self, folder: Path, head: Phantom) -> None:
        (folder / "notes.txt").write_text("not an image")
        (folder / "cut.dcm").write_bytes((folder / "Doe^John" / "95.dcm").read_bytes()[:-999])
        non_ct_objects.write_localizer(folder / "scout.dcm")
        non_ct_objects.write_dose_report(folder / "dose.dcm")
        archive = open_archive([folder])
        assert codes(archive) == {
            "notes.txt": "not_dicom",
            "cut.dcm": "truncated_pixel_data",
            "scout.dcm": "localizer",
            "dose.dcm": "dose_report",
        }
        assert all(". " in one.message for one in archive.rejected)
        assert (decoded(archive).volume.hounsfield == head.hounsfield).all()

    def test_litter_and_links_to_folders_are_passed_over(self, folder: Path) -> None:
        (folder / ".DS_Store").write_bytes(b"x")
        (folder / "Thumbs.db").write_bytes(b"x")
        (folder / "loop").symlink_to(folder, target_is_directory=True)
        archive = open_archive([folder])
        assert archive.rejected == ()
        assert len(archive.sources) == 9

    def test_a_pipe_in_a_folder_is_not_waited_for(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe")
        assert codes(open_archive([folder])) == {"pipe": "unreadable"}

    def test_too_many_files_are_refused(self, folder: Path) -> None:
        archive = open_archive([folder], limits=ReadLimits(members=5))
        assert [one.code for one in archive.rejected] == ["too_large"]
        assert "members = 5" in archive.rejected[0].message

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
    @pytest.mark.parametrize("mode", [0, 0o400])
    def test_a_folder_that_may_not_be_listed_or_entered_is_refused(self, folder: Path, mode: int) -> None:
        shutil.copytree(folder / "Doe^John", folder / "locked")
        (folder / "locked").chmod(mode)
        archive = open_archive([folder])
        (folder / "locked").chmod(0o700)
        assert set(codes(archive).values()) == {"unreadable"}
        assert len(archive.studies[0].series[0]) == 9

    def test_a_folder_that_cannot_be_listed_is_one_refusal_and_the_rest_is_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "locked" / "below").mkdir(parents=True)
        iterdir = Path.iterdir

        def fail(self: Path) -> object:
            if self.name == "locked":
                raise PermissionError(errno.EACCES, "Permission denied")
            return iterdir(self)

        monkeypatch.setattr(Path, "iterdir", fail)
        archive = open_archive([folder])
        assert codes(archive) == {"locked": "unreadable"}
        assert "the folder cannot be listed: Permission denied" in archive.rejected[0].message
        assert len(archive.studies[0].series[0]) == 9

    def test_a_file_that_cannot_be_looked_at_is_one_refusal_and_the_rest_is_read(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a folder that may be listed but not entered."""
        look = Path.stat

        def fail(self: Path, **options: bool) -> os.stat_result:
            if self.name in ("95.dcm", "study.zip", "alone"):
                raise PermissionError(errno.EACCES, "Permission denied")
            return look(self, **options)

        (folder / "study.zip").write_bytes(b"")
        monkeypatch.setattr(Path, "stat", fail)
        archive = open_archive([folder, folder / "alone"])
        assert codes(archive) == dict.fromkeys(("Doe^John/95.dcm", "study.zip", "alone"), "unreadable")
        assert len(archive.studies[0].series[0]) == 8

    def test_links_in_a_circle_are_harmless(self, folder: Path) -> None:
        (folder / "a").symlink_to(folder / "b")
        (folder / "b").symlink_to(folder / "a")
        (folder / "Doe^John" / "up").symlink_to("..")
        (folder / "Doe^John" / "nowhere.zip").symlink_to("missing")
        archive = open_archive([folder])
        assert codes(archive) == dict.fromkeys(("a", "b", "Doe^John/nowhere.zip"), "unreadable")
        assert len(archive.studies[0].series[0]) == 9

    def test_a_missing_path_is_refused_without_its_folders(self, tmp_path: Path) -> None:
        archive = open_archive([tmp_path / "nothing.dcm"])
        assert codes(archive) == {"nothing.dcm": "unreadable"}
        assert str(tmp_path) not in archive.rejected[0].message


class TestLists:
    def test_files_are_named_by_their_own_names(self, folder: Path) -> None:
        archive = open_archive(sorted((folder / "Doe^John").glob("*")))
        assert len(archive.studies[0].series[0]) == 9
        assert set(archive.sources) == {f"{number}.dcm" for number in range(91, 100)}

    def test_names_that_would_collide_are_distinguished_by_their_place(self, head: Phantom, tmp_path: Path) -> None:
        write_series(head, tmp_path / "a", seed=1)
        write_series(head, tmp_path / "b", seed=2)
        archive = open_archive([tmp_path / "a", tmp_path / "b"])
        assert len(archive.studies) == 2
        assert {name.split("/")[0] for name in archive.sources} == {"1", "2"}

    def test_a_copy_of_a_file_is_a_duplicate(self, folder: Path) -> None:
        shutil.copy(folder / "Doe^John" / "95.dcm", folder / "copy.dcm")
        (series,) = open_archive([folder]).studies[0].series
        assert len(series) == 9
        assert "duplicate_slices" in {note.code for note in series.quality}

    def test_progress_counts_every_input(self, folder: Path) -> None:
        seen: list[tuple[int, int]] = []
        archive = open_archive([folder], progress=lambda *now: seen.append(now))
        assert seen == [(done, 9) for done in range(1, 10)]
        seen.clear()
        decoded(archive, progress=lambda *now: seen.append(now))
        assert seen == [(done, 9) for done in range(1, 10)]


class TestZips:
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_zip_is_read_as_its_folder_is(self, folder: Path, head: Phantom, tmp_path: Path, method: int) -> None:
        archive = open_archive([zipped(folder, tmp_path / "study.zip", method)])
        assert archive.rejected == ()
        series = decoded(archive, threads=3)
        assert (series.volume.hounsfield == head.hounsfield).all()
        assert series.slices[0].source == "Doe^John/99.dcm"

    def test_members_that_would_share_a_name_are_distinguished(self, folder: Path, tmp_path: Path) -> None:
        path = zipped(folder, tmp_path / "study.zip")
        archive = open_archive([folder, path])
        assert len(archive.sources) == 18
        assert archive.load("2/Doe^John/99.dcm") == archive.load("1/Doe^John/99.dcm")

    def test_other_compressions_are_refused(self, folder: Path, tmp_path: Path) -> None:
        archive = open_archive([zipped(folder, tmp_path / "study.zip", zipfile.ZIP_LZMA)])
        assert set(codes(archive).values()) == {"bad_archive"}
        assert "method other than deflate" in archive.rejected[0].message

    def test_a_bomb_is_refused_before_it_is_inflated(self, tmp_path: Path) -> None:
        path = tmp_path / "bomb.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.dcm", bytes(20_000_000))
            archive.writestr("b.dcm", bytes(20_000_000))
        assert path.stat().st_size < 50_000
        one = open_archive([path], limits=ReadLimits(file_bytes=1_000_000))
        assert codes(one) == {"a.dcm": "too_large", "b.dcm": "too_large"}
        every = open_archive([path], limits=ReadLimits(archive_bytes=30_000_000))
        assert codes(every) == {"bomb.zip": "too_large"}
        assert "2 members of 40000000 bytes" in every.rejected[0].message

    def test_a_large_zip_is_refused_by_its_size(self, folder: Path, tmp_path: Path) -> None:
        path = zipped(folder, tmp_path / "study.zip")
        assert codes(open_archive([path], limits=ReadLimits(archive_bytes=100))) == {"study.zip": "too_large"}

    def test_a_member_that_declares_a_wrong_size_inflates_no_further(self, tmp_path: Path) -> None:
        path = tmp_path / "liar.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.dcm", bytes(1_000_000))
        data = path.read_bytes()
        path.write_bytes(data.replace((1_000_000).to_bytes(4, "little"), (500).to_bytes(4, "little")))
        assert codes(open_archive([path])) == {"a.dcm": "bad_archive"}

    def test_a_damaged_member_does_not_stop_the_others(self, folder: Path, tmp_path: Path) -> None:
        path = zipped(folder, tmp_path / "study.zip", zipfile.ZIP_STORED)
        data = bytearray(path.read_bytes())
        data[3000] ^= 0xFF
        path.write_bytes(data)
        archive = open_archive([path])
        assert list(codes(archive).values()) == ["bad_archive"]
        assert len(archive.studies[0].series[0]) == 8

    def test_a_broken_directory_of_a_zip_is_refused(self, folder: Path, tmp_path: Path) -> None:
        path = zipped(folder, tmp_path / "study.zip")
        data = path.read_bytes()
        path.write_bytes(data.replace(b"PK\x01\x02", b"PK\x09\x09"))
        assert codes(open_archive([path])) == {"study.zip": "bad_archive"}


class TestDecoding:
    def test_enhanced_and_single_frames_give_the_same_volume(self, head: Phantom, tmp_path: Path) -> None:
        coding = PixelCoding(transfer_syntax=uid.JPEGLosslessSV1)
        write_series(head, tmp_path, enhanced=True, coding=coding)
        series = decoded(open_archive([tmp_path]))
        assert (series.volume.hounsfield == head.hounsfield).all()
        assert [one.frame for one in series.slices] == list(range(9))

    def test_slices_that_cannot_be_decoded_are_excluded_and_named(self, head: Phantom, tmp_path: Path) -> None:
        paths = write_series(head, tmp_path, coding=PixelCoding(transfer_syntax=uid.JPEG2000Lossless))
        data = bytearray(paths[4].read_bytes())
        start = data.rindex(b"\xff\x4f\xff\x51")
        data[start : start + 200] = bytes(200)
        paths[4].write_bytes(data)
        series = decoded(open_archive([tmp_path]))
        assert [one.source for one in series.rejected] == ["IM0005.dcm"]
        assert (series.volume.hounsfield == np.delete(head.hounsfield, 4, axis=0)).all()
        assert len(series.slices) == len(series.slice_quality) == len(series.volume.positions_mm) == 8
        assert "slices_refused" in {note.code for note in series.quality}

    @given(lost=st.dictionaries(st.integers(0, 8), st.sampled_from(["unreadable", "too_large"]), max_size=8))
    def test_every_slice_is_in_the_volume_or_counted_as_unread(
        self, nine: Archive, head: Phantom, lost: dict[int, str]
    ) -> None:
        names = [header.source for header in choose_series(nine.studies[0]).series.headers]
        sources = {names[index]: _Lost(names[index], code) for index, code in lost.items()}
        series = decoded(replace(nine, sources={**nine.sources, **sources}))
        assert {one.code: one.count for one in series.unread} == Counter(lost.values())
        assert len(series.slices) + sum(one.count for one in series.unread) == len(names)
        messages = {one.code: one.message for one in series.rejected}
        assert all(one.message == messages[one.code] for one in series.unread)
        assert (series.volume.hounsfield == np.delete(head.hounsfield, list(lost), axis=0)).all()

    def test_all_frames_of_a_lost_file_count(self, head: Phantom, tmp_path: Path) -> None:
        single = write_series(head, tmp_path / "single")
        path = save(enhanced_ct_dataset(head.hounsfield, spacing_mm=head.spacing_mm), tmp_path / "enhanced.dcm")
        dataset = dcmread(path)
        dataset.SeriesInstanceUID = dcmread(single[0]).SeriesInstanceUID
        for frame in dataset.PerFrameFunctionalGroupsSequence:  # above the other slices, not in their places
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            position[2] += 9 * head.spacing_mm[0]
        save(dataset, path)
        archive = open_archive([tmp_path])
        path.unlink()
        series = decoded(archive)
        assert [(one.code, one.count) for one in series.unread] == [("unreadable", 9)]
        assert len(series.rejected) == 1
        assert len(series.slices) == 9

    def test_a_series_without_any_slice_left_is_refused(self, folder: Path) -> None:
        archive = open_archive([folder])
        for path in (folder / "Doe^John").glob("*"):
            path.unlink()
        with pytest.raises(SeriesError, match=r"no slice of series .* can be decoded: cannot be opened"):
            decoded(archive)

    def test_values_are_rounded_and_kept_within_16_bits(
        self, tmp_path: Path, make_slice: Callable[..., object]
    ) -> None:
        save(
            make_slice(coding=PixelCoding(slope=0.4, bits_stored=16), RescaleSlope=40, RescaleIntercept=0),
            tmp_path / "x.dcm",
        )
        volume = decoded(open_archive([tmp_path])).volume
        assert volume.hounsfield.max() == 32767
        assert volume.spacing_mm[0] is None

    def test_repairs_are_reported_for_the_series_too(self, head: Phantom, tmp_path: Path) -> None:
        for path in write_series(head, tmp_path):
            dataset = dcmread(path)
            dataset.RescaleIntercept = 0
            stored = np.frombuffer(dataset.PixelData, "<u2").astype(np.int32) - 1024
            dataset.PixelData = (stored % 4096).astype("<u2").tobytes()
            save(dataset, path)
        series = decoded(open_archive([tmp_path]))
        assert (series.volume.hounsfield == head.hounsfield).all()
        assert "twelve_bit_repair" in {note.code for note in series.quality}
        assert all("twelve_bit_repair" in {note.code for note in one} for one in series.slice_quality)

    def test_padding_in_tissue_is_reported_for_the_series_too(self, head: Phantom, tmp_path: Path) -> None:
        coding = PixelCoding(signed=True, bits_stored=16, intercept=0, padding=-2000, padding_limit=60)
        write_series(head, tmp_path, coding=coding)
        series = decoded(open_archive([tmp_path]))
        (message,) = [note.message for note in series.quality if note.code == "padding_in_tissue"]
        assert message.endswith("in 9 of 9 slices")
        assert (series.volume.hounsfield[:, 20:44, 20:44] == head.hounsfield[:, 20:44, 20:44]).all()

    def test_unknown_positions_stay_unknown(self, head: Phantom, tmp_path: Path) -> None:
        for path in write_series(head, tmp_path):
            dataset = dcmread(path)
            del dataset.ImagePositionPatient
            save(dataset, path)
        series = decoded(open_archive([tmp_path]))
        assert series.volume.positions_mm == (None,) * 9
        assert (series.volume.hounsfield == head.hounsfield).all()

    def test_the_bytes_of_a_source_can_be_had_again(self, folder: Path) -> None:
        archive = open_archive([folder])
        assert archive.load("Doe^John/99.dcm") == (folder / "Doe^John" / "99.dcm").read_bytes()
        (folder / "Doe^John" / "99.dcm").unlink()
        with pytest.raises(DicomReadError, match="No such file"):
            archive.load("Doe^John/99.dcm")


@pytest.mark.shared_data
class TestRealStudies:
    def test_a_thin_series_is_read_with_each_file_opened_once(
        self, shared_data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: Counter[Path] = Counter()
        load_file = read._load_file

        def counted(path: Path, *rest: Any) -> bytes:
            opened[path] += 1
            return load_file(path, *rest)

        monkeypatch.setattr(read, "_load_file", counted)
        series = decoded(open_archive([shared_data_dir / "cq500-series"]))
        assert sum(opened.values()) == 238
        assert set(opened.values()) == {1}
        assert series.volume.hounsfield.shape == (238, 512, 512)
        assert series.volume.hounsfield.min() >= -1024
        assert "gantry_tilt" in {note.code for note in series.quality}

    def test_a_whole_folder_with_intruders_is_read(self, shared_data_dir: Path, tmp_path: Path) -> None:
        images = sorted((shared_data_dir / "rsna-dicom" / "images").glob("*.dcm"))
        (tmp_path / "notes.txt").write_text("text")
        (tmp_path / "cut.dcm").write_bytes(images[0].read_bytes()[:-5000])
        non_ct_objects.write_localizer(tmp_path / "scout.dcm")
        archive = open_archive([*images, tmp_path])
        assert codes(archive) == {"notes.txt": "not_dicom", "cut.dcm": "truncated_pixel_data", "scout.dcm": "localizer"}
        assert sum(len(series) for study in archive.studies for series in study.series) == 87
