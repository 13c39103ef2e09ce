"""Two scans over the same places in one series, by what their headers still state: one is read, or none."""

import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from hemoscope.dicom.archive import open_archive
from hemoscope.dicom.readable_series import ReadableSeries, read_best_series
from hemoscope.dicom.series import Series, build_series, build_studies
from hemoscope.dicom.series_choice import choose_series
from hemoscope.dicom.slices import SliceHeader
from hemoscope.errors import SeriesError
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Make = Callable[..., SliceHeader]
COUNT = 30


def time(seconds: int) -> str:
    return f"12{seconds // 60:02d}{seconds % 60:02d}"


def random_uid(name: str) -> str:
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def scan(make: Make, name: str, offset: float = 0.0, **changes: object) -> list[SliceHeader]:
    """One pass of 30 slices numbered from 1; values of ``changes`` that are functions are called with the index."""
    return [
        make(
            5.0 * index + offset,
            **{
                "source": f"{name}{index:03d}",
                "sop_instance_uid": random_uid(f"{name}{index}"),
                "instance_number": index + 1,
                **{key: value(index) if callable(value) else value for key, value in changes.items()},
            },
        )
        for index in range(COUNT)
    ]


def read(series: Series) -> set[str]:
    return {header.source[0] for header in series.headers}


TIMES: dict[str, Callable[[int, int], str]] = {
    "a time for each slice": lambda first, index: time(first + index),
    "backwards": lambda first, index: time(first + COUNT - index),
    "two slices a rotation": lambda first, index: time(first + index // 2),
    "every second slice first": lambda first, index: time(first + (index if index % 2 == 0 else COUNT + index)),
    "in no order": lambda first, index: time(first + index * 7 % COUNT),
}


@pytest.mark.parametrize("offset", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("times", TIMES)
def test_repeated_numbers_and_a_time_for_each_slice_tell_passes_apart(
    make_header: Make, times: str, offset: float
) -> None:
    forwards, of = TIMES["a time for each slice" if times == "backwards" else times], TIMES[times]
    one = scan(make_header, "a", acquisition=lambda index: ("", forwards(0, index)))
    two = scan(make_header, "b", offset, acquisition=lambda index: ("", of(200, index)))
    series = build_series([*two, *one])
    assert (len(series), read(series)) == (COUNT, {"a"})
    assert "overlapping_stacks" in {note.code for note in series.quality}


def test_passes_that_lie_beside_each_other_are_told_apart_by_place(make_header: Make) -> None:
    series = build_series([*scan(make_header, "a"), *scan(make_header, "b", 2.0)])
    assert (len(series), len(read(series))) == (COUNT, 1)


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_so_are_those_whose_uids_count_through(make_header: Make, numbered: bool, offset: float) -> None:
    number = {} if numbered else {"instance_number": None}
    one = scan(make_header, "a", sop_instance_uid=lambda index: f"1.2.{index + 1}", **number)
    two = scan(make_header, "b", offset, sop_instance_uid=lambda index: f"1.2.{index + 101}", **number)
    assert read(build_series([*two, *one])) == {"a"}


def test_scans_that_count_alike_without_positions_are_not_ordered(make_header: Make) -> None:
    lost = [
        make_header(None, source=f"{name}{index}", sop_instance_uid=random_uid(f"{name}{index}"), instance_number=index)
        for name in "ab"
        for index in range(COUNT)
    ]
    (study,) = build_studies(lost)
    with pytest.raises(SeriesError, match="nothing orders its 60 slices"):
        choose_series(study)


class TestPixels:
    """Two scans that state the same; only their UIDs, which are random, differ."""

    head = make_phantom(seed=5, shape=(24, 64, 64)).hounsfield

    def outcome(self, folder: Path, second: np.ndarray) -> ReadableSeries:
        write_series(self.head, folder / "a", spacing_mm=(5.0, 2.4, 2.4))
        for path in write_series(second, folder / "b", spacing_mm=(5.0, 2.4, 2.4)):
            dataset = dcmread(path)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = random_uid(path.name)
            dataset.save_as(path)
        archive = open_archive(folder)
        return read_best_series(archive, archive.studies[0])

    def test_two_scans_are_refused_rather_than_mixed(self, tmp_path: Path) -> None:
        found = self.outcome(tmp_path, make_phantom(seed=9, shape=(24, 64, 64)).hounsfield)
        assert found.decoded is None
        assert [one.code for one in found.rejected] == ["mixed_scans"]
        assert "several scans over the same 24 places" in found.rejected[0].message

    def test_copies_are_read_once(self, tmp_path: Path) -> None:
        found = self.outcome(tmp_path, self.head)
        assert found.decoded is not None
        assert np.array_equal(found.decoded.volume.hounsfield, self.head)
        assert "duplicate_slices" in {note.code for note in found.decoded.quality}

    def test_one_slice_that_was_changed_is_noted(self, tmp_path: Path) -> None:
        changed = self.head.copy()
        changed[4] += 3
        assert self.outcome(tmp_path, changed).decoded is not None
