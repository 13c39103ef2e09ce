"""One head stored in eight ways (four rotations, mirrored or not) has one answer, laid back on the stored pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from hemoscope.dicom.archive import open_archive, read_series
from hemoscope.dicom.series_choice import choose_series
from hemoscope.inference.inputs import load_model
from hemoscope.inference.predictor import Predictor
from hemoscope.inference.preprocess import Box, Preprocessing, box_on_slice, model_input, slice_box, square_pixels
from hemoscope.inference.study_reading import StudyReading
from hemoscope.labels import Hemorrhage
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom
from hemoscope.volume import AxisChange, HounsfieldVolume

STORINGS = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
HEAD = make_phantom(seed=4, shape=(8, 96, 96), bleeds=frozenset({Hemorrhage.EPIDURAL})).volume
# No symmetry: the head is off centre, and rows and columns differ in number.
HEAD = replace(
    HEAD,
    hounsfield=np.pad(HEAD.hounsfield, ((0, 0), (0, 8), (20, 0)), constant_values=-1000),
)


def stored_as(volume: HounsfieldVolume, turns: int, *, mirrored: bool) -> HounsfieldVolume:
    """The volume as another program would store it: turned by quarters, then mirrored, each with its own header."""
    pixels, spacing = np.asarray(volume.hounsfield), list(volume.spacing_mm)
    row, column = np.array(volume.orientation).reshape(2, 3)
    origins = np.array(volume.origins_mm)
    for _ in range(turns):  # counter-clockwise: the last column becomes the first row
        origins = origins + (pixels.shape[2] - 1) * spacing[2] * row
        pixels, spacing = np.rot90(pixels, axes=(1, 2)), [spacing[0], spacing[2], spacing[1]]
        row, column = column, -row
    if mirrored:
        origins = origins + (pixels.shape[2] - 1) * spacing[2] * row
        pixels, row = pixels[:, :, ::-1], -row
    return HounsfieldVolume(
        hounsfield=np.ascontiguousarray(pixels),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        positions_mm=volume.positions_mm,
        orientation=(*row.tolist(), *column.tolist()),
        origins_mm=tuple((x, y, z) for x, y, z in origins.tolist()),
    )


def as_stored(values: NDArray[np.float32], turns: int, *, mirrored: bool) -> NDArray[np.float32]:
    turned = np.rot90(values, turns, axes=(-2, -1))
    return turned[..., ::-1] if mirrored else turned


def assert_same(reading: StudyReading, expected: StudyReading) -> None:
    np.testing.assert_allclose(
        reading.probabilities.slice_probabilities, expected.probabilities.slice_probabilities, rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        reading.probabilities.study_probabilities, expected.probabilities.study_probabilities, rtol=0, atol=1e-6
    )
    assert reading.findings.triage is expected.findings.triage


@pytest.fixture(scope="module")
def expected(predictor: Predictor) -> StudyReading:
    return predictor.read(HEAD, maps=True)


@pytest.mark.parametrize(("turns", "mirrored"), STORINGS)
def test_every_storing_has_one_answer_and_its_maps_lie_on_its_own_pixels(
    predictor: Predictor, expected: StudyReading, turns: int, mirrored: bool
) -> None:
    reading = predictor.read(stored_as(HEAD, turns, mirrored=mirrored), maps=True)
    assert_same(reading, expected)
    for index in (0, 4):
        heat = reading.heat_map("epidural", index)
        assert heat.shape == reading.volume.hounsfield.shape[1:]
        laid = as_stored(expected.heat_map("epidural", index), turns, mirrored=mirrored)
        np.testing.assert_allclose(heat, laid, atol=1e-5)


@pytest.mark.parametrize(("turns", "mirrored"), STORINGS)
def test_the_canonical_volume_is_the_radiological_convention(turns: int, mirrored: bool) -> None:
    canonical = stored_as(HEAD, turns, mirrored=mirrored).canonical
    assert np.array_equal(canonical.hounsfield, HEAD.hounsfield)
    assert canonical.orientation == HEAD.orientation
    assert canonical.spacing_mm == HEAD.spacing_mm
    np.testing.assert_allclose(np.array(canonical.origins_mm), np.array(HEAD.origins_mm), atol=1e-9)
    np.testing.assert_allclose(canonical.affine, HEAD.affine, atol=1e-9)


def test_the_convention_itself_and_unknown_orientations_are_the_same_object() -> None:
    assert HEAD.canonical is HEAD
    unknown = replace(HEAD, orientation=None, origins_mm=None)
    assert unknown.canonical is unknown


def test_slices_that_are_not_axial_stay_as_they_are() -> None:
    coronal = replace(HEAD, orientation=(-1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    assert coronal.canonical is coronal


@pytest.mark.parametrize("degrees", [-44, -10, 3, 44])
def test_a_head_turned_by_less_than_45_degrees_stays_as_it_is(degrees: float) -> None:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    assert AxisChange.of((c, s, 0.0, -s, c, 0.0)) == AxisChange()


def test_a_tilted_prone_head_is_turned_round() -> None:
    tilted = (-1.0, 0.0, 0.0, 0.0, -float(np.cos(0.3)), float(np.sin(0.3)))
    assert AxisChange.of(tilted) == AxisChange(rows_flipped=True, columns_flipped=True)


class TestSquarePixels:
    settings = Preprocessing(size=64)

    @staticmethod
    def doubled(axis: int) -> HounsfieldVolume:
        spacing = [*HEAD.spacing_mm]
        spacing[axis] = (spacing[axis] or 0.0) / 2
        return replace(
            HEAD, hounsfield=np.repeat(HEAD.hounsfield, 2, axis=axis), spacing_mm=(spacing[0], spacing[1], spacing[2])
        )

    @pytest.mark.parametrize("axis", [1, 2])
    def test_doubled_rows_or_columns_with_their_spacing_leave_the_input_as_it_is(self, axis: int) -> None:
        plain, long = (model_input(volume, 4, self.settings) for volume in (HEAD, self.doubled(axis)))
        ignored = model_input(replace(self.doubled(axis), spacing_mm=HEAD.spacing_mm), 4, self.settings)
        assert np.abs(plain - long).max() < 1e-6
        assert np.abs(plain - ignored).mean() > 0.1

    @pytest.mark.parametrize("axis", [1, 2])
    def test_the_box_covers_the_same_part_of_the_head(self, axis: int) -> None:
        plain = box_on_slice(HEAD, 4, self.settings)
        long = box_on_slice(self.doubled(axis), 4, self.settings)
        height, width = (2, 1) if axis == 1 else (1, 2)
        found = np.array([long.top / height, long.left / width, long.side / height, long.columns / width])
        np.testing.assert_allclose(found, [plain.top, plain.left, plain.side, plain.side], atol=1)

    def test_square_pixels_are_not_touched(self) -> None:
        for spacing in ((5.0, 0.488281, 0.48828), (5.0, 0.5, 0.5), (None, None, None)):
            volume = replace(HEAD, spacing_mm=spacing)
            bare = replace(HEAD, spacing_mm=(spacing[0], None, None))
            assert np.array_equal(model_input(volume, 4, self.settings), model_input(bare, 4, self.settings))
            assert box_on_slice(volume, 4, self.settings) == slice_box(volume, 4, self.settings)

    def test_the_aspect_ratio_counts_where_the_spacing_is_unknown(self) -> None:
        long = self.doubled(2)
        unknown = replace(long, spacing_mm=(5.0, None, None), aspect_ratio=2.0)
        assert np.array_equal(model_input(unknown, 4, self.settings), model_input(long, 4, self.settings))

    def test_an_absurd_aspect_ratio_is_no_error(self) -> None:
        volume = replace(HEAD, spacing_mm=(5.0, 900.0, 0.001))
        assert model_input(volume, 4, self.settings).shape == (3, 64, 64)

    def test_pixels_of_any_shape_are_averaged_by_area(self) -> None:
        volume = replace(HEAD, spacing_mm=(5.0, 0.75, 0.5))
        square = square_pixels(volume.hounsfield[4], volume)
        rows, columns = volume.hounsfield.shape[1:]
        assert square.shape == (rows, round(columns / 1.5))
        assert square.mean() == pytest.approx(float(volume.hounsfield[4].mean()), abs=2)

    def test_heat_of_long_pixels_lies_on_them(self, predictor: Predictor) -> None:
        plain, long = (predictor.read(volume, maps=True) for volume in (HEAD, self.doubled(2)))
        heat = long.heat_map("any", 4)
        assert heat.shape == long.volume.hounsfield.shape[1:]
        assert np.abs(heat[:, ::2] - plain.heat_map("any", 4)).mean() < 0.02

    def test_a_box_without_width_is_a_square(self) -> None:
        assert (Box(top=0, left=0, side=5).columns, Box(top=0, left=0, side=5, width=9).columns) == (5, 9)


def test_united_stacks_are_scored_from_their_own_pixels(predictor: Predictor, tmp_path: Path) -> None:
    head = make_phantom(seed=6, shape=(28, 96, 96), spacing_mm=(5.0, 2.4, 2.4), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    low, high = np.repeat(np.repeat(head.hounsfield[:12], 2, axis=1), 2, axis=2), head.hounsfield[12:]
    write_series(high, tmp_path / "a", spacing_mm=(5.0, 2.4, 2.4), acquisition=Acquisition(origin_mm=(-114, -114, 60)))
    write_series(
        low, tmp_path / "b", spacing_mm=(5.0, 1.2, 1.2), acquisition=Acquisition(origin_mm=(-114.6, -114.6, 0))
    )
    for index, path in enumerate(sorted((tmp_path / "b").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{index + 1}"
        dataset.save_as(path)
    parts = [predictor.predict(open_archive(tmp_path / name)).studies[0].probabilities for name in "ba"]
    (united,) = predictor.predict(open_archive(tmp_path), maps=True).studies
    assert united.findings.complete
    assert [note.code for note in united.findings.quality] == ["united_stacks", "mixed_pixel_spacing"]
    expected = np.concatenate([part.slice_logits for part in parts])
    np.testing.assert_array_equal(united.probabilities.slice_logits, expected)
    assert united.heat_map("any", 3).shape == united.volume.hounsfield.shape[1:] == (96, 96)


@pytest.mark.shared_data
@pytest.mark.slow
def test_a_real_series_has_one_answer_in_every_storing(shared_data_dir: Path) -> None:
    folder = shared_data_dir / "cq500-series"
    if not folder.is_dir():
        pytest.skip("no cq500-series folder in the shared data")
    archive = open_archive(folder)
    volume = read_series(archive, choose_series(archive.studies[0]).series).volume
    middle = len(volume) // 2
    part = replace(
        volume,
        hounsfield=volume.hounsfield[middle - 3 : middle + 3],
        positions_mm=volume.positions_mm[middle - 3 : middle + 3],
        origins_mm=None if volume.origins_mm is None else volume.origins_mm[middle - 3 : middle + 3],
        thickness_mm=None,
    )
    model = load_model(threads=1)
    expected = model.read(part)
    for turns, mirrored in STORINGS:
        assert_same(model.read(stored_as(part, turns, mirrored=mirrored)), expected)
