"""What a decoder prints about a damaged frame becomes a note beside the file's name; nothing of it reaches stderr."""

import os
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate, generate_frames

from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.decoder_messages import caught_damage
from hemoscope.dicom.read import read_slice
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.testing.pixel_coding import PixelCoding


@pytest.fixture
def series(tmp_path: Path) -> tuple[Path, ...]:
    head = make_phantom(seed=1, shape=(3, 64, 64))
    return write_series(head, tmp_path / "series", coding=PixelCoding(transfer_syntax=uid.JPEGLosslessSV1))


def damage(path: Path) -> None:
    """End the entropy-coded data early, and keep the end marker."""
    dataset = dcmread(path)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) * 2 // 3] + b"\xff\xd9"])
    dataset.save_as(path)


def test_a_damaged_frame_that_a_decoder_reads_on_carries_a_note_and_nothing_is_printed(
    series: tuple[Path, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    damage(series[1])
    # What the decoder makes up after the end of the data may lie beyond the stored bits too.
    assert "damaged_pixel_data" in [note.code for note in read_slice(series[1]).quality]
    assert read_slice(series[0]).quality == ()
    assert capfd.readouterr() == ("", "")


def test_the_note_of_the_series_names_the_damaged_files(series: tuple[Path, ...]) -> None:
    damage(series[1])
    archive = open_archive([series[0].parent])
    decoded = read_series(archive, archive.studies[0].series[0])
    (message,) = [note.message for note in decoded.quality if note.code == "damaged_pixel_data"]
    assert message == "the compressed data of 1 of 3 slices are damaged: IM0002.dcm"


def test_a_frame_that_no_decoder_can_read_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    head = np.zeros((1, 32, 32), dtype=np.int16)
    (path,) = write_series(head, tmp_path, coding=PixelCoding(transfer_syntax=uid.RLELossless))
    dataset = dcmread(path)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[:64] + b"\x7f" * (len(frame) - 64)])  # a run past the end: a Rust panic
    dataset.save_as(path)
    with pytest.raises(DicomReadError, match="cannot be decoded"):
        read_slice(path)
    assert capfd.readouterr() == ("", "")


def test_what_others_print_meanwhile_is_printed_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with caught_damage() as found:
        os.write(2, b"30 of 100\nCorrupt JPEG data: bad Huffman code\nUnsupported JPEG data precision 12\n")
    assert [note.code for note in found] == ["damaged_pixel_data"]
    assert capfd.readouterr().err == "30 of 100\n"


def test_a_process_without_stderr_decodes_as_well(series: tuple[Path, ...]) -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        assert read_slice(series[0]).quality == ()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
