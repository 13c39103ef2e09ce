"""NIfTI in and out: every orientation gives the same axial volume; what is no head CT is refused and says why."""

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from hemoscope import nifti
from hemoscope.errors import HemoscopeError, MissingExtraError, NiftiError
from hemoscope.nifti import read_nifti, write_nifti
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import HounsfieldVolume

SHAPE = (9, 48, 40)
ORIENTATIONS = ["LPS", "RAS", "LAS", "RPS", "LPI", "RAI", "SLP", "PSR", "AIL"]


@pytest.fixture(scope="module")
def head() -> HounsfieldVolume:
    """A head of fewer columns than rows, so that no two axes can change places unseen."""
    return make_phantom(seed=4, shape=SHAPE, spacing_mm=(5.0, 4.0, 4.2), marker=True).volume


@pytest.fixture
def save(head: HounsfieldVolume, tmp_path: Path) -> Callable[..., Path]:
    """``save(values=..., affine=...)``: the head as NIfTI by nibabel alone, with what is given replaced."""

    def build(
        *,
        values: np.ndarray | None = None,
        affine: np.ndarray | None = None,
        to: str = "LPS",
        name: str = "head.nii.gz",
        change: Callable[[Any], object] = lambda image: None,
    ) -> Path:
        image = nib.Nifti1Image(
            head.hounsfield.T if values is None else values, head.affine if affine is None else affine
        )
        image.header.set_xyzt_units("mm")
        current = nib.orientations.io_orientation(image.affine)
        image = image.as_reoriented(nib.orientations.ornt_transform(current, nib.orientations.axcodes2ornt(to)))
        change(image)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return build


def assert_same(found: HounsfieldVolume, head: HounsfieldVolume) -> None:
    np.testing.assert_array_equal(found.hounsfield, head.hounsfield)
    np.testing.assert_allclose(found.affine, head.affine, atol=1e-4)
    np.testing.assert_allclose(found.positions_mm, head.positions_mm, atol=1e-4)
    np.testing.assert_allclose(found.orientation, head.orientation, atol=1e-6)
    np.testing.assert_allclose(found.spacing_mm, head.spacing_mm, atol=1e-4)


@pytest.mark.parametrize("to", ORIENTATIONS)
def test_any_orientation_becomes_the_same_axial_volume(
    save: Callable[..., Path], head: HounsfieldVolume, to: str
) -> None:
    path = save(to=to)
    assert "".join(nib.aff2axcodes(nib.load(path).affine)) == to
    assert_same(read_nifti(path), head)


@pytest.mark.parametrize("name", ["head.nii", "head.nii.gz", "HEAD.NII"])
def test_a_volume_comes_back_from_its_own_file(head: HounsfieldVolume, tmp_path: Path, name: str) -> None:
    write_nifti(tmp_path / name, head.hounsfield, head.affine, note="made")
    assert_same(read_nifti(str(tmp_path / name)), head)
    image = nib.load(tmp_path / name)
    assert bytes(image.header["descrip"]).startswith(b"made")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)


def test_the_same_volume_gives_the_same_bytes(head: HounsfieldVolume, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, head.hounsfield, head.affine)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_scaled_floats_of_another_unit_are_hounsfield_units_in_mm(head: HounsfieldVolume, tmp_path: Path) -> None:
    metres = head.affine.copy()
    metres[:3] /= 1000.0
    image = nib.Nifti1Image(((head.hounsfield.T + 1024) / 2).astype(np.float32), metres)
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(2.0, -1024.0)
    nib.save(image, tmp_path / "m.nii")
    assert_same(read_nifti(tmp_path / "m.nii"), head)


def test_the_qform_counts_where_there_is_no_sform(save: Callable[..., Path], head: HounsfieldVolume) -> None:
    def only_qform(image: Any) -> None:
        image.set_qform(image.affine, code=1)
        image.set_sform(None, code=0)

    assert_same(read_nifti(save(to="RAS", change=only_qform)), head)


def test_a_fourth_axis_of_one_is_no_axis(save: Callable[..., Path], head: HounsfieldVolume, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(head.hounsfield.T[..., None], head.affine), tmp_path / "four.nii")
    assert_same(read_nifti(tmp_path / "four.nii"), head)


def test_a_sheared_affine_is_a_gantry_tilt(save: Callable[..., Path], head: HounsfieldVolume) -> None:
    affine = head.affine.copy()
    affine[1:3, 1] = [-4.0 * np.cos(0.2), -4.0 * np.sin(0.2)]
    found = read_nifti(save(affine=affine))
    np.testing.assert_array_equal(found.hounsfield, head.hounsfield)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    assert found.slice_spacing_mm == pytest.approx(5.0 * np.cos(0.2), abs=1e-4)


def test_padding_is_air(save: Callable[..., Path], head: HounsfieldVolume) -> None:
    values = head.hounsfield.T.copy()
    values[:2] = -3024
    found = read_nifti(save(values=values))
    assert (found.hounsfield[:, :, :2] == -1000).all()
    assert found.hounsfield.min() > -1500


def test_one_slice_has_a_place_and_no_spacing(save: Callable[..., Path], head: HounsfieldVolume) -> None:
    found = read_nifti(save(values=head.hounsfield.T[:, :, 4:5]))
    assert (len(found), found.slice_spacing_mm) == (1, None)
    assert found.positions_mm[0] == pytest.approx(head.positions_mm[0], abs=1e-4)


class TestRefusals:
    def refused(self, path: Path, **options: int) -> str:
        with pytest.raises(NiftiError) as caught:
            read_nifti(path, **options)
        message = str(caught.value)
        assert message.startswith(f"{path.name}: ")
        assert str(path.parent) not in message
        return message

    def test_a_series_in_time(self, head: HounsfieldVolume, tmp_path: Path) -> None:
        nib.save(nib.Nifti1Image(np.stack([head.hounsfield.T] * 2, axis=3), head.affine), tmp_path / "t.nii")
        assert "expected one volume of three axes" in self.refused(tmp_path / "t.nii")

    def test_colours(self, head: HounsfieldVolume, tmp_path: Path) -> None:
        rgb = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(rgb, head.affine), tmp_path / "rgb.nii")
        assert "expected one number a voxel" in self.refused(tmp_path / "rgb.nii")

    @pytest.mark.parametrize(
        "change",
        [
            lambda hu: (hu.clip(-1000, 1000) + 1000) / 2000,
            lambda hu: hu.clip(0, 80),
            lambda hu: hu + 1024,
            lambda hu: hu.clip(-1000, 100),
        ],
        ids=["normalised", "windowed", "no_offset", "no_bone"],
    )
    def test_values_that_are_no_hounsfield_units(
        self, save: Callable[..., Path], head: HounsfieldVolume, change: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        path = save(values=change(head.hounsfield.T).astype(np.float32))
        assert "Hounsfield units" in self.refused(path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
    def test_values_that_are_not_finite(self, save: Callable[..., Path], head: HounsfieldVolume, value: float) -> None:
        values = head.hounsfield.T.astype(np.float64)
        values[0, 0, 0] = value * 1e300
        assert "not finite" in self.refused(save(values=values))

    def test_a_file_without_orientation(self, save: Callable[..., Path]) -> None:
        def forget(image: Any) -> None:
            image.set_sform(None, code=0)
            image.set_qform(None, code=0)

        assert "which side is left" in self.refused(save(change=forget))

    def test_forms_that_contradict_each_other(self, save: Callable[..., Path], head: HounsfieldVolume) -> None:
        mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ head.affine
        message = self.refused(save(change=lambda image: image.set_qform(mirrored, code=1)))
        assert "contradict each other (LPS and RPS)" in message

    def test_a_qform_that_is_no_rotation(self, save: Callable[..., Path]) -> None:
        def damage(image: Any) -> None:
            image.set_qform(image.affine, code=1)
            image.header["quatern_b"] = 1e23

        assert "its qform is no rotation" in self.refused(save(change=damage))

    def test_an_affine_that_places_nothing(self, save: Callable[..., Path], head: HounsfieldVolume) -> None:
        def flatten(image: Any) -> None:
            image.header["srow_z"] = 0.0
            image.header["sform_code"], image.header["qform_code"] = 1, 0
            image._affine = image.header.get_sform()

        assert "singular" in self.refused(save(change=flatten))

    def test_slices_that_were_not_axial(self, save: Callable[..., Path]) -> None:
        coronal = np.diag([-0.5, -5.0, 0.5, 1.0])
        assert "its slices were not axial" in self.refused(save(affine=coronal))

    def test_rows_that_lean_on_columns(self, save: Callable[..., Path], head: HounsfieldVolume) -> None:
        leaning = head.affine.copy()
        leaning[0, 1] = 0.5
        assert "not at right angles" in self.refused(save(affine=leaning))

    def test_pixels_of_the_wrong_unit(self, save: Callable[..., Path], head: HounsfieldVolume) -> None:
        tiny = head.affine @ np.diag([0.001, 0.001, 0.001, 1.0])
        assert "Correct the unit" in self.refused(save(affine=tiny))

    def test_more_voxels_than_the_limit(self, save: Callable[..., Path]) -> None:
        assert "the limit max_voxels is 100" in self.refused(save(), max_voxels=100)

    def test_a_header_that_promises_more_than_memory_holds(self, save: Callable[..., Path], tmp_path: Path) -> None:
        content = bytearray(save(name="head.nii").read_bytes())
        content[42:48] = np.array([30000, 30000, 30000], dtype="<i2").tobytes()
        (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(content)))
        assert "the limit max_voxels" in self.refused(tmp_path / "bomb.nii.gz")

    @pytest.mark.parametrize("name", ["head.nii", "head.nii.gz"])
    def test_a_truncated_file(self, save: Callable[..., Path], name: str) -> None:
        path = save(name=name)
        path.write_bytes(path.read_bytes()[:-200])
        assert "cannot be read" in self.refused(path)

    @pytest.mark.parametrize("name", ["no.nii", "no.nii.gz"])
    def test_something_else_under_the_name(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"no NIfTI file at all" * 40)
        assert "no readable NIfTI file" in self.refused(tmp_path / name)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert "no such file" in self.refused(tmp_path / "none.nii")

    def test_another_suffix(self, tmp_path: Path, head: HounsfieldVolume) -> None:
        assert "not named" in self.refused(tmp_path / "head.img")
        with pytest.raises(NiftiError, match="not named"):
            write_nifti(tmp_path / "head.img", head.hounsfield, head.affine)

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, head: HounsfieldVolume) -> None:
        with pytest.raises(NiftiError, match="cannot be written"):
            write_nifti(tmp_path / "none" / "head.nii", head.hounsfield, head.affine)

    def test_without_nibabel_the_extra_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: HounsfieldVolume
    ) -> None:
        monkeypatch.setattr(nifti, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"pip install 'hemoscope\[nifti\]'"):
            read_nifti(tmp_path / "head.nii")
        with pytest.raises(MissingExtraError, match="nibabel is not installed"):
            write_nifti(tmp_path / "head.nii", head.hounsfield, head.affine)


def test_damaged_files_end_in_a_volume_or_a_refusal(save: Callable[..., Path], tmp_path: Path) -> None:
    whole = save(name="head.nii").read_bytes()
    random_bytes = random.Random(7)
    for _ in range(int(os.environ.get("HEMOSCOPE_FUZZ_NIFTI", "300"))):
        content = bytearray(whole)
        for _place in range(random_bytes.randint(1, 4)):
            content[random_bytes.randrange(352)] = random_bytes.randrange(256)
        path = tmp_path / "damaged.nii"
        path.write_bytes(content)
        try:
            read_nifti(path, max_voxels=1 << 20)
        except HemoscopeError:
            continue
