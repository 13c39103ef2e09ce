"""Plausible Hounsfield units: every kind of wrong value is refused, and good heads of every shape are not."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hemoscope.dicom.plausibility import check_plausible, implausible_values, unlike_a_head
from hemoscope.dicom.texture import strange_slices
from hemoscope.errors import DicomReadError
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

Change = Callable[[np.ndarray], np.ndarray]


def volume_of(values: np.ndarray, spacing_mm: tuple = (5.0, 1.8, 1.8)) -> HounsfieldVolume:
    hounsfield = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    places = tuple(5.0 * index for index in range(len(hounsfield)))
    return HounsfieldVolume(hounsfield=hounsfield, spacing_mm=spacing_mm, positions_mm=places, orientation=None)


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    return [make_phantom(seed=seed, shape=(24, 128, 128)).hounsfield.astype(np.int32) for seed in range(3)]


def window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    return np.clip((values - center + width / 2) / width, 0, 1) * 255


WRONG: dict[str, tuple[Change, str]] = {
    "offset_1024": (lambda v: v + 1024, r"offset of \+1000"),
    "offset_1024_in_12_bits": (lambda v: np.clip(v + 1024, 0, 4095), r"offset of \+1000"),
    "offset_2048": (lambda v: v + 2048, r"offset of \+2000"),
    "offset_minus_1024": (lambda v: v - 1024, "offset of about -1024"),
    "signed_as_unsigned": (lambda v: v % 65536, "signed values read as unsigned"),
    "signed_as_unsigned_in_12_bits": (lambda v: v % 4096, "signed values read as unsigned"),
    "unsigned_as_signed": (lambda v: v - 31744, "signed values read as unsigned"),
    "dense_bone_as_signed_in_12_bits": (lambda v: (v + 1024 + 2048) % 4096 - 2048 - 1024, "dense bone read as signed"),
    "swapped_bytes": (lambda v: v.astype(np.int16).byteswap(), "swapped bytes"),
    "brain_window": (lambda v: window(v, 40, 80), "picture of a display window"),
    "brain_window_in_hu": (lambda v: np.clip(v, 0, 80), "picture of a display window"),
    "bone_window": (lambda v: window(v, 600, 2800), "8-bit picture|soft tissue"),
    "inverted": (lambda v: -v, "more than bone"),
    "scaled_by_2": (lambda v: v * 2, "scale is wrong"),
    "scaled_by_half": (lambda v: v / 2, "scale is wrong"),
    "noise": (lambda v: np.random.default_rng(0).normal(0, 300, v.shape), "noise"),
}


class TestWrongValues:
    @pytest.mark.parametrize("kind", WRONG)
    def test_a_series_of_wrong_values_is_refused_with_what_is_wrong(self, heads: list[np.ndarray], kind: str) -> None:
        change, reason = WRONG[kind]
        for head in heads:
            assert re.search(reason, implausible_values(volume_of(change(head))) or "")

    @pytest.mark.parametrize("kind", WRONG)
    def test_so_is_one_slice_from_the_middle(self, heads: list[np.ndarray], kind: str) -> None:
        change, _ = WRONG[kind]
        for head in heads:
            assert implausible_values(volume_of(change(head[12:13]))) is not None


class TestGoodValues:
    def test_a_head_and_each_of_its_slices_are_plausible(self, heads: list[np.ndarray]) -> None:
        for head in heads:
            assert implausible_values(volume_of(head)) is None
            assert unlike_a_head(volume_of(head)) is None
            assert [implausible_values(volume_of(one[None])) for one in head] == [None] * len(head)

    def test_a_head_is_plausible_however_it_was_cut_and_prepared(self, heads: list[np.ndarray]) -> None:
        head = heads[0]
        body = head > -300
        rows, columns = np.flatnonzero(body.any((0, 2))), np.flatnonzero(body.any((0, 1)))
        defaced = head.copy()
        defaced[:12, : rows[0] + 20] = 0
        y, x = np.ogrid[:128, :128]
        variants = {
            "cropped": head[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1],
            "inside the skull": head[12:13, 50:80, 50:80],
            "defaced": defaced,
            "noisy": head + np.random.default_rng(1).normal(0, 60, head.shape),
            "padded": np.where(np.hypot(y - 64, x - 64) > 64, -2000, head),
            "rotated": head[:, ::-1, ::-1],
        }
        assert {name: implausible_values(volume_of(values)) for name, values in variants.items()} == dict.fromkeys(
            variants
        )

    def test_padding_that_the_header_does_not_declare_is_no_offset(self, heads: list[np.ndarray]) -> None:
        vertex = np.where(heads[0][:1] > -900, -1000, heads[0][:1])
        vertex[:, :40] = -2048
        vertex[:, 60:66, 60:66] = 40
        assert implausible_values(volume_of(vertex)) is None

    def test_units_that_the_file_does_not_call_hounsfield_need_air(self, heads: list[np.ndarray]) -> None:
        stripped = np.where(heads[0] > 150, 0, np.maximum(heads[0], 0))
        stripped = np.where(stripped == 0, np.random.default_rng(0).integers(0, 20, stripped.shape), stripped)
        assert implausible_values(volume_of(heads[0]), declared=False) is None
        assert implausible_values(volume_of(stripped[12:13]), declared=True) is None
        assert "other units" in (implausible_values(volume_of(stripped[12:13]), declared=False) or "")


class TestOtherObjects:
    @staticmethod
    def cylinder(radius_mm: float, value: float) -> np.ndarray:
        y, x = np.mgrid[:128, :128] * 3.0 - 192.0
        disc = np.where(np.hypot(x, y) < radius_mm, value, -1000.0)
        return np.repeat(disc[None], 24, axis=0) + np.random.default_rng(0).normal(0, 8, (24, 128, 128))

    def test_a_cylinder_of_tissue_and_a_wide_body_carry_a_note(self) -> None:
        small = unlike_a_head(volume_of(self.cylinder(90.0, 40.0), (5.0, 3.0, 3.0)))
        assert small is not None
        assert "no skull" in small
        assert "mm" not in small
        wide = unlike_a_head(volume_of(self.cylinder(170.0, 40.0), (5.0, 3.0, 3.0)))
        assert wide is not None
        assert "336 mm" in wide or "339 mm" in wide

    @pytest.mark.parametrize("slices", [1, 24])
    def test_blank_images_carry_a_note_however_few_they_are(self, slices: int) -> None:
        for value in (0, -1000, 40):
            blank = volume_of(np.full((slices, 64, 64), value))
            assert implausible_values(blank) is None
            assert "blank" in (unlike_a_head(blank) or "")

    def test_a_cylinder_of_water_has_no_soft_tissue_of_a_brain(self) -> None:
        assert implausible_values(volume_of(self.cylinder(90.0, 0.0))) is not None

    def test_a_few_slices_may_lie_above_the_skull(self) -> None:
        assert unlike_a_head(volume_of(self.cylinder(60.0, 40.0)[:3])) is None


class TestSeries:
    def test_wrong_values_refuse_the_series_and_another_object_is_noted(self, heads, make_header) -> None:
        headers = [make_header()]
        assert check_plausible(volume_of(heads[0]), headers) == ()
        with pytest.raises(DicomReadError, match=r"series 1\.2\.3: .*offset.* check Rescale Intercept") as caught:
            check_plausible(volume_of(heads[0] + 1024), headers)
        assert caught.value.code == "implausible_hounsfield"
        (note,) = check_plausible(volume_of(TestOtherObjects.cylinder(90.0, 40.0)), headers)
        assert note.code == "unlike_head"

    @pytest.mark.parametrize("offset", [1024, 1000, -1024])
    @pytest.mark.parametrize("wrong", [slice(0, 12), slice(10, 11)])
    def test_so_do_some_slices_with_another_offset(self, heads, make_header, offset: int, wrong: slice) -> None:
        mixed = heads[0].copy()
        mixed[wrong] += offset
        with pytest.raises(DicomReadError, match=r"offset"):
            check_plausible(volume_of(mixed), [make_header()])

    def test_so_do_some_slices_of_another_kind(self, heads, make_header) -> None:
        mixed = heads[0].copy()
        mixed[3:8] = window(mixed[3:8], 40, 80)
        with pytest.raises(DicomReadError, match=r"slice 4 of 24: .*display window"):
            check_plausible(volume_of(mixed), [make_header()])
        mixed[3:8] = 0
        (note,) = check_plausible(volume_of(mixed), [make_header()])
        assert note.message == "5 of 24 slices are blank"

    @pytest.mark.parametrize("spacing", [(5.0, 0.9, 1.8), (5.0, None, None)])
    def test_a_head_much_wider_than_long_is_noted(self, heads, make_header, spacing: tuple) -> None:
        stretched = np.repeat(heads[0], 2, axis=2)
        assert check_plausible(volume_of(stretched, (5.0, 1.8, 0.9)), [make_header()]) == ()
        (note,) = check_plausible(volume_of(stretched, spacing), [make_header()])
        assert (note.code, "times as wide as long" in note.message) == ("unlike_head", True)

    def test_a_removed_face_makes_no_broad_head_too_wide(self, heads, make_header) -> None:
        defaced = heads[0].copy()
        defaced[:13, :60] = -1000
        assert check_plausible(volume_of(defaced, (5.0, 1.8, 2.16)), [make_header()]) == ()

    def test_a_head_much_longer_than_wide_is_noted(self, heads, make_header) -> None:
        stretched = np.repeat(heads[0], 2, axis=1)
        assert check_plausible(volume_of(stretched, (5.0, 0.9, 2.4)), [make_header()]) == ()
        (note,) = check_plausible(volume_of(stretched, (5.0, 1.8, 2.4)), [make_header()])
        assert (note.code, "times as wide as long" in note.message) == ("unlike_head", True)

    def test_the_volume_is_left_as_it_was(self, heads, make_header) -> None:
        volume = volume_of(heads[0])
        before = volume.hounsfield.copy()
        check_plausible(volume, [make_header()])
        assert (volume.hounsfield == before).all()


class TestPages:
    @pytest.mark.parametrize("gray", [1020, 200])
    def test_a_page_of_text_that_calls_itself_a_slice_is_refused(self, gray: int) -> None:
        drawing = Image.new("L", (512, 512))
        draw = ImageDraw.Draw(drawing)
        for line in range(30):
            draw.text((20, 16 * line + 10), f"{line}. DLP 812.4 mGy cm  CTDIvol 55.10  120 kV  head 5.0 H31s", fill=255)
        values = np.asarray(drawing, dtype=np.int32) * (gray + 1000) // 255 - 1000
        assert "text" in (implausible_values(volume_of(values[None])) or "")

    def test_the_holder_above_the_head_is_no_text(self) -> None:
        y, x = np.mgrid[:512, :512] - 256.0
        shell = (np.abs(np.hypot(x, y) - 200) < 2) & (y > 0)
        holder = np.where(shell, 200, -1000)[None]
        assert strange_slices(volume_of(np.repeat(holder, 3, axis=0))) == {}

    def test_nothing_but_air_is_noted(self) -> None:
        air = np.random.default_rng(0).normal(-1000, 10, (1, 64, 64))
        assert "nothing but air" in (unlike_a_head(volume_of(air)) or "")


class TestMetal:
    def test_dense_pixels_in_the_head_are_noted_those_of_the_holder_are_not(self, heads, make_header) -> None:
        clip = heads[0].copy()
        clip[10:12, 60:64, 60:64] = 3071
        holder = heads[0].copy()
        holder[10:12, 120:126, 60:64] = 3071
        speck = heads[0].copy()
        speck[10, 60, 60:63] = 3071
        (note,) = check_plausible(volume_of(clip), [make_header()])
        assert (note.code, note.message[:24]) == ("metal", "metal in 2 of 24 slices:")
        assert check_plausible(volume_of(holder), [make_header()]) == ()
        assert check_plausible(volume_of(speck), [make_header()]) == ()
