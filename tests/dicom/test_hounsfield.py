"""Stored values become HU; padding becomes air; wrapped 12-bit values are repaired only if that is plausible."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from hemoscope.dicom.hounsfield import (
    HounsfieldRule,
    Rescale,
    may_need_twelve_bit_repair,
    repair_twelve_bits,
    rounded,
    to_hounsfield,
    to_rounded,
)
from hemoscope.dicom.pixels import PixelFormat
from hemoscope.dicom.read import read_slice
from hemoscope.errors import DicomReadError
from hemoscope.testing.dicom_writer import PixelCoding


def lut_item(first: int, values: list[int], kind: str = "HU") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US" if first >= 0 else "SS", [len(values), first, 16])
    item.ModalityLUTType = kind
    item.add_new(0x00283006, "OW", np.asarray(values, "<u2").tobytes())
    return item


def as_stored(hounsfield: np.ndarray) -> np.ndarray:
    """HU as the faulty scanners stored them: twelve bits, no intercept."""
    return (hounsfield.astype(np.int32) % 4096).astype(np.uint16)


@pytest.fixture
def wrapped(make_slice: Callable[..., Dataset], slice_hu: np.ndarray) -> Callable[[np.ndarray], Dataset]:
    def build(hounsfield: np.ndarray) -> Dataset:
        dataset = make_slice(hounsfield=slice_hu, RescaleIntercept=0)
        dataset.PixelData = as_stored(hounsfield).tobytes()
        return dataset

    return build


class TestModality:
    @given(
        stored=st.lists(st.integers(-32768, 32767), min_size=4, max_size=4),
        slope=st.sampled_from([1.0, 0.5, 2.0, -1.0, 0.1, 1.7]),
        intercept=st.integers(-5000, 5000),
    )
    def test_rescale_equals_pydicoms(self, stored: list[int], slope: float, intercept: int) -> None:
        values = np.array(stored, np.int32).reshape(2, 2)
        dataset = Dataset()
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        expected = apply_modality_lut(values, dataset).astype(np.float32)
        assert (Rescale(slope=slope, intercept=intercept).apply(values) == expected).all()

    @pytest.mark.parametrize("first", [0, 900, -30])
    def test_a_modality_lut_equals_pydicoms(self, make_slice, as_bytes, first: int) -> None:
        signed = first < 0
        coding = PixelCoding(signed=signed, bits_stored=16, intercept=-1024)
        dataset = make_slice(coding=coding, RescaleSlope=None, RescaleIntercept=None, RescaleType=None)
        dataset.ModalityLUTSequence = [lut_item(first, list(range(100, 700)))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = apply_modality_lut(dataset.pixel_array.astype(np.int32), dataset)
        assert (read_slice(as_bytes(dataset)).hounsfield == expected).all()

    @pytest.mark.parametrize(
        ("item", "match"),
        [(lut_item(0, [1, 2], kind="OD"), "is not HU"), (Dataset(), "LUT descriptor"), ("short", "entries but has 2")],
    )
    def test_an_unusable_modality_lut_is_refused(self, make_slice, as_bytes, item, match: str) -> None:
        if item == "short":
            item = lut_item(0, [1, 2])
            item.LUTDescriptor = [5, 0, 16]
        with pytest.raises(DicomReadError, match=match) as caught:
            read_slice(as_bytes(make_slice(ModalityLUTSequence=[item])))
        assert caught.value.code == "no_rescale"

    def test_a_rescale_with_control_characters_is_not_a_number(self, make_slice, as_bytes) -> None:
        data = as_bytes(make_slice(RescaleIntercept="-1024.00"))
        with pytest.raises(DicomReadError, match="Rescale Intercept is missing or not a number") as caught:
            read_slice(data.replace(b"-1024.00", b"\x07\x00024.00"))
        assert caught.value.code == "no_rescale"

    def test_modified_units_are_noted(self, make_slice, as_bytes) -> None:
        read = read_slice(as_bytes(make_slice(RescaleType="HU_MOD")))
        assert [note.code for note in read.quality] == ["modified_hounsfield"]


class TestPadding:
    def test_the_padding_value_becomes_air(self, make_slice, as_bytes, slice_hu) -> None:
        coding = PixelCoding(signed=True, bits_stored=16, padding=-2000)
        read = read_slice(as_bytes(make_slice(coding=coding)))
        assert read.hounsfield[0, 0] == -1000
        assert (read.hounsfield[20:44, 20:44] == slice_hu[20:44, 20:44]).all()
        assert read.quality == ()

    def test_the_padding_range_becomes_air(self, make_slice, as_bytes, slice_hu) -> None:
        coding = PixelCoding(signed=True, bits_stored=16, padding=-2000, padding_limit=-1900)
        dataset = make_slice(coding=coding)
        stored = np.frombuffer(dataset.PixelData, "<i2").copy()
        stored[100] = -1950
        dataset.PixelData = stored.tobytes()
        assert read_slice(as_bytes(dataset)).hounsfield.ravel()[100] == -1000

    def test_a_negative_padding_value_written_as_unsigned_is_understood(self, make_slice, as_bytes) -> None:
        dataset = make_slice(coding=PixelCoding(signed=True, bits_stored=16, padding=-2000))
        dataset[0x00280120].VR = "US"
        dataset[0x00280120].value = 65536 - 2000
        assert read_slice(as_bytes(dataset)).hounsfield[0, 0] == -1000

    @pytest.mark.parametrize(
        ("signed", "value", "limit", "words"),
        [
            (False, 63536, None, [63536]),  # -2000 over 12 unsigned bits
            (False, 63536, 63600, [63536, 63570, 63600]),
            (True, -32768, None, [32768]),  # below 12 signed bits
            (True, -3000, -2048, [65536 - 3000, 65536 - 2100, 65536 - 2048]),
        ],
    )
    def test_padding_beyond_the_stored_bits_becomes_air(
        self, make_slice, as_bytes, slice_hu, signed: bool, value: int, limit: int | None, words: list[int]
    ) -> None:
        dataset = make_slice(coding=PixelCoding(signed=signed, intercept=0 if signed else -1024))
        dataset.PixelPaddingValue = value
        if limit is not None:
            dataset.PixelPaddingRangeLimit = limit
        stored = np.frombuffer(dataset.PixelData, "<u2").copy()
        stored[: len(words)] = words
        dataset.PixelData = stored.tobytes()
        read = read_slice(as_bytes(dataset))
        assert (read.hounsfield.ravel()[: len(words)] == -1000).all()
        assert (read.hounsfield.ravel()[len(words) :] == slice_hu.ravel()[len(words) :]).all()
        assert read.quality == ()

    @pytest.mark.parametrize("values", [[-2000], [-2000, -3024]])
    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("declared", [None, 63536])
    def test_so_does_padding_there_that_is_not_declared(
        self, make_slice, as_bytes, slice_hu, values: list[int], signed: bool, declared: int | None
    ) -> None:
        dataset = make_slice(coding=PixelCoding(signed=signed, intercept=0 if signed else -1024))
        if declared is not None:
            dataset.PixelPaddingValue = declared if not signed else declared - 65536
        stored = np.frombuffer(dataset.PixelData, "<u2").copy()
        stored[:200] = np.resize(values, 200) % 65536
        dataset.PixelData = stored.tobytes()
        read = read_slice(as_bytes(dataset))
        beyond = stored[:200] != 65536 - 2000 if signed else stored[:200] > 0  # 12 signed bits hold -2000
        assert (read.hounsfield.ravel()[:200][beyond] == -1000).all()
        assert (read.hounsfield.ravel()[200:] == slice_hu.ravel()[200:]).all()
        expected = beyond.any() if declared is None or signed else len(values) > 1
        assert [note.code for note in read.quality] == (["undeclared_padding"] if expected else [])

    def test_overlays_and_undefined_bits_above_the_stored_ones_are_no_padding(
        self, make_slice, as_bytes, slice_hu
    ) -> None:
        for bit in (0x8000, 0x1000):
            dataset = make_slice(coding=PixelCoding())
            stored = np.frombuffer(dataset.PixelData, "<u2").copy()
            stored[1000:2000] |= bit
            dataset.PixelData = stored.tobytes()
            read = read_slice(as_bytes(dataset))
            assert (read.hounsfield == slice_hu).all()
            assert read.quality == ()

    def test_a_padding_range_that_reaches_tissue_takes_no_tissue_away(self, make_slice, as_bytes, slice_hu) -> None:
        coding = PixelCoding(signed=True, bits_stored=16, intercept=0, padding=-2000, padding_limit=60)
        read = read_slice(as_bytes(make_slice(coding=coding)))
        inside = slice_hu[20:44, 20:44]
        assert (read.hounsfield[20:44, 20:44] == inside).all()
        assert ((inside > 0) & (inside < 60)).any()
        assert read.hounsfield[0, 0] == -1000
        assert [note.code for note in read.quality] == ["padding_in_tissue"]

    def test_padding_that_tissue_has_too_is_noted(self, make_slice, as_bytes) -> None:
        read = read_slice(as_bytes(make_slice(coding=PixelCoding(padding=1054))))
        assert [note.code for note in read.quality] == ["padding_in_tissue"]
        assert not (read.hounsfield == 30).any()


class TestTwelveBitRepair:
    def test_wrapped_air_is_put_back_and_reported(self, wrapped, as_bytes, slice_hu) -> None:
        read = read_slice(as_bytes(wrapped(slice_hu)))
        assert (read.hounsfield == slice_hu).all()
        assert [note.code for note in read.quality] == ["twelve_bit_repair"]

    def test_a_plausible_slice_of_that_kind_stays_as_it_is(self, make_slice, as_bytes, slice_hu) -> None:
        """Stored values that never go below zero, and metal at 3500 HU: no wrapped air, so no repair."""
        clipped = np.clip(slice_hu, 0, None)
        clipped[30:34, 30:34] = 3500
        read = read_slice(as_bytes(make_slice(coding=PixelCoding(intercept=0), hounsfield=clipped)))
        assert (read.hounsfield == clipped).all()
        assert read.quality == ()

    def test_metal_in_a_repaired_slice_does_not_become_air(self, wrapped, as_bytes, slice_hu) -> None:
        metal = slice_hu.copy()
        metal[28:36, 28:36] = 2600
        metal[30:34, 30:34] = 3600
        read = read_slice(as_bytes(wrapped(metal)))
        assert (read.hounsfield == metal).all()

    def test_air_inside_bone_is_still_put_back(self, wrapped, as_bytes, slice_hu) -> None:
        sinus = slice_hu.copy()
        sinus[28:36, 28:36] = 900
        sinus[29:35, 29:35] = -300
        sinus[30:34, 30:34] = -950
        assert (read_slice(as_bytes(wrapped(sinus))).hounsfield == sinus).all()

    def test_the_usual_files_are_never_touched(self, make_slice, as_bytes, slice_hu) -> None:
        for coding in (PixelCoding(), PixelCoding(signed=True, bits_stored=16), PixelCoding(intercept=-1024, slope=2)):
            assert read_slice(as_bytes(make_slice(coding=coding))).quality == ()

    @pytest.mark.parametrize(
        ("bits", "signed", "slope", "intercept", "expected"),
        [(12, False, 1, 0, True), (12, False, 1, -99, True), (12, False, 1, -100, False), (12, False, 2, 0, False),
         (12, True, 1, 0, False), (16, False, 1, 0, False)],
    )  # fmt: skip
    def test_only_headers_known_to_be_wrong_are_suspected(self, bits, signed, slope, intercept, expected) -> None:
        pixels = PixelFormat(rows=1, columns=1, bits_allocated=16, bits_stored=bits, high_bit=bits - 1, signed=signed)
        assert may_need_twelve_bit_repair(Rescale(slope=slope, intercept=intercept), pixels) is expected

    def test_a_slice_that_is_all_padding_is_not_repaired(self) -> None:
        pixels = PixelFormat(rows=8, columns=8, bits_allocated=16, bits_stored=12, high_bit=11, signed=False)
        rule = HounsfieldRule(transform=Rescale(slope=1, intercept=0), padding=(3096, 3096))
        hounsfield, notes = to_hounsfield(np.full((8, 8), 3096, np.int32), rule, pixels)
        assert (hounsfield == -1000).all()
        assert notes == ()

    @given(st.lists(st.integers(-1000, 1900), min_size=16, max_size=16))
    def test_the_repair_undoes_the_wrap_where_there_is_no_metal(self, values: list[int]) -> None:
        hounsfield = np.array(values).reshape(4, 4)
        assert (repair_twelve_bits(as_stored(hounsfield).astype(np.int32)) == hounsfield).all()

    @given(st.lists(st.integers(0, 4095), min_size=16, max_size=16))
    def test_the_repair_moves_nothing_but_wrapped_values(self, values: list[int]) -> None:
        stored = np.array(values, np.int32).reshape(4, 4)
        moved = repair_twelve_bits(stored) - stored
        assert set(np.unique(moved)) <= {0, -4096}
        assert (moved[stored < 2972] == 0).all()


def test_stored_values_are_not_changed(make_slice, as_bytes) -> None:
    dataset = make_slice(coding=PixelCoding(transfer_syntax=uid.ExplicitVRLittleEndian, padding=0))
    before = bytes(dataset.PixelData)
    read_slice(as_bytes(dataset))
    assert dataset.PixelData == before


class TestRounded:
    @pytest.mark.parametrize("padding", [None, (-2000, -2000), (0, 0), (63536, 63536), (100, 200)])
    @pytest.mark.parametrize("intercept", [-1024.0, 3.0, -8192.0, 31000.0, -40000.0, -1024.5])
    @pytest.mark.parametrize(("bits", "signed"), [(12, False), (12, True), (15, False), (16, False), (16, True)])
    @pytest.mark.parametrize("used", [0, 1, 2], ids=["positive", "stored bits", "all bits"])
    def test_is_what_rounding_gives(self, padding, intercept: float, bits: int, signed: bool, used: int) -> None:
        most = (1 << (bits - signed), 1 << bits, 1 << 16)[used]
        words = np.random.default_rng(0).integers(0, most, (24, 24)).astype(np.uint16)
        if padding is not None:
            words[:3] = np.uint16(padding[0] & 0xFFFF)
        pixels = PixelFormat(rows=24, columns=24, bits_allocated=16, bits_stored=bits, high_bit=bits - 1, signed=signed)
        for slope in (1.0, -1.0):
            transform = Rescale(slope=slope, intercept=intercept)
            rule = HounsfieldRule(transform=transform, padding=padding, modified=True)
            hounsfield, notes = to_hounsfield(words, rule, pixels)
            found, noted = to_rounded(words, rule, pixels)
            np.testing.assert_array_equal(found, rounded(hounsfield))
            assert found.dtype == np.int16
            assert noted == notes
