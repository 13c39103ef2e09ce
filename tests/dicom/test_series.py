"""Series are in anatomical order whatever the file names; anomalies become coded notes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemoscope.dicom.geometry import normal, plane, position_mm, spacing_mm, tilt_degrees
from hemoscope.dicom.quality import is_sharp_kernel
from hemoscope.dicom.series import Series, Study, build_series, build_studies
from hemoscope.dicom.series_choice import choose_series
from hemoscope.dicom.slices import QualityNote, SliceHeader
from hemoscope.errors import SeriesError

Make = Callable[..., SliceHeader]
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(np.deg2rad(15))), -float(np.sin(np.deg2rad(15))))


def codes(series: Series) -> set[str]:
    return {note.code for note in series.quality}


def heights(series: Series) -> list[float | None]:
    return [header.position_mm[2] if header.position_mm else None for header in series.headers]


def stack(make: Make, count: int = 30, step: float = 5.0, **changes: object) -> list[SliceHeader]:
    return [make(step * index, **changes) for index in range(count)]


class TestGeometry:
    def test_the_normal_of_axial_slices_points_to_the_head_however_they_are_flipped(self) -> None:
        for orientation in ((1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 1, 0, 0)):
            assert normal(orientation) == pytest.approx((0, 0, 1))
            assert plane(orientation) == "axial"

    def test_planes_and_tilt_are_distinguished(self) -> None:
        assert plane(CORONAL) == "coronal"
        assert plane((0, 1, 0, 0, 0, -1)) == "sagittal"
        assert plane(TILTED) == "axial"
        assert tilt_degrees(TILTED) == pytest.approx(15)
        assert tilt_degrees(CORONAL) == pytest.approx(0)

    def test_positions_are_measured_along_the_normal(self, make_header: Make) -> None:
        one, other = make_header(0.0, orientation=TILTED), make_header(10.0, orientation=TILTED)
        assert position_mm(other) - position_mm(one) == pytest.approx(10 * np.cos(np.deg2rad(15)))
        assert position_mm(make_header(None)) is None

    def test_spacing_is_the_median_step(self) -> None:
        assert spacing_mm([0, 5, 10, 20]) == 5
        assert spacing_mm([0, 4, 10]) == 5
        assert spacing_mm([3]) is None


class TestOrder:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.permutations(range(12)))
    def test_order_is_by_position_whatever_the_order_of_files(self, make_header: Make, order: list[int]) -> None:
        headers = [make_header(5.0 * index, instance_number=100 - index) for index in range(12)]
        series = build_series([headers[index] for index in order])
        assert heights(series) == [5.0 * index for index in range(12)]
        assert series == build_series(headers)

    def test_without_positions_instance_numbers_serve(self, make_header: Make) -> None:
        headers = [make_header(None, instance_number=number, sop_instance_uid=f"1.{number}") for number in (3, 1, 7)]
        series = build_series(headers)
        assert [header.instance_number for header in series.headers] == [1, 3, 7]
        assert {"positions_unknown", "missing_slices", "few_slices"} <= codes(series)

    def test_equal_positions_count_as_unknown(self, make_header: Make) -> None:
        headers = [make_header(0.0, instance_number=number, sop_instance_uid=f"1.{number}") for number in (2, 3, 1)]
        series = build_series(headers)
        assert [header.instance_number for header in series.headers] == [1, 2, 3]
        assert "positions_unknown" in codes(series)
        assert "missing_slices" not in codes(series)

    def test_studies_and_series_are_kept_apart(self, make_header: Make) -> None:
        headers = [make_header(z, series_instance_uid=uid, study_instance_uid=study) for z in (5, 0) for uid, study in
                   (("1.2.3", "1.2"), ("1.2.4", "1.2"), ("9.1", "9"))]  # fmt: skip
        studies = build_studies(headers)
        assert [study.study_instance_uid for study in studies] == ["1.2", "9"]
        assert [one.series_instance_uid for one in studies[0].series] == ["1.2.3", "1.2.4"]
        assert all(heights(one) == [0, 5] for study in studies for one in study.series)


class TestQuality:
    def test_a_plain_head_has_no_notes(self, make_header: Make) -> None:
        assert build_series(stack(make_header)).quality == ()

    def test_one_slice_alone_is_valid_and_noted(self, make_header: Make) -> None:
        assert codes(build_series([make_header(0.0)])) == {"single_slice"}

    def test_less_than_a_head_is_noted(self, make_header: Make) -> None:
        assert codes(build_series(stack(make_header, 8))) == {"few_slices"}

    def test_missing_slices_are_counted(self, make_header: Make) -> None:
        headers = stack(make_header)
        del headers[10:12], headers[20]
        series = build_series(headers)
        assert codes(series) == {"missing_slices"}
        assert series.quality[0].message.startswith("2 gaps in the series: about 3 slices of 5.00 mm")

    def test_uneven_spacing_is_noted(self, make_header: Make) -> None:
        headers = [make_header(z) for z in [*np.arange(0, 60, 5.0), *np.arange(60, 160, 6.5)]]
        assert codes(build_series(headers)) == {"uneven_spacing"}

    def test_duplicates_are_excluded_and_named(self, make_header: Make) -> None:
        extra = [make_header(25.0, sop_instance_uid="9.9", instance_number=999), make_header(50.0, source="copy.dcm")]
        headers = [*stack(make_header), *extra]
        series = build_series(headers)
        assert len(series) == 30
        assert len(series.left_out) == 2
        assert codes(series) == {"duplicate_slices"}

    def test_two_files_of_one_slice_are_one(self, make_header: Make) -> None:
        series = build_series([make_header(5.0, source="b"), make_header(5.0, source="a")])
        assert [header.source for header in series.headers] == ["a"]

    def test_other_orientations_and_sizes_are_excluded(self, make_header: Make) -> None:
        odd = [make_header(1000.0 + index, orientation=CORONAL) for index in range(3)]
        large = [make_header(500.0, rows=512)]
        series = build_series([*odd, *large, *stack(make_header)])
        assert len(series) == 30
        assert set(series.left_out) == {*odd, *large}
        assert codes(series) == {"mixed_orientation", "mixed_size"}

    def test_rounded_orientations_are_one(self, make_header: Make) -> None:
        nearly = (0.99999, 0.0001, 0.0, -0.0001, 0.99998, 0.0)
        assert "mixed_orientation" not in codes(
            build_series([*stack(make_header), make_header(150, orientation=nearly)])
        )

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"orientation": TILTED}, "gantry_tilt"),
            ({"gantry_tilt_degrees": -12.0}, "gantry_tilt"),
            ({"orientation": CORONAL}, "not_axial"),
            ({"body_part": "CHEST"}, "not_head"),
            ({"contrast_agent": "Iomeron"}, "contrast_agent"),
            ({"kvp": 80.0}, "unusual_kvp"),
            ({"kvp": 150.0}, "unusual_kvp"),
            ({"convolution_kernel": "H70h"}, "bone_kernel"),
            ({"geometry_assumed": True}, "geometry_assumed"),
            ({"quality": (QualityNote(code="nonstandard_uid", message="m"),)}, "nonstandard_uid"),
        ],
    )
    def test_each_anomaly_has_its_code(self, make_header: Make, changes: dict[str, object], code: str) -> None:
        headers = stack(make_header, **changes)
        if changes.get("orientation") == CORONAL:
            headers = [make_header(0.0, **changes, sop_instance_uid=f"1.{y}") for y in range(30)]
        assert code in codes(build_series(headers))

    def test_mixed_pixel_spacing_is_noted(self, make_header: Make) -> None:
        headers = [*stack(make_header), make_header(150.0, pixel_spacing_mm=(0.4, 0.4))]
        assert codes(build_series(headers)) == {"mixed_pixel_spacing"}


class TestKernels:
    @pytest.mark.parametrize(
        "kernel", ["BONE", "BONEPLUS", "H60s", "H70h", "Hr68h 2", "J70h", "FC30", "FC81", "YC", "LUNG"]
    )
    def test_sharp_kernels_are_known(self, kernel: str) -> None:
        assert is_sharp_kernel(kernel)

    @pytest.mark.parametrize(
        "kernel", ["STANDARD", "SOFT", "H30s", "H31s", "J40s", "Hr38h", "FC21", "FC68", "UB", "B", None, ""]
    )
    def test_soft_kernels_are_not_sharp(self, kernel: str | None) -> None:
        assert not is_sharp_kernel(kernel)

    def test_a_description_counts_where_no_kernel_is_named(self) -> None:
        assert is_sharp_kernel(None, "Head BONE 1.0")
        assert not is_sharp_kernel("H30s", "Head bone removed")


class TestChoice:
    def study(self, *series: list[SliceHeader]) -> Study:
        return Study(study_instance_uid="1.2", series=tuple(build_series(headers) for headers in series))

    def named(self, make: Make, uid: str, count: int = 30, step: float = 5.0, **changes: object) -> list[SliceHeader]:
        return stack(make, count, step, **{"series_instance_uid": uid, "slice_thickness_mm": step, **changes})

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"orientation": None, "position_mm": None}, "orientation unknown"),
            ({"contrast_agent": "x"}, "contrast agent"),
            ({"convolution_kernel": "BONE"}, "bone kernel"),
            ({"body_part": "NECK"}, "its body part is not the head"),
            ({"count": 10}, "covers less than a head"),
            ({"step": 0.6, "count": 250}, "thinner or thicker slices than preferred"),
            ({"step": 8.0}, "thinner or thicker slices than preferred"),
            ({"count": 25}, "fewer slices"),
            ({}, "equal to the chosen series"),
        ],
    )
    def test_the_rule_prefers_and_gives_a_reason(
        self, make_header: Make, changes: dict[str, object], reason: str
    ) -> None:
        best = self.named(make_header, "1.2.3")
        other = self.named(make_header, "1.2.9", **changes)
        choice = choose_series(self.study(other, best))
        assert choice.series.series_instance_uid == "1.2.3"
        assert choice.skipped == (("1.2.9", reason, len({h.sop_instance_uid for h in other})),)

    def test_a_soft_series_with_few_slices_loses_to_a_thin_one_of_the_whole_head(self, make_header: Make) -> None:
        thin, short = self.named(make_header, "1.2.3", 250, 0.6), self.named(make_header, "1.2.1", 4)
        assert choose_series(self.study(short, thin)).series.series_instance_uid == "1.2.3"

    @pytest.mark.parametrize(("step", "preferred"), [(1.9, False), (2.0, True), (6.0, True), (6.1, False)])
    def test_slices_of_2_to_6_mm_are_preferred_to_more_slices_of_another_thickness(
        self, make_header: Make, step: float, preferred: bool
    ) -> None:
        thin, asked = self.named(make_header, "1.2.3", 250, 0.6), self.named(make_header, "1.2.9", 80, step)
        read = choose_series(self.study(thin, asked)).series.series_instance_uid
        # Between two that are not preferred, thin slices lose nothing of a lesion, and thick ones do.
        assert read == ("1.2.9" if preferred else "1.2.3")

    def test_coronal_series_are_never_picked(self, make_header: Make) -> None:
        coronal = [make_header(0.0, orientation=CORONAL, series_instance_uid="1.2.1")]
        choice = choose_series(self.study(coronal, [make_header(0.0)]))
        assert choice.skipped == (("1.2.1", "coronal, not axial", 1),)
        with pytest.raises(SeriesError, match=r"no axial series .*coronal"):
            choose_series(self.study(coronal))

    def test_a_named_series_overrides_the_rule(self, make_header: Make) -> None:
        study = self.study(self.named(make_header, "1.2.3"), self.named(make_header, "1.2.9", contrast_agent="x"))
        choice = choose_series(study, series_instance_uid="1.2.9")
        assert choice.series.series_instance_uid == "1.2.9"
        assert choice.skipped == (("1.2.3", "another series was requested", 30),)

    def test_an_unknown_series_is_refused_with_those_there_are(self, make_header: Make) -> None:
        with pytest.raises(SeriesError, match=r"no series 7\.7. Name one of: 1\.2\.3"):
            choose_series(self.study(stack(make_header)), series_instance_uid="7.7")
