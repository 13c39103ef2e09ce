"""``hemoscope predict`` from DICOM files to table, JSON, CSV and pictures, with the tiny model."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pydicom
import pypdf
import pytest
from PIL import Image

from hemoscope import cli
from hemoscope.cli import predict
from hemoscope.cli.exit_codes import ExitCode
from hemoscope.cli.progress import progress_bar
from hemoscope.dicom.read_limits import limits_from_options
from hemoscope.errors import ConfigError
from hemoscope.inference.bundle import load_bundle
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.nifti import write_nifti
from hemoscope.reports.findings_1 import as_version_1
from hemoscope.reports.findings_json import findings_schema
from hemoscope.reports.study_report_content import study_document
from hemoscope.reports.study_report_html import findings_html
from hemoscope.reports.threshold_words import threshold_words
from hemoscope.testing.ct_image import Acquisition
from hemoscope.testing.dicom_writer import write_series
from hemoscope.testing.phantom import make_phantom

NAME, IDENTIFIER, DATE, FOLDER = "Roe^Jane", "MRN-4711", "20190203", "ROE_JANE_MRN-4711"
SLICES = 5
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")  # three letters of a name stand in some by chance


@pytest.fixture(scope="module")
def written_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder named after its patient, with one series in it; do not write into it."""
    folder = tmp_path_factory.mktemp("scans") / FOLDER
    head = make_phantom(seed=3, shape=(SLICES, 96, 96), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    write_series(head, folder / "CT", acquisition=Acquisition(patient_name=NAME, patient_id=IDENTIFIER, date=DATE))
    return folder


@pytest.fixture
def study(written_study: Path, tmp_path: Path) -> Path:
    """A copy that a test may add files to."""
    return Path(shutil.copytree(written_study, tmp_path / FOLDER))


Run = Callable[..., tuple[int, str, str]]


def document_of(text: str) -> dict[str, Any]:
    document = json.loads(text)
    jsonschema.Draft202012Validator(findings_schema()).validate(document)
    return dict(document)


def files_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_study_gives_a_table_and_exit_code_0(run: Run, study: Path) -> None:
    code, out, err = run(study)
    assert code == 0
    assert err == ""
    for label in LABELS:
        assert label.display in out
    assert f"{SLICES} slices" in out
    assert "Research use only. Not a medical device" in out


def test_json_on_stdout_is_a_valid_document_and_nothing_else(run: Run, study: Path) -> None:
    code, out, err = run(study, "--format", "json")
    assert (code, err) == (0, "")
    document = document_of(out)
    assert document["rejected"] == []
    (one,) = document["studies"]
    assert len(one["slices"]) == SLICES
    assert [finding["label"] for finding in one["findings"]] == [label.value for label in LABELS]
    for probabilities in (one["probabilities"], *(each["probabilities"] for each in one["slices"])):
        assert probabilities["any"] == max(probabilities.values())


def test_version_1_of_the_json_is_written_on_request(run: Run, study: Path, tmp_path: Path) -> None:
    code, out, _ = run(study, "--format", "json", "--schema", 1, "--output", tmp_path / "results")
    assert code == 0
    document = json.loads(out)
    jsonschema.Draft202012Validator(findings_schema(1)).validate(document)
    assert (tmp_path / "results" / "findings.json").read_text() == out
    assert as_version_1(document_of(run(study, "--format", "json")[1])) == document


def test_a_schema_without_json_is_refused(run: Run, study: Path) -> None:
    code, out, err = run(study, "--schema", 1)
    assert (code, out) == (ExitCode.USAGE, "")
    assert "--schema chooses the version of the JSON. Add --format json or --output DIR" in err


def test_csv_on_stdout_has_a_row_a_slice(run: Run, study: Path) -> None:
    code, out, err = run(study, "--format", "csv")
    assert (code, err) == (0, "")
    assert len(list(csv.DictReader(io.StringIO(out)))) == SLICES


def test_output_holds_what_stdout_printed_and_a_picture_of_each_key_slice(
    run: Run, study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    code, out, _ = run(study, "--output", output, "--format", "json")
    assert code == 0
    assert (output / "findings.json").read_text() == out
    assert len((output / "findings.csv").read_text().splitlines()) == SLICES + 1
    assert len((output / "studies.csv").read_text().splitlines()) == 2
    (one,) = document_of(out)["studies"]
    expected = sum(len(finding["slices"]) for finding in one["findings"])
    pictures = list((output / "overlays" / one["study_instance_uid"]).iterdir())
    assert len(pictures) == expected > 0
    with Image.open(pictures[0]) as picture:
        assert picture.width > 4 * 400


def test_heatmaps_adds_a_picture_of_every_slice(run: Run, study: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    assert run(study, "--output", output, "--heatmaps")[0] == 0
    assert len(list(output.rglob("slice-*-any.png"))) == SLICES


def test_without_heatmaps_there_is_no_picture_of_an_unremarkable_study(
    run: Run, study: Path, tmp_path: Path, make_card: Callable[..., Any], make_graph: Callable[..., bytes]
) -> None:
    from hemoscope.inference.bundle import write_bundle
    from hemoscope.inference.calibration import OperatingPoint
    from hemoscope.inference.card import OperatingPointTable
    from hemoscope.labels import PerLabel

    never = PerLabel.build(lambda _: OperatingPoint(threshold=0.9999999, rule="never"))
    points = OperatingPointTable(slice=never, study=never, urgent=never["any"])
    bundle = write_bundle(tmp_path / "never", make_card(operating_points=points), make_graph())
    words = ["predict", str(study), "--output", str(tmp_path / "r"), "--model", str(bundle.folder), "--threads", "1"]
    assert cli.main(words) == ExitCode.INCOMPLETE, "five slices are not a head"
    assert not list((tmp_path / "r").rglob("*.png"))


class TestStudyReport:
    def test_output_holds_a_report_of_each_study(self, run: Run, study: Path, tmp_path: Path) -> None:
        write_series(make_phantom(seed=8, shape=(SLICES, 96, 96)), study / "other", seed=8)
        code, out, _ = run(study, "--output", tmp_path / "r", "--format", "json")
        assert code == 0
        studies = document_of(out)["studies"]
        assert len(studies) == 2
        for one in studies:
            page = (tmp_path / "r" / "reports" / one["study_instance_uid"] / "report.html").read_text()
            keys = [finding["slices"] for finding in one["findings"] if finding["present"]]
            assert len(PICTURE.findall(page)) == len({json.dumps(slices[0]) for slices in keys}) > 0
            assert one["study_instance_uid"] in page
            assert "Research use only. Not a medical device" in page
        assert not list(tmp_path.rglob("*.pdf"))

    def test_pdf_adds_one_beside_it(self, run: Run, study: Path, tmp_path: Path) -> None:
        assert run(study, "--output", tmp_path / "r", "--pdf")[0] == 0
        (page,) = tmp_path.rglob("report.html")
        (sheet,) = tmp_path.rglob("report.pdf")
        assert sheet.parent == page.parent
        text = "".join(one.extract_text() for one in pypdf.PdfReader(sheet).pages)
        assert "Head CT: suspected hemorrhage" in text

    def test_identity_stands_in_it_on_request_alone(self, run: Run, study: Path, tmp_path: Path) -> None:
        run(study, "--output", tmp_path / "plain")
        run(study, "--output", tmp_path / "named", "--identify")
        pages = [
            PICTURE.sub("", next((tmp_path / name).rglob("report.html")).read_text()) for name in ("plain", "named")
        ]
        assert [NAME in page for page in pages] == [False, True]

    def test_it_is_what_the_web_application_shows(
        self, run: Run, study: Path, tiny_bundle: Path, tmp_path: Path
    ) -> None:
        """Both put the findings document into words by ``study_document``."""
        _, out, _ = run(study, "--output", tmp_path / "r", "--format", "json")
        (page,) = tmp_path.rglob("report.html")
        explained = threshold_words(load_bundle(tiny_bundle).card.to_json())
        words = findings_html(study_document(document_of(out), thresholds=explained))
        body = page.read_text().partition("<h2>Key slices</h2>")[0]
        assert words.startswith(body)


class TestNifti:
    @pytest.fixture
    def volume(self, tmp_path: Path) -> Path:
        head = make_phantom(seed=3, shape=(SLICES, 96, 96), bleeds=frozenset({Hemorrhage.SUBDURAL})).volume
        write_nifti(tmp_path / "head.nii.gz", head.hounsfield, head.affine)
        return tmp_path / "head.nii.gz"

    def test_a_nifti_file_is_a_study_beside_those_in_dicom(self, run: Run, study: Path, volume: Path) -> None:
        code, out, err = run(study, volume, "--format", "json", "--identify")
        assert (code, err) == (0, "")
        dicom, nifti = document_of(out)["studies"]
        assert nifti["probabilities"] == pytest.approx(dicom["probabilities"])
        assert {one["source"] for one in nifti["slices"]} == {"head.nii.gz"}
        assert "no_dicom_headers" in {note["code"] for note in nifti["quality"]}
        assert "patient" in dicom
        assert "patient" not in nifti

    def test_it_gets_a_report_and_pictures_too(self, run: Run, volume: Path, tmp_path: Path) -> None:
        assert run(volume, "--output", tmp_path / "r")[0] == 0
        assert len(list(tmp_path.rglob("report.html"))) == 1
        assert list(tmp_path.rglob("slice-*.png"))

    def test_one_that_is_refused_is_named_and_the_rest_is_read(self, run: Run, study: Path, tmp_path: Path) -> None:
        (tmp_path / "bad.nii").write_bytes(b"nothing")
        code, out, _ = run(study, tmp_path / "bad.nii", "--format", "json")
        assert code == 4
        (refused,) = document_of(out)["rejected"]
        assert (refused["source"], refused["code"]) == ("bad.nii", "bad_nifti")
        assert run(study, tmp_path / "bad.nii", "--allow-refused", "bad_nifti")[0] == 0
        assert run(tmp_path / "bad.nii")[0] == 3

    def test_it_has_no_series_to_choose(self, run: Run, study: Path, volume: Path) -> None:
        code, _, err = run(study, volume, "--series", "1.2.3")
        assert code == 2
        assert "Leave NIfTI files out" in err


class TestRefusals:
    def test_a_refused_file_is_named_and_the_rest_is_read(self, run: Run, study: Path) -> None:
        (study / "CT" / "notes.txt").write_text("no DICOM in here")
        code, out, _ = run(study, "--format", "json")
        assert code == 4
        document = document_of(out)
        assert [(one["source"], one["code"]) for one in document["rejected"]] == [("CT/notes.txt", "not_dicom")]
        assert len(document["studies"][0]["slices"]) == SLICES

    def test_the_table_names_it_with_the_remedy(self, run: Run, study: Path) -> None:
        (study / "CT" / "notes.txt").write_text("no DICOM in here")
        code, out, _ = run(study)
        assert code == 4
        assert "1 input was refused" in out
        assert "CT/notes.txt: " in out

    def test_an_expected_refusal_leaves_the_exit_code_at_0(self, run: Run, study: Path) -> None:
        (study / "notes.txt").write_text("no DICOM in here")
        code, out, _ = run(study, "--allow-refused", "localizer, not_dicom", "--format", "json")
        assert code == 0
        assert document_of(out)["rejected"]

    def test_nothing_read_is_3_and_still_a_valid_document(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no DICOM in here")
        code, out, _ = run(tmp_path / "notes.txt", "--format", "json", "--allow-refused", "not_dicom")
        assert code == 3
        document = document_of(out)
        assert document["studies"] == []
        assert document["rejected"][0]["source"] == "notes.txt"

    def test_nothing_read_is_printed_in_the_table_too(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("no DICOM in here")
        code, out, _ = run(tmp_path / "notes.txt")
        assert code == 3
        assert "Nothing could be read" in out


class TestUsage:
    def test_a_file_in_place_of_the_output_folder_is_refused_before_any_work(self, run: Run, study: Path) -> None:
        in_the_way = study / "results"
        in_the_way.write_text("mine")
        code, out, err = run(study, "--output", in_the_way)
        assert (code, out) == (2, "")
        assert "results is a file" in err
        assert in_the_way.read_text() == "mine"

    def test_heatmaps_need_an_output(self, run: Run, study: Path) -> None:
        code, _, err = run(study, "--heatmaps")
        assert code == 2
        assert "Add --output DIR" in err

    def test_a_limit_can_be_raised_and_its_message_names_it(self, run: Run, study: Path) -> None:
        code, out, _ = run(study, "--format", "json", "--limit", "file_bytes=1k")
        message = document_of(out)["rejected"][0]["message"]
        assert code == ExitCode.NOTHING_READ
        assert "the limit file_bytes is 1024" in message
        assert "--limit NAME=VALUE" in message
        assert run(study, "--limit", "file_bytes=1k", "--limit", "file_bytes=1G")[0] == ExitCode.OK

    @pytest.mark.parametrize("limit", ["file_bytes", "bytes=1", "file_bytes=0", "file_bytes=1T", "file_bytes=-1"])
    def test_what_is_no_limit_is_refused_with_the_names(self, run: Run, study: Path, limit: str) -> None:
        with pytest.raises(ConfigError, match=r"archive_bytes"):
            limits_from_options([limit])
        code, _, err = run(study, "--limit", limit)
        assert code == ExitCode.USAGE
        assert f"--limit {limit}" in err

    def test_an_unknown_refusal_code_is_a_typing_error(self, run: Run, study: Path) -> None:
        code, _, err = run(study, "--allow-refused", "scouts")
        assert code == 2
        assert "no such code: scouts" in err
        assert "localizer" in err

    @pytest.mark.parametrize("number", ["0", "-1", "two", "1025"])
    def test_threads_must_be_a_sensible_number(self, study: Path, number: str) -> None:
        with pytest.raises(SystemExit, match="2"):
            cli.main(["predict", str(study), f"--threads={number}"])

    def test_an_unknown_model_is_refused(self, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["predict", str(study), "--model", str(study / "none")]) == 2
        assert "no such folder" in capsys.readouterr().err

    def test_a_series_can_be_chosen_and_an_unknown_one_is_refused(self, run: Run, study: Path) -> None:
        uid = str(pydicom.dcmread(next(files_in(study))).SeriesInstanceUID)
        code, out, _ = run(study, "--series", uid, "--format", "json")
        assert code == 0
        assert document_of(out)["studies"][0]["series_instance_uid"] == uid
        code, _, err = run(study, "--series", "1.2.3")
        assert code == 3
        assert "no series 1.2.3" in err


class TestIdentity:
    def test_no_output_identifies_the_patient(self, run: Run, study: Path, tmp_path: Path) -> None:
        output = tmp_path / "results"
        texts = [run(study, "--format", form, "--output", output)[1] for form in ("table", "json", "csv")]
        texts += [str(path.relative_to(output)) for path in files_in(output)]
        texts += [PICTURE.sub("", path.read_text()) for path in files_in(output) if path.suffix != ".png"]
        for secret in ("Roe", "Jane", IDENTIFIER, DATE, FOLDER, str(tmp_path)):
            assert not [text for text in texts if secret in text], secret
        for path in output.rglob("*.png"):
            with Image.open(path) as picture:
                assert not picture.info

    def test_identity_is_added_on_request(self, run: Run, study: Path, tmp_path: Path) -> None:
        _, out, _ = run(study, "--identify", "--format", "json", "--output", tmp_path / "results")
        patient = document_of(out)["studies"][0]["patient"]
        assert patient == {"name": NAME, "id": IDENTIFIER, "study_date": DATE}
        assert NAME in (tmp_path / "results" / "studies.csv").read_text()
        assert NAME in run(study, "--identify")[1]


class TestProgress:
    def test_a_terminal_sees_it_on_stderr_alone(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        with progress_bar() as show:
            show("reading", 1, 2)
            show("reading", 2, 2)
            show("scoring", 1, 7)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "scoring" in captured.err
        assert "1/7" in captured.err

    def test_a_pipe_sees_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        with progress_bar() as show:
            show("reading", 1, 2)
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""


def test_usage_is_checked_before_files_are_read() -> None:
    from argparse import Namespace

    for option in ("heatmaps", "pdf", "resume"):
        given = {"heatmaps": False, "pdf": False, "resume": False, option: True}
        with pytest.raises(ConfigError, match=f"--{option} needs a folder"):
            predict.check_usage(Namespace(**given, output=None, allow_refused=frozenset(), limit=[]))
