"""Heads written as DICOM are read back unchanged, in every transfer syntax."""

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from hemoscope.labels import Hemorrhage
from hemoscope.testing.dicom_writer import (
    Acquisition,
    PixelCoding,
    ct_dataset,
    enhanced_ct_dataset,
    save,
    stable_uid,
    write_series,
)
from hemoscope.testing.phantom import Phantom, make_phantom
from hemoscope.testing.pixel_coding import LOSSLESS, LOSSY, NATIVE, NEAR_LOSSLESS_ERROR, NEED_IMAGECODECS


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(seed=1, shape=(3, 64, 80), bleeds=frozenset({Hemorrhage.SUBDURAL}))


def hounsfield_of(path: Path) -> np.ndarray:
    """HU by pydicom's own decoding, or OpenJPEG's where pydicom has no decoder installed."""
    ds = pydicom.dcmread(path)
    if ds.file_meta.TransferSyntaxUID in (HTJ2K, HTJ2KLossless):
        import openjpeg

        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
        pixels = openjpeg.decode(BytesIO(frame))
    else:
        pixels = ds.pixel_array
    return pixels * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def skip_without_encoder(syntax: str) -> None:
    if syntax in NEED_IMAGECODECS:
        pytest.importorskip("imagecodecs", reason="needs imagecodecs: pip install 'hemoscope[dev]'")


@pytest.mark.parametrize("bits", [(False, 12, -1024), (False, 16, -1024), (True, 16, 0), (True, 13, 0)])
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda uid: UID(uid).keyword)
def test_lossless_syntaxes_give_back_every_hounsfield_unit(
    syntax: str, bits: tuple[bool, int, int], phantom: Phantom, tmp_path: Path
) -> None:
    skip_without_encoder(syntax)
    signed, stored, intercept = bits
    coding = PixelCoding(transfer_syntax=syntax, signed=signed, bits_stored=stored, intercept=intercept)
    paths = write_series(phantom, tmp_path, coding=coding)
    for path, expected in zip(paths, phantom.hounsfield, strict=True):
        assert np.array_equal(hounsfield_of(path), expected)


@pytest.mark.parametrize(
    ("syntax", "bits", "slope", "most"),
    [
        (JPEGBaseline8Bit, 8, 16.0, 60),
        (JPEGLSNearLossless, 12, 1.0, NEAR_LOSSLESS_ERROR),
        (JPEG2000, 16, 1.0, 60),
        (HTJ2K, 16, 1.0, 60),
    ],
)
def test_lossy_syntaxes_come_close_and_state_that_they_are_lossy(
    syntax: str, bits: int, slope: float, most: float, phantom: Phantom, tmp_path: Path
) -> None:
    skip_without_encoder(syntax)
    coding = PixelCoding(transfer_syntax=syntax, bits_stored=bits, slope=slope)
    path = write_series(phantom, tmp_path, coding=coding)[0]
    assert 0 < abs(hounsfield_of(path) - phantom.hounsfield[0]).max() <= most
    ds = pydicom.dcmread(path)
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionMethod == LOSSY[syntax]


def test_twelve_bit_jpeg_comes_close(phantom: Phantom, tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs imagecodecs: pip install 'hemoscope[dev]'")
    path = write_series(phantom, tmp_path, coding=PixelCoding(transfer_syntax=JPEGExtended12Bit))[0]
    frame = next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))
    assert abs(imagecodecs.jpeg8_decode(frame).astype(int) - 1024 - phantom.hounsfield[0]).max() < 30


def test_a_missing_encoder_is_named_with_the_line_that_installs_it(
    phantom: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hemoscope.errors import MissingExtraError

    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(MissingExtraError, match=r"imagecodecs is not installed.*hemoscope\[dev\]"):
        ct_dataset(phantom.hounsfield[0], coding=PixelCoding(transfer_syntax=HTJ2KLossless))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLosslessSV1])
def test_an_enhanced_object_holds_all_slices(syntax: str, phantom: Phantom, tmp_path: Path) -> None:
    (path,) = write_series(phantom, tmp_path, coding=PixelCoding(transfer_syntax=syntax), enhanced=True)
    ds = pydicom.dcmread(path)
    assert np.array_equal(ds.pixel_array - 1024.0, phantom.hounsfield)
    heights = [f.PlanePositionSequence[0].ImagePositionPatient[2] for f in ds.PerFrameFunctionalGroupsSequence]
    assert heights == [-5.0, 0.0, 5.0]


def test_frames_may_have_a_rescale_each(phantom: Phantom) -> None:
    intercepts = (-1024.0, -1030.0, -1100.0)
    ds = enhanced_ct_dataset(phantom.hounsfield, coding=PixelCoding(bits_stored=16), frame_intercepts=intercepts)
    frames = ds.PerFrameFunctionalGroupsSequence
    assert [f.PixelValueTransformationSequence[0].RescaleIntercept for f in frames] == list(intercepts)
    stored = np.frombuffer(ds.PixelData, "<u2").reshape(phantom.hounsfield.shape)
    assert np.array_equal(stored + np.array(intercepts)[:, None, None], phantom.hounsfield)


def test_frame_intercepts_of_another_number_are_refused(phantom: Phantom) -> None:
    with pytest.raises(ValueError, match="2 frame intercepts for 3 frames"):
        enhanced_ct_dataset(phantom.hounsfield, frame_intercepts=(0.0, 1.0))


def test_positions_rise_from_feet_to_head_and_the_middle_is_zero(phantom: Phantom, tmp_path: Path) -> None:
    paths = write_series(phantom, tmp_path)
    positions = [pydicom.dcmread(path).ImagePositionPatient for path in paths]
    assert [p[2] for p in positions] == [-5.0, 0.0, 5.0]
    dy, dx = phantom.spacing_mm[1:]
    assert positions[0][:2] == pytest.approx([-dx * 79 / 2, -dy * 63 / 2])


def test_a_tilted_gantry_leans_the_slices_but_not_the_table(phantom: Phantom, tmp_path: Path) -> None:
    paths = write_series(phantom, tmp_path, acquisition=Acquisition(gantry_tilt_degrees=20.0))
    first, second = (pydicom.dcmread(path) for path in paths[:2])
    assert first.GantryDetectorTilt == 20
    assert first.ImageOrientationPatient[5] == pytest.approx(-np.sin(np.deg2rad(20.0)))
    assert np.subtract(second.ImagePositionPatient, first.ImagePositionPatient) == pytest.approx([0, 0, 5])


def test_padding_fills_the_corners_and_is_declared(phantom: Phantom, tmp_path: Path) -> None:
    coding = PixelCoding(signed=True, bits_stored=16, intercept=0, padding=-2000, padding_limit=-1990)
    ds = pydicom.dcmread(write_series(phantom, tmp_path, coding=coding)[0])
    assert (ds.PixelPaddingValue, ds.PixelPaddingRangeLimit) == (-2000, -1990)
    assert ds.pixel_array[0, 0] == -2000
    assert np.array_equal(ds.pixel_array[20:40, 20:60], phantom.hounsfield[0, 20:40, 20:60])


def test_uids_follow_from_the_seed_and_series_of_one_seed_share_the_study(phantom: Phantom, tmp_path: Path) -> None:
    def read(name: str, seed: int, number: int) -> pydicom.Dataset:
        acquisition = Acquisition(series_number=number)
        return pydicom.dcmread(write_series(phantom, tmp_path / name, seed=seed, acquisition=acquisition)[0])

    one, again, other_series, other_study = read("a", 1, 1), read("b", 1, 1), read("c", 1, 2), read("d", 2, 1)
    assert one.SOPInstanceUID == again.SOPInstanceUID != other_series.SOPInstanceUID
    assert one.StudyInstanceUID == other_series.StudyInstanceUID != other_study.StudyInstanceUID
    assert one.SeriesInstanceUID != other_series.SeriesInstanceUID
    assert UID(stable_uid("x")).is_valid


def test_bits_that_cannot_hold_the_hu_are_refused(phantom: Phantom) -> None:
    with pytest.raises(ValueError, match="do not fit into 0 to 4095: change the intercept"):
        ct_dataset(phantom.hounsfield[0], coding=PixelCoding(intercept=0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"transfer_syntax": UID("1.2.3")}, "no encoder for transfer syntax 1.2.3"),
        ({"bits_stored": 17}, "between 2 and 16, got 17"),
        ({"transfer_syntax": JPEGExtended12Bit, "bits_stored": 16}, "between 2 and 12, got 16"),
        ({"transfer_syntax": JPEGBaseline8Bit, "bits_stored": 8, "signed": True}, "unsigned values only"),
        ({"slope": 0.0}, "slope of 0"),
    ],
)
def test_a_coding_that_cannot_be_written_is_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PixelCoding(**arguments)  # type: ignore[arg-type]


def test_what_gdcm_cannot_encode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import gdcm

    monkeypatch.setattr(gdcm.ImageChangeTransferSyntax, "Change", lambda self: False)
    with pytest.raises(ValueError, match="GDCM cannot write 12-bit"):
        ct_dataset(np.zeros((16, 16)), coding=PixelCoding(transfer_syntax=JPEGLosslessSV1))


def test_saving_returns_the_path_and_the_file_has_a_preamble(phantom: Phantom, tmp_path: Path) -> None:
    path = save(ct_dataset(phantom.hounsfield[0]), tmp_path / "slice.dcm")
    assert path.read_bytes()[128:132] == b"DICM"


# dciodvfy does not inflate the deflated syntax nor know HTJ2K, and CT does not allow the eight bits of JPEG Baseline.
NOT_JUDGED = (DeflatedExplicitVRLittleEndian, HTJ2KLossless, HTJ2K, JPEGBaseline8Bit)
JUDGED = [uid for uid in (*NATIVE, *LOSSLESS, *LOSSY) if uid not in NOT_JUDGED]


def errors_of(tool: Path, path: Path) -> list[str]:
    answer = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    return [line for line in answer.stderr.splitlines() if "Error" in line]


@pytest.mark.reference_tool("dciodvfy")
@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("syntax", JUDGED, ids=lambda uid: UID(uid).keyword)
def test_dciodvfy_finds_no_error(
    syntax: UID, enhanced: bool, phantom: Phantom, tmp_path: Path, reference_tool: Callable[[str], Path]
) -> None:
    skip_without_encoder(syntax)
    acquisition = Acquisition(contrast_agent="Iohexol", gantry_tilt_degrees=12.0, image_comments="A phantom")
    path = write_series(
        phantom, tmp_path, coding=PixelCoding(transfer_syntax=syntax), acquisition=acquisition, enhanced=enhanced
    )[0]
    assert errors_of(reference_tool("dciodvfy"), path) == []


@pytest.mark.reference_tool("dcmdjpeg", "dcmdjpls", "dcmdrle")
@pytest.mark.parametrize(
    ("syntax", "tool", "most"),
    [
        (JPEGLossless, "dcmdjpeg", 0),
        (JPEGLosslessSV1, "dcmdjpeg", 0),
        (JPEGExtended12Bit, "dcmdjpeg", 30),
        (JPEGLSLossless, "dcmdjpls", 0),
        (JPEGLSNearLossless, "dcmdjpls", NEAR_LOSSLESS_ERROR),
        (RLELossless, "dcmdrle", 0),
    ],
)
def test_dcmtk_decodes_what_we_encode(
    syntax: UID, tool: str, most: int, phantom: Phantom, tmp_path: Path, reference_tool: Callable[[str], Path]
) -> None:
    skip_without_encoder(syntax)
    path = write_series(phantom, tmp_path, coding=PixelCoding(transfer_syntax=syntax))[0]
    plain = tmp_path / "plain.dcm"
    subprocess.run([reference_tool(tool), path, plain], check=True, capture_output=True)
    assert abs(hounsfield_of(plain) - phantom.hounsfield[0]).max() <= most
