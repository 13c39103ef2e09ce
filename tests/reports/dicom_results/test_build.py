"""The results of a study as DICOM: what highdicom, dciodvfy, DCMTK and PixelMed read in them."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import highdicom
import numpy as np
import pytest
from highdicom.sr import CodedConcept, srread
from pydicom import dcmread
from pydicom.dataset import Dataset

from hemoscope.dicom.archive import open_archive
from hemoscope.errors import DicomResultError
from hemoscope.inference.findings import Finding, Triage
from hemoscope.inference.predictor import Predictor
from hemoscope.labels import LABEL_CODES, LABELS, CodedTerm, Hemorrhage, LabelCode, PerLabel
from hemoscope.reports.dicom_results.build import ResultKind
from hemoscope.reports.dicom_results.evidence import Reference
from hemoscope.reports.dicom_results.rejection import rejection_note
from hemoscope.reports.dicom_results.report_options import ReportOptions
from hemoscope.reports.dicom_results.source_study import source_study
from hemoscope.reports.dicom_results.structured_report import presence
from hemoscope.reports.dicom_results.superseded import Superseded
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import save, write_series
from hemoscope.testing.phantom import make_phantom

Make = Callable[..., dict[str, Dataset]]
PRESENCE = CodedConcept("705057003", "SCT", "Presence")


def groups_of(report: Dataset, folder: Path) -> dict[str, highdicom.sr.MeasurementsAndQualitativeEvaluations]:
    """The groups of a report by their tracking identifier, as highdicom reads them."""
    path = folder / "report.dcm"
    report.save_as(path, enforce_file_format=True)
    groups = srread(path).content.get_image_measurement_groups()
    return {group.tracking_identifier: group for group in groups}


def presence_of(group: highdicom.sr.MeasurementsAndQualitativeEvaluations) -> str:
    (evaluation,) = group.get_qualitative_evaluations(name=PRESENCE)
    return str(evaluation.value.meaning)


def edited(**values: object) -> Callable[[Path], None]:
    """Change elements of a file, and write it again."""

    def change(path: Path) -> None:
        data_set = dcmread(path)
        for keyword, value in values.items():
            setattr(data_set, keyword, value)
        save(data_set, path)

    return change


class TestReport:
    def test_each_label_is_a_group_with_its_code_probability_and_key_slices(
        self, make_results: Make, tmp_path: Path
    ) -> None:
        report = make_results()["report"]
        groups = groups_of(report, tmp_path)
        assert list(groups) == [label.display for label in LABELS]
        for label in LABELS:
            group, code = groups[label.display], LABEL_CODES[label]
            assert (group.finding_type.value, group.finding_type.scheme_designator) == (code.finding.value, "SCT")
            (measured,) = group.get_measurements()
            assert 0.0 <= measured.value <= 1.0
            assert measured.unit.value == "1"
            assert group.source_images == [] if label not in ("any", "subdural") else len(group.source_images) == 2
        (site,) = groups["Intraventricular"].finding_sites
        assert site.value.value == "35764002"

    def test_a_label_below_its_threshold_or_not_established_is_undetermined(
        self, make_results: Make, tmp_path: Path
    ) -> None:
        report = make_results(unestablished=frozenset({Hemorrhage.SUBDURAL}))["report"]
        found = {name: presence_of(group) for name, group in groups_of(report, tmp_path).items()}
        assert found == dict.fromkeys(found, "Undetermined") | {"Any hemorrhage": "Present"}

    def test_absent_is_only_said_where_the_site_asks_for_it_and_the_label_is_established(
        self, make_results: Make, tmp_path: Path
    ) -> None:
        report = make_results(
            unestablished=frozenset({Hemorrhage.EPIDURAL}),
            result_options={"options": ReportOptions(report_absent=True)},
        )["report"]
        found = {name: presence_of(group) for name, group in groups_of(report, tmp_path).items()}
        assert found["Epidural"] == "Undetermined"
        assert found["Subdural"] == "Present"
        assert found["Intraparenchymal"] == "Absent"

    def test_nothing_is_absent_in_an_unsure_study(self) -> None:
        below = Finding(
            label=Hemorrhage.ANY, present=False, established=True, probability=0.2, threshold=0.3, slices=()
        )
        asked = ReportOptions(report_absent=True)
        assert [presence(below, triage, asked).meaning for triage in (Triage.ROUTINE, Triage.UNSURE)] == [
            "Absent",
            "Undetermined",
        ]
        reached = replace(below, present=True)
        assert presence(reached, Triage.UNSURE, asked).meaning == "Present"

    def test_a_site_can_give_its_own_codes(self, make_results: Make, tmp_path: Path) -> None:
        own = LabelCode(CodedTerm("RDES194", "RADELEMENT", "Intracranial hemorrhage"), "RadElement")
        codes = PerLabel.of([own, *LABEL_CODES.values[1:]])
        report = make_results(result_options={"options": ReportOptions(codes=codes)})["report"]
        assert groups_of(report, tmp_path)["Any hemorrhage"].finding_type.value == "RDES194"

    def test_it_is_preliminary_unverified_and_partial_where_the_head_was_not_read_in_full(
        self, make_results: Make
    ) -> None:
        report = make_results()["report"]
        assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
        assert (report.CompletionFlag, report.CompletionFlagDescription) == ("PARTIAL", "The head was not read in full")

    def test_all_images_are_evidence_and_only_key_slices_are_in_the_library(self, make_results: Make) -> None:
        report = make_results()["report"]
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        assert sum(len(series.ReferencedSOPSequence) for series in study.ReferencedSeriesSequence) == 6
        assert report.StudyInstanceUID == study.StudyInstanceUID
        library = next(i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028")
        assert len([i for i in library.ContentSequence[0].ContentSequence if i.ValueType == "IMAGE"]) == 2

    @pytest.mark.parametrize("kind", ["report", "pictures", "key-slices"])
    def test_a_later_result_says_which_reading_it_supersedes(self, make_results: Make, kind: str) -> None:
        first = make_results()[kind]
        superseded = Superseded(
            reference=Reference(
                sop_class_uid=first.SOPClassUID,
                sop_instance_uid=first.SOPInstanceUID,
                study_instance_uid=first.StudyInstanceUID,
                series_instance_uid=first.SeriesInstanceUID,
            ),
            reading=1,
            at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            by=2,
        )
        second = make_results(result_options={"superseded": superseded, "kinds": (ResultKind(kind),)})[kind]
        assert second.SOPInstanceUID != first.SOPInstanceUID
        assert second.SeriesDescription == f"{first.SeriesDescription} reading 2 supersedes 1"
        if kind == "report":
            (study,) = second.PredecessorDocumentsSequence
            reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
            assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
        elif kind == "pictures":
            assert second.PixelData != first.PixelData  # the summary says so
        else:
            said = next(item.TextValue for item in second.ContentSequence if item.ValueType == "TEXT")
            assert said.startswith("Reading 2, supersedes reading 1 of 2026-03-01 ")


class TestIdentity:
    @pytest.mark.parametrize(
        ("character_set", "name"),
        [
            ("ISO_IR 100", "Müller^Jürgen"),
            ("ISO_IR 192", "Łukasz^Ж李"),
            ("GB18030", "王^小东"),
            ("ISO_IR 144", "Люкceмбypг"),  # noqa: RUF001 - a name in Cyrillic
            (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
            (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ],
    )
    def test_names_survive_in_every_character_set(
        self, make_results: Make, character_set: str | list[str], name: str
    ) -> None:
        results = make_results(change=edited(SpecificCharacterSet=character_set, PatientName=name))
        assert set(results) == {"report", "pictures", "key-slices"}
        for one in results.values():
            assert str(one.PatientName) == name
            assert one.SpecificCharacterSet == character_set

    @pytest.mark.filterwarnings("ignore:The value length")
    def test_blank_fields_stay_blank_and_odd_values_stay_as_they_are(self, make_results: Make) -> None:
        results = make_results(change=edited(PatientName="", PatientID="", StudyID="A long study ID is kept"))
        for one in results.values():
            assert (one.PatientName, one.PatientID, one.PatientBirthDate) == ("", "", "")
            assert one.StudyID == "A long study ID is kept"

    def test_no_time_zone_is_claimed_for_the_times_of_the_study(self, make_results: Make) -> None:
        results = make_results()
        assert [name for name, one in results.items() if "TimezoneOffsetFromUTC" in one] == []

    def test_pictures_hold_no_identity_and_say_so(self, make_results: Make) -> None:
        assert make_results()["pictures"].BurnedInAnnotation == "NO"


class TestUids:
    def test_the_same_study_gives_the_same_uids(self, make_results: Make) -> None:
        first, second = make_results(), make_results()
        assert {kind: one.SOPInstanceUID for kind, one in first.items()} == {
            kind: one.SOPInstanceUID for kind, one in second.items()
        }
        assert len({one.SOPInstanceUID for one in first.values()}) == 3
        assert len({one.SeriesInstanceUID for one in first.values()}) == 3

    @pytest.mark.parametrize(
        "other",
        [
            {"result_options": {"options": ReportOptions(report_absent=True)}},
            {"unestablished": frozenset({Hemorrhage.EPIDURAL})},
            {"change": edited(PatientID="corrected")},
            {"shape": (7, 64, 64)},
        ],
    )
    def test_other_content_has_other_uids(self, make_results: Make, other: dict[str, object]) -> None:
        first, second = make_results(), make_results(**other)
        assert not {one.SOPInstanceUID for one in first.values()} & {one.SOPInstanceUID for one in second.values()}

    def test_frames_of_a_multi_frame_image_are_named(self, make_results: Make, tmp_path: Path) -> None:
        results = make_results(enhanced=True)
        selected = [i for i in results["key-slices"].ContentSequence if i.ValueType == "IMAGE"]
        assert list(selected[0].ReferencedSOPSequence[0].ReferencedFrameNumber) == [2, 4]
        group = groups_of(results["report"], tmp_path)["Any hemorrhage"]
        assert [image.referenced_frame_numbers for image in group.source_images] == [[4], [2]]

    @pytest.mark.parametrize(
        ("uid", "cause"), [("ID_f10de2d018", "is not a valid UID"), ("1.02.3", "is not a valid UID")]
    )
    @pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
    def test_an_invalid_study_uid_is_refused_with_the_reason(self, make_results: Make, uid: str, cause: str) -> None:
        with pytest.raises(DicomResultError, match=cause) as raised:
            make_results(change=edited(StudyInstanceUID=uid))
        assert uid not in str(raised.value)
        assert "export the study" in str(raised.value)

    def test_slices_that_share_one_uid_are_refused(self, make_results: Make) -> None:
        with pytest.raises(DicomResultError, match="share one SOP Instance UID"):
            make_results(change=edited(SOPInstanceUID="1.2.3"))


def turned(turns: int, *, mirrored: bool) -> Callable[[Path], None]:
    """Rewrite a file as another program would store the same slice: pixels, position and orientation together."""

    def change(path: Path) -> None:
        data_set = dcmread(path)
        pixels, step = data_set.pixel_array, float(data_set.PixelSpacing[0])
        row, column = np.array(data_set.ImageOrientationPatient, dtype=float).reshape(2, 3)
        origin = np.array(data_set.ImagePositionPatient, dtype=float)
        for _ in range(turns):
            origin = origin + (pixels.shape[1] - 1) * step * row
            pixels, row, column = np.rot90(pixels), column, -row
        if mirrored:
            origin = origin + (pixels.shape[1] - 1) * step * row
            pixels, row = pixels[:, ::-1], -row
        data_set.PixelData = np.ascontiguousarray(pixels).tobytes()
        data_set.ImageOrientationPatient = [round(float(cosine), 6) for cosine in (*row, *column)]
        data_set.ImagePositionPatient = [round(float(place), 6) for place in origin]
        save(data_set, path)

    return change


class TestPictures:
    @pytest.mark.parametrize(
        ("turns", "mirrored", "tilt"), [(1, False, 0.0), (2, False, 12.0), (3, True, 12.0), (0, True, 0.0)]
    )
    def test_pages_are_equal_and_radiological_whatever_the_storage(
        self, make_results: Make, turns: int, mirrored: bool, tilt: float
    ) -> None:
        acquisition = Acquisition(gantry_tilt_degrees=tilt)
        upright = make_results(acquisition=acquisition)["pictures"].pixel_array
        stored = make_results(acquisition=acquisition, change=turned(turns, mirrored=mirrored))["pictures"].pixel_array
        assert upright.shape[0] == 3
        assert np.abs(stored[1:].astype(int) - upright[1:].astype(int)).max() <= 1

    def test_right_and_left_are_marked_from_the_geometry(self, make_results: Make) -> None:
        pages = make_results()["pictures"].pixel_array
        unmarked = make_results(change=edited(ImageOrientationPatient=None))["pictures"].pixel_array
        letter = (slice(62 + 240, 62 + 262), slice(10 + 8, 10 + 28))
        assert pages[1][letter].max() > 230
        assert unmarked[1][letter].max() < 230

    def test_lossy_compression_of_the_images_is_stated(self, make_results: Make) -> None:
        lossy = {
            "LossyImageCompression": "01",
            "LossyImageCompressionRatio": 10,
            "LossyImageCompressionMethod": "ISO_10918_1",
        }
        pictures = make_results(change=edited(**lossy))["pictures"]
        assert (pictures.LossyImageCompression, pictures.LossyImageCompressionRatio) == ("01", 10)


@pytest.mark.reference_tool("dciodvfy")
@pytest.mark.parametrize("enhanced", [False, True])
def test_dciodvfy_finds_no_error(
    make_results: Make, tmp_path: Path, enhanced: bool, reference_tool: Callable[[str], Path]
) -> None:
    for kind, one in make_results(enhanced=enhanced).items():
        path = tmp_path / f"{kind}.dcm"
        one.save_as(path, enforce_file_format=True)
        done = subprocess.run(
            [reference_tool("dciodvfy"), "-new", path], capture_output=True, text=True, timeout=60, check=False
        )
        assert "Error" not in done.stderr + done.stdout, f"{kind}: {done.stderr}"


@pytest.mark.reference_tool("dciodvfy")
def test_dciodvfy_finds_no_error_in_a_rejection_note(
    tmp_path: Path, predictor: Predictor, reference_tool: Callable[[str], Path]
) -> None:
    write_series(make_phantom(seed=2, shape=(4, 64, 64)), tmp_path / "images")
    archive = open_archive([tmp_path / "images"])
    (reading,) = predictor.predict(archive, maps=True).studies
    source = source_study(reading.findings, archive.load)
    rejected = [
        Reference(
            sop_class_uid=sop_class,
            sop_instance_uid=f"1.2.{number}",
            study_instance_uid=source.study_instance_uid,
            series_instance_uid=f"1.3.{number}",
        )
        for number, sop_class in enumerate(("1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4"))
    ]
    note = rejection_note(source, rejected)
    path = tmp_path / "note.dcm"
    path.write_bytes(note.content)
    done = subprocess.run(
        [reference_tool("dciodvfy"), "-new", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Error" not in done.stderr + done.stdout, done.stderr
    assert [item.ValueType for item in dcmread(path).ContentSequence] == ["TEXT", "COMPOSITE", "IMAGE"]


@pytest.mark.reference_tool("dsrdump")
def test_dcmtk_reads_the_documents(make_results: Make, tmp_path: Path, reference_tool: Callable[[str], Path]) -> None:
    results = make_results()
    for kind in ("report", "key-slices"):
        path = tmp_path / f"{kind}.dcm"
        results[kind].save_as(path, enforce_file_format=True)
        done = subprocess.run(
            [reference_tool("dsrdump"), path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
