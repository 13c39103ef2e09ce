"""Stacks of one head that lie apart are read as one; where they overlap, the better one is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemoscope.dicom.archive import DecodedSeries, open_archive, read_series
from hemoscope.dicom.grids import on_grid, origin_on_grid, reference_slice
from hemoscope.dicom.series import Series, build_series, build_stacks, build_studies
from hemoscope.dicom.series_choice import choose_series
from hemoscope.dicom.slices import SliceHeader
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

Make = Callable[..., SliceHeader]
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def tilted(degrees: float) -> tuple[float, ...]:
    angle = np.deg2rad(degrees)
    return (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), -float(np.sin(angle)))


def stack(make: Make, heights: np.ndarray, **changes: object) -> list[SliceHeader]:
    name = changes.pop("name", "s")
    return [
        make(float(z), **{"sop_instance_uid": f"1.{name}.{index}", "source": f"{name}{index:03d}", **changes})
        for index, z in enumerate(heights)
    ]


def codes(series: Series) -> set[str]:
    return {note.code for note in series.quality}


def names(series: Series) -> set[str]:
    return {header.source[0] for header in series.headers}


class TestUniting:
    def test_two_tilts_below_each_other_are_one(self, make_header: Make) -> None:
        lower_by = 63 / 2 * 0.5 * float(np.sin(np.deg2rad(15)))  # the centre lies below the first pixel
        low = stack(make_header, lower_by + np.arange(0, 60, 5.0), name="l", orientation=tilted(15))
        high = stack(make_header, np.arange(60, 150, 5.0), name="h")
        series = build_series([*high, *low])
        assert len(series) == 30
        assert {"united_stacks", "gantry_tilt"} & codes(series)
        assert "mixed_orientation" not in codes(series)
        assert (series.unread, series.left_out) == ((), ())
        assert [header.source[0] for header in series.headers] == ["l"] * 12 + ["h"] * 18

    def test_two_sizes_are_one(self, make_header: Make) -> None:
        low = stack(make_header, np.arange(0, 60, 5.0), name="l", rows=128, columns=128, pixel_spacing_mm=(0.25, 0.25))
        series = build_series([*low, *stack(make_header, np.arange(60, 150, 5.0), name="h")])
        assert (len(series), series.unread) == (30, ())
        assert "united_stacks" in codes(series)

    def test_thin_below_thick_is_one(self, make_header: Make) -> None:
        thin = stack(make_header, np.arange(0, 50, 1.0), name="t", slice_thickness_mm=1.0)
        thick = stack(make_header, np.arange(52, 150, 5.0), name="k", slice_thickness_mm=5.0)
        series = build_series([*thick, *thin])
        assert len(series) == 70
        assert "missing_slices" not in codes(series)

    def test_where_stacks_overlap_the_better_one_is_read(self, make_header: Make) -> None:
        thin = stack(make_header, np.arange(0, 50, 1.0), name="t", slice_thickness_mm=1.0)
        thick = stack(make_header, np.arange(0, 150, 5.0), name="k", slice_thickness_mm=5.0)
        series = build_series([*thin, *thick])
        assert names(series) == {"k"}
        assert len(series) == 30
        assert "overlapping_stacks" in codes(series)
        assert series.unread == ()

    def test_only_the_part_that_overlaps_is_left_out(self, make_header: Make) -> None:
        best = stack(make_header, np.arange(30, 150, 5.0), name="b")
        other = stack(make_header, np.arange(0, 60, 5.0), name="o", orientation=tilted(8))
        series = build_series([*other, *best])
        assert [header.source[0] for header in series.headers] == ["o"] * 6 + ["b"] * 24
        assert len(series.left_out) == 6

    def test_reformatted_slices_that_state_a_thin_source_overlap_all_the_same(self, make_header: Make) -> None:
        best = stack(make_header, np.arange(0, 150, 5.0), name="b", slice_thickness_mm=0.6)
        other = stack(
            make_header, np.arange(42, 92, 5.0), name="o", slice_thickness_mm=0.6, pixel_spacing_mm=(0.4, 0.4)
        )
        series = build_series([*best, *other])
        assert names(series) == {"b"}

    def test_every_second_slice_of_another_tilt_or_spacing_is_read(self, make_header: Make) -> None:
        one = stack(make_header, np.arange(0, 150, 10.0), name="a")
        other = stack(make_header, np.arange(5, 150, 10.0), name="b", orientation=tilted(0.6))
        assert (len(build_series([*one, *other])), len(build_series(one))) == (30, 15)

    def test_far_from_the_head_is_another_body_part(self, make_header: Make) -> None:
        far = stack(make_header, np.arange(-300, -250, 5.0), name="f", rows=32)
        series = build_series([*far, *stack(make_header, np.arange(0, 150, 5.0))])
        assert len(series) == 30
        assert [(one.code, one.count) for one in series.unread] == [("mixed_size", 10)]

    def test_coronal_slices_are_not_missed(self, make_header: Make) -> None:
        coronal = [
            make_header(0.0, orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0), position_mm=(0.0, y, 0.0), source=f"c{y}",
                        sop_instance_uid=f"1.c.{y}")
            for y in range(40)
        ]  # fmt: skip
        series = build_series([*coronal, *stack(make_header, np.arange(0, 150, 5.0))])
        assert (len(series), series.unread) == (30, ())
        assert "mixed_orientation" in codes(series)

    def test_training_keeps_stacks_apart(self, make_header: Make) -> None:
        low = stack(make_header, np.arange(0, 60, 5.0), name="l", orientation=tilted(15))
        high = stack(make_header, np.arange(60, 150, 5.0), name="h")
        assert [len(one) for one in build_stacks([*low, *high])] == [18, 12]


class TestAcquisitions:
    def test_two_patients_are_two_studies(self, make_header: Make) -> None:
        heights = np.arange(0, 150, 5.0)
        both = [
            *stack(make_header, heights, name="a", patient_id="A"),
            *stack(make_header, heights, name="b", patient_id="B"),
        ]
        studies = build_studies(both)
        assert [len(study.series[0]) for study in studies] == [30, 30]
        assert [names(study.series[0]) for study in studies] == [{"a"}, {"b"}]
        assert all("several_patients" in codes(study.series[0]) for study in studies)

    @pytest.mark.parametrize("patient_id", ["A", None])
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"patient_name": "ANNA MULLER"}, {"patient_name": "BERTA MULLER"}),
            ({"patient_birth_date": "19480101"}, {"patient_birth_date": "19500101"}),
        ],
    )
    def test_so_are_patients_who_share_an_id(self, make_header: Make, patient_id, one, other) -> None:
        heights = np.arange(0, 150, 5.0)
        both = [
            *stack(make_header, heights, name="a", patient_id=patient_id, **one),
            *stack(make_header, heights, name="b", patient_id=patient_id, **other),
        ]
        assert [names(study.series[0]) for study in build_studies(both)] == [{"a"}, {"b"}]

    def test_two_spellings_of_a_name_are_one_patient_if_id_and_birth_date_agree(self, make_header: Make) -> None:
        headers = stack(make_header, np.arange(0, 150, 5.0), patient_id="A", patient_birth_date="19480101")
        named = [replace(one, patient_name="A B" if index % 2 else "A C") for index, one in enumerate(headers)]
        (study,) = build_studies(named)
        assert len(study.series[0]) == 30

    def test_a_missing_patient_id_is_no_other_patient(self, make_header: Make) -> None:
        headers = stack(make_header, np.arange(0, 150, 5.0), patient_id="A")
        (study,) = build_studies([replace(headers[3], patient_id=None), *headers[:3], *headers[4:]])
        assert len(study.series[0]) == 30

    @pytest.mark.parametrize(
        "changes",
        [
            {"frame_of_reference_uid": "1.9"},
            {"convolution_kernel": "H70h"},
            {"image_type": ("DERIVED", "SECONDARY", "MPR")},
        ],
    )
    def test_what_differs_is_another_acquisition(self, make_header: Make, changes: dict[str, object]) -> None:
        first = {"frame_of_reference_uid": "1.1", "image_type": ("ORIGINAL", "PRIMARY", "AXIAL")}
        heights = np.arange(0, 150, 5.0)
        mixed = [
            header
            for pair in zip(
                stack(make_header, heights, name="a", **first),
                stack(make_header, heights, name="b", **{**first, **changes}),
                strict=True,
            )
            for header in pair
        ]
        (study,) = build_studies(mixed)
        assert [len(series) for series in study.series] == [30, 30]
        assert all(len(names(series)) == 1 for series in study.series)

    def test_the_soft_kernel_of_one_series_is_read(self, make_header: Make) -> None:
        heights = np.arange(0, 150, 5.0)
        (study,) = build_studies(
            [
                *stack(make_header, heights, name="b", convolution_kernel="H70h"),
                *stack(make_header, heights, name="s", convolution_kernel="H31s"),
            ]
        )
        choice = choose_series(study, series_instance_uid="1.2.3")
        assert names(choice.series) == {"s"}
        assert choice.skipped == (("1.2.3", "bone kernel", 30),)

    @pytest.mark.parametrize("offset", [1.0, 2.0, 0.0])
    @pytest.mark.parametrize("by", ["number", "time", "run"])
    def test_two_passes_over_one_place_are_not_mixed(self, make_header: Make, offset: float, by: str) -> None:
        heights = np.arange(0, 150, 5.0)
        one: dict[str, object] = {"acquisition": ("1", "100000")}
        two: dict[str, object] = {
            "acquisition": {"number": ("2", "100000"), "time": ("1", "101500"), "run": ("1", "100000")}[by]
        }
        first = [replace(h, instance_number=i + 1) for i, h in enumerate(stack(make_header, heights, name="p", **one))]
        second = [
            replace(h, instance_number=i + 101)
            for i, h in enumerate(stack(make_header, heights + offset, name="q", **two))
        ]
        series = build_series([*second, *first])
        assert names(series) == {"p"}
        assert len(series) == 30
        assert {"overlapping_stacks", "missing_slices"} & codes(series) == {"overlapping_stacks"}

    @pytest.mark.parametrize("step", [5.0, 3.0])
    def test_an_acquisition_number_for_each_slice_is_one_stack(self, make_header: Make, step: float) -> None:
        headers = [
            replace(header, acquisition=(str(index), str(120000 + index)), instance_number=index)
            for index, header in enumerate(stack(make_header, np.arange(40) * step))
        ]
        assert len(build_series(headers)) == 40

    def test_overlapping_slices_of_one_acquisition_are_one_stack(self, make_header: Make) -> None:
        assert len(build_series(stack(make_header, np.arange(0, 150, 2.0), acquisition=("1", "1")))) == 75

    @pytest.mark.parametrize("known", [True, False])
    def test_a_dynamic_series_is_called_so(self, make_header: Make, known: bool) -> None:
        points = [
            stack(make_header, np.arange(0, 150, 5.0), name=str(t), acquisition=(str(t), "") if known else ("", ""))
            for t in range(8)
        ]
        series = build_series([header for point in points for header in point])
        assert len(series) == 30
        assert len(names(series)) == 1
        (note,) = [note for note in series.quality if note.code == "dynamic_series"]
        assert "8 time points at each of 30 places" in note.message
        assert series.unread == ()

    def test_one_uid_at_many_places_is_many_slices(self, make_header: Make) -> None:
        headers = [replace(one, sop_instance_uid="1.5") for one in stack(make_header, np.arange(0, 150, 5.0))]
        series = build_series([*headers, replace(headers[4], source="copy")])
        assert len(series) == 30
        assert codes(series) == {"repeated_uid", "duplicate_slices"}

    @pytest.mark.parametrize("kernel", ["H70h", "H31s"])
    def test_overlapping_slices_without_a_kernel_are_not_mixed_with_others(
        self, make_header: Make, kernel: str
    ) -> None:
        heights = np.arange(0, 150, 5.0)
        known = stack(make_header, heights, name="k", convolution_kernel=kernel)
        unknown = stack(make_header, heights, name="u", convolution_kernel=None)
        mixed = [header for pair in zip(known, unknown, strict=True) for header in pair]
        renamed = [replace(header, sop_instance_uid=f"1.{index * 7 % 61}") for index, header in enumerate(mixed)]
        assert names(build_series(renamed)) == {"u" if kernel == "H70h" else "k"}

    @pytest.mark.parametrize("changes", [{"convolution_kernel": "H40s"}, {"image_type": ("DERIVED", "PRIMARY")}])
    @pytest.mark.parametrize("every_second", [True, False])
    def test_what_lies_between_or_beside_is_one_head(
        self, make_header: Make, changes: dict[str, object], every_second: bool
    ) -> None:
        headers = stack(make_header, np.arange(0, 150, 5.0), image_type=("ORIGINAL", "PRIMARY"))
        chosen = headers[::2] if every_second else headers[:15]
        changed = [replace(header, **changes) if header in chosen else header for header in headers]
        (study,) = build_studies(changed)
        assert [len(series) for series in study.series] == [30]

    def test_passes_whose_time_changes_from_slice_to_slice_are_not_mixed(self, make_header: Make) -> None:
        heights = np.arange(0, 150, 5.0)
        passes = [
            replace(header, instance_number=index % 30, acquisition=("1", f"12{index:04d}"))
            for index, header in enumerate(
                [*stack(make_header, heights, name="a"), *stack(make_header, heights + 2, name="b")]
            )
        ]
        series = build_series(passes)
        assert (len(series), len(names(series))) == (30, 1)


class TestAngles:
    @pytest.mark.parametrize("edge", [0.955, 0.985, 1.0])
    def test_no_rounding_divides_slices(self, make_header: Make, edge: float) -> None:
        sine = np.sqrt(1 - edge**2)
        headers = [
            replace(header, orientation=(1.0, 0.0, 0.0, 0.0, edge + (-1) ** index * 1e-6, -sine))
            for index, header in enumerate(stack(make_header, np.arange(0, 150, 5.0)))
        ]
        series = build_series(headers)
        assert len(series) == 30
        assert codes(series) <= {"gantry_tilt"}

    def test_a_head_that_jitters_by_less_than_half_a_degree_stays_in_order(self, make_header: Make) -> None:
        headers = [
            replace(header, orientation=tilted(10 + 0.2 * (-1) ** index), position_mm=(-115.0, -115.0, 1.0 * index))
            for index, header in enumerate(
                stack(make_header, np.arange(150.0), rows=512, columns=512, pixel_spacing_mm=(0.45, 0.45))
            )
        ]
        series = build_series(headers[::-1])
        assert [header.source for header in series.headers] == [header.source for header in headers]


class TestOrder:
    def test_slice_location_orders_what_has_no_position(self, make_header: Make) -> None:
        headers = [
            make_header(
                None, slice_location_mm=5.0 * index, sop_instance_uid=f"1.{(index * 7) % 30}", source=f"{index:02d}"
            )
            for index in range(30)
        ]
        series = build_series(headers[::-1])
        assert [header.source for header in series.headers] == [f"{index:02d}" for index in range(30)]
        (note,) = series.quality
        assert (note.code, "Slice Location" in note.message) == ("positions_unknown", True)

    def test_one_slice_without_a_position_does_not_take_the_others_away(self, make_header: Make) -> None:
        headers = stack(make_header, np.arange(0, 150, 5.0))
        series = build_series([replace(headers[7], position_mm=None), *headers[:7], *headers[8:]])
        assert len(series) == 29
        assert [(one.code, one.count, "s007" in one.message) for one in series.unread] == [("no_position", 1, True)]

    @pytest.mark.parametrize("missing", ["orientation", "position_mm"])
    def test_one_slice_that_lacks_a_value_is_counted_once(self, make_header: Make, missing: str) -> None:
        headers = stack(make_header, np.arange(0, 150, 5.0))
        series = build_series([replace(headers[7], **{missing: None}), *headers[:7], *headers[8:]])
        assert len(series) == 29
        assert [(one.code, one.count) for one in series.unread] == [("no_position", 1)]

    def test_one_slice_without_pixel_spacing_has_that_of_the_others(self, make_header: Make) -> None:
        headers = stack(make_header, np.arange(0, 150, 5.0))
        series = build_series([replace(headers[7], pixel_spacing_mm=None), *headers[:7], *headers[8:]])
        assert (len(series), series.unread, codes(series)) == (30, (), set())

    def test_slices_of_one_uid_that_nothing_orders_are_no_copies(self, make_header: Make) -> None:
        headers = [make_header(None, sop_instance_uid="1.2", source=f"{index}") for index in range(30)]
        series = build_series(headers)
        assert (len(series), series.ordered) == (30, False)

    def test_what_nothing_orders_is_refused(self, make_header: Make) -> None:
        headers = [make_header(None, sop_instance_uid=f"1.{index}", source=f"{index}") for index in range(30)]
        (study,) = build_studies(headers)
        with pytest.raises(Exception, match=r"nothing orders its 30 slices: no Image Position .* Export"):
            choose_series(study)

    def test_a_single_slice_needs_no_order(self, make_header: Make) -> None:
        (study,) = build_studies([make_header(None)])
        assert len(choose_series(study).series) == 1


class TestOneGrid:
    """The same head, its lower half written with another size, field of view, tilt or storage."""

    head = make_phantom(seed=6, shape=(28, 96, 96), spacing_mm=(5.0, 2.4, 2.4))

    def united(self, tmp_path: Path, low: np.ndarray, spacing: float, **changes: object) -> DecodedSeries:
        whole = self.head.hounsfield
        write_series(whole[12:], tmp_path / "high", spacing_mm=(5.0, 2.4, 2.4),
                     acquisition=Acquisition(origin_mm=(-114.0, -114.0, 60.0)))  # fmt: skip
        write_series(low, tmp_path / "low", spacing_mm=(5.0, spacing, spacing), acquisition=Acquisition(**changes))
        import pydicom

        for index, path in enumerate(sorted((tmp_path / "low").iterdir())):
            dataset = pydicom.dcmread(path)
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{index + 1}"
            dataset.save_as(path)
        archive = open_archive(tmp_path)
        ((series,),) = [study.series for study in archive.studies]
        assert series.unread == ()
        return read_series(archive, series)

    def test_another_size_lies_in_its_place(self, tmp_path: Path) -> None:
        fine = np.repeat(np.repeat(self.head.hounsfield[:12], 2, axis=1), 2, axis=2)
        found = self.united(tmp_path, fine, 1.2, origin_mm=(-114.6, -114.6, 0.0))
        volume = found.volume
        assert volume.hounsfield.shape == (28, 96, 96)
        assert np.array_equal(volume.hounsfield[12:], self.head.hounsfield[12:])
        assert np.abs(volume.hounsfield[:12].astype(float) - self.head.hounsfield[:12]).mean() < 40
        np.testing.assert_allclose(volume.positions_mm, 5.0 * np.arange(28))
        np.testing.assert_allclose(volume.affine[:3, 3], [114, 114, 0], atol=1e-6)

    def test_a_smaller_field_of_view_lies_in_its_place_with_air_around(self, tmp_path: Path) -> None:
        small = self.head.hounsfield[:12, 12:-12, 20:-4]
        found = self.united(tmp_path, small, 2.4, origin_mm=(-114.0 + 20 * 2.4, -114.0 + 12 * 2.4, 0.0))
        part = found.volume.hounsfield[:12]
        assert np.array_equal(part[:, 12:-12, 20:-4], small)
        assert (part[:, :11] == -1000).all()
        np.testing.assert_allclose(found.volume.affine[:3, 3], [114, 114, 0], atol=1e-6)

    def test_another_storage_is_turned(self, tmp_path: Path) -> None:
        turned = self.head.hounsfield[:12, ::-1, ::-1]
        found = self.united(
            tmp_path, turned, 2.4, orientation=(-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), origin_mm=(114.0, 114.0, 0.0)
        )
        assert np.array_equal(found.volume.hounsfield, self.head.hounsfield)
        np.testing.assert_allclose(found.volume.affine[:3, 3], [114, 114, 0], atol=1e-6)

    def test_the_largest_field_of_view_is_the_reference(self, make_header: Make) -> None:
        small = stack(make_header, np.arange(20.0))
        large = stack(make_header, np.arange(3.0), pixel_spacing_mm=(0.6, 0.6))
        nearly = stack(make_header, np.arange(30.0), pixel_spacing_mm=(0.59, 0.59))
        assert reference_slice([*small, *large]) is large[0]
        assert reference_slice([*small, *large, *nearly]) is nearly[0]

    def test_a_slice_on_its_own_grid_is_not_touched(self, make_header: Make) -> None:
        header, pixels = make_header(0.0), np.zeros((64, 64), dtype=np.float32)
        assert on_grid(pixels, header, header) is pixels
        assert origin_on_grid(header, header) == header.position_mm
