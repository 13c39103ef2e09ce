"""A study's report in words, as a page and as PDF: each number under its name, nothing trusted or fetched."""

import io
import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader

from hemoscope.inference.findings import Triage
from hemoscope.inference.heat_maps import HeatMap
from hemoscope.inference.preprocess import Box
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.messages.catalogue import read_catalogue
from hemoscope.reports.findings_1 import as_version_1
from hemoscope.reports.findings_json import findings_document
from hemoscope.reports.overlays import SlicePicture
from hemoscope.reports.report import Report
from hemoscope.reports.study_report_content import ReaderRemark, StudyDocument, shown_slices, study_document
from hemoscope.reports.study_report_html import STYLE_SHA256, findings_html
from hemoscope.reports.study_report_pdf import findings_pdf
from hemoscope.reports.threshold_words import threshold_words
from hemoscope.testing.catalogues import write_catalogue
from hemoscope.version import DISCLAIMER

from .conftest import make_frame, make_report, make_reported


def picture(number: int = 2) -> SlicePicture:
    return SlicePicture(
        hounsfield=np.full((40, 40), 35, dtype=np.int16),
        heat=HeatMap(values=np.full((5, 5), 0.5, dtype=np.float32), box=Box(top=0, left=0, side=40)),
        label=Hemorrhage.ANY,
        probability=0.91,
        established=True,
        number=number,
        count=4,
    )


@pytest.fixture
def document(report: Report) -> dict[str, Any]:
    return findings_document(report)


@pytest.fixture
def study(document: dict[str, Any]) -> StudyDocument:
    remark = ReaderRemark(label=Hemorrhage.SUBDURAL, verdict="present", note="thin, left <b>frontal</b>")
    return study_document(document, pictures=[picture()], reader=[remark])


def rows(page: str) -> list[list[str]]:
    found = re.findall(r"<tr class=\"\w+\">(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in found]


def test_every_label_keeps_its_own_probability_threshold_and_key_slices(study: StudyDocument) -> None:
    cells = rows(findings_html(study))
    assert [row[0] for row in cells] == [label.display for label in LABELS]
    assert [row[1] for row in cells] == ["0.91", "0.12", "0.83", "0.04", "0.45", "0.26"]
    assert [row[2] for row in cells] == ["0.30", "0.31", "0.32", "0.33", "0.34", "0.35"]
    assert [row[3] for row in cells][:2] == ["Suspected", "Not established"]
    assert cells[4][3] == "Not established, suspected"
    assert cells[0][4] == "1, 2"


def key_slices(document: dict[str, Any], **options: Any) -> list[str]:
    return [line.key_slices for line in study_document(document, **options).labels]


@given(st.permutations(range(4)))
def test_key_slices_stand_most_probable_first_in_documents_of_both_versions(order: list[int]) -> None:
    document = findings_document(make_report(studies=(make_reported(keys=tuple(order)),)))
    expected = ", ".join(str(index + 1) for index in order)
    assert key_slices(document) == [expected, "", expected, "", expected, ""]
    assert key_slices(as_version_1(document)) == key_slices(document)


def test_each_label_has_its_own_key_slices(document: dict[str, Any]) -> None:
    (study,) = document["studies"]
    named = ([3, 0], [1], [2, 1, 0], [], [3], [0, 2])
    for finding, indices in zip(study["findings"], named, strict=True):
        finding["slices"] = [{"index": index, "sop_instance_uid": "1.2.3", "frame": 3 - index} for index in indices]
    expected = ["4, 1", "2", "3, 2, 1", "", "4", "1, 3"]
    assert key_slices(document) == expected
    assert [row[-1] for row in rows(findings_html(study_document(document)))] == expected


def test_frames_of_an_earlier_document_are_named_by_what_was_stored_beside_it() -> None:
    frames = tuple(make_frame(index) for index in range(4))
    report = make_report(studies=(make_reported(slices=frames, keys=(3, 1)),))
    assert key_slices(findings_document(report))[0] == "4, 2"
    earlier = as_version_1(findings_document(report))
    assert key_slices(earlier)[0] == "", "a UID that all frames share names none of them"
    assert key_slices(earlier, key_slices={"any": [3, 1]})[0] == "4, 2"


@pytest.mark.parametrize("triage", Triage)
def test_every_triage_has_words_in_documents_of_both_versions(triage: Triage) -> None:
    document = findings_document(make_report(studies=(make_reported(triage=triage),)))
    found = study_document(document)
    assert found.triage is triage
    assert f'<p class="headline {triage.value}">' in findings_html(found)
    assert findings_pdf(found).startswith(b"%PDF-")
    earlier = study_document(as_version_1(document))
    assert earlier.triage is (Triage.PROMPT if triage is Triage.UNSURE else triage)


def test_the_page_warns_says_what_readers_said_and_escapes_their_words(study: StudyDocument) -> None:
    page = findings_html(study)
    assert page.count(DISCLAIMER) == 2
    assert "Subdural: present. thin, left &lt;b&gt;frontal&lt;/b&gt;" in page
    assert "The gantry was tilted by 12 degrees" in page
    assert "A series of 64 slices was not read: bone kernel" in page


def test_the_page_fetches_nothing_and_runs_nothing(study: StudyDocument) -> None:
    page = findings_html(study)
    assert re.findall(r"(?:src|href)=\"(?!data:image/png;base64,)", page) == []
    assert "<script" not in page
    assert "style=" not in page
    assert STYLE_SHA256.startswith("sha256-")


def test_a_hostile_series_reason_is_shown_as_text(document: dict[str, Any]) -> None:
    document["studies"][0]["skipped_series"][0]["reason"] = "<script>alert(1)</script>\x1b[31m"
    page = findings_html(study_document(document))
    assert "<script" not in page
    assert "\x1b" not in page


def test_slices_are_named_only_where_identity_was_asked_for(document: dict[str, Any]) -> None:
    assert "Patient" not in findings_html(study_document(document))
    document["studies"][0]["patient"] = {"name": "Doe^Jane", "id": "7", "study_date": ""}
    page = findings_html(study_document(document))
    assert "Doe^Jane" in page
    assert "Study date" not in page


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (0.001, "<.01"), (0.994, "0.99"), (0.999, ">.99"), (1.0, "1.00")]
)
def test_no_probability_is_rounded_to_certainty(document: dict[str, Any], value: float, text: str) -> None:
    document["studies"][0]["findings"][1]["probability"] = value
    assert study_document(document).labels[1].probability == text


def test_the_pdf_holds_the_same_words_and_pictures_and_the_same_bytes_again(study: StudyDocument) -> None:
    pdf = findings_pdf(study)
    assert pdf.startswith(b"%PDF-")
    assert pdf == findings_pdf(study)
    assert pdf.count(b"/Subtype /Image") >= 1
    text = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert text.count(DISCLAIMER) >= 2
    for number in ("0.91", "0.83", "0.45"):
        assert number in text


@pytest.mark.parametrize("lines", range(12, 40, 4))
def test_the_heading_of_the_pictures_is_on_the_page_of_the_first(study: StudyDocument, lines: int) -> None:
    pdf = findings_pdf(replace(study, remarks=("a remark",) * lines))
    pages = [page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages]
    (shown,) = [page for page in pages if study.pictures[0][0] in " ".join(page.split())]
    assert shown.count("Key slices") == shown.count("Probability") + 1, "of the table, if that is here, and the heading"


def test_the_pdf_says_where_it_cannot_show_letters(study: StudyDocument) -> None:
    def words(note: str) -> str:
        pdf = findings_pdf(replace(study, reader=(note,)))
        return " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)

    assert "Letters that this PDF cannot show" in words("血腫, thin")
    assert "??, thin" in words("血腫, thin")
    eastern = words("Гематома, źle, ł")
    assert "Гематома, źle, ł" in eastern
    assert "cannot show" not in eastern
    western = words("Zoë: épidural, 3 µm")
    assert "Zoë: épidural" in western
    assert "cannot show" not in western


@pytest.mark.parametrize("key", ["title", "foot", "page", "column-finding", "key-slices"])
def test_the_pdf_says_where_it_cannot_show_letters_of_a_site_s_own_texts(
    study: StudyDocument, tmp_path: Path, key: str
) -> None:
    placeholders = {"foot": " {version} {disclaimer}", "page": " {number}"}
    texts = {"locale": "ja", f"report.{key}": f"血腫Ω{placeholders.get(key, '')}"}
    own = read_catalogue(write_catalogue(tmp_path / "ja.json", texts))
    pdf = findings_pdf(replace(study, catalogue=own))
    words = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert "??Ω" in words
    assert "Letters that this PDF cannot show" in words
    western = replace(own, texts={})
    pdf = findings_pdf(replace(study, catalogue=western))
    assert "cannot show" not in " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_pictures_in_the_page_are_png(study: StudyDocument) -> None:
    image = Image.open(io.BytesIO(study.pictures[0][1]))
    assert image.format == "PNG"
    assert study.pictures[0][0] == "Any hemorrhage, slice 2 of 4"


def test_a_report_shows_each_slice_once_for_all_labels_that_it_is_the_first_key_slice_of() -> None:
    given = {Hemorrhage.ANY: (7, 2), Hemorrhage.EPIDURAL: (2,), Hemorrhage.SUBDURAL: (7,)}
    keys = PerLabel.from_mapping(dict.fromkeys(LABELS, ()) | given)
    assert list(shown_slices(keys)) == [
        (7, (Hemorrhage.ANY, Hemorrhage.SUBDURAL)),
        (2, (Hemorrhage.EPIDURAL,)),
    ]


def test_a_picture_says_for_which_labels_it_is_shown_and_whether_its_map_shows_anything(
    document: dict[str, Any],
) -> None:
    shared = replace(picture(), also=(Hemorrhage.EPIDURAL, Hemorrhage.SUBDURAL))
    cold = replace(picture(), heat=HeatMap(values=np.zeros((5, 5), np.float32), box=Box(top=0, left=0, side=40)))
    captions = [caption for caption, _ in study_document(document, pictures=[shared, cold]).pictures]
    assert captions == [
        "Any hemorrhage, Epidural and Subdural, slice 2 of 4. Heat map of any hemorrhage",
        "Any hemorrhage, slice 2 of 4. The heat map shows nothing on this slice",
    ]


def test_the_thresholds_of_the_shipped_model_are_explained_for_established_labels_alone() -> None:
    card = json.loads((resources.files("hemoscope") / "bundles" / "default" / "card.json").read_text())
    words = threshold_words(card)
    assert [text.partition(",")[0] for text in words] == [
        *(label.display for label in LABELS if card["established"][label.value]),
        "Immediate (any hemorrhage)",
        "Unsure (any hemorrhage)",
    ]
    *points, unsure = words
    assert re.search(r"from 0\.16 to 0\.46: \d+% \(95% interval .*\) of the studies\. Of those with hemorrhage", unsure)
    for text in points:
        assert re.search(r"threshold 0\.\d\d: sensitivity \d+% \(95% interval .*measured on \d+ patients with", text), (
            text
        )


def test_a_card_without_measured_performance_says_so() -> None:
    point = {"threshold": 0.2, "sensitivity": 0.9, "specificity": 0.8}
    card = {
        "established": {label.value: label is Hemorrhage.ANY for label in LABELS},
        "operating_points": {"study": {"any": point}, "urgent": {"threshold": 0.5}},
    }
    assert threshold_words(card) == (
        "Any hemorrhage, threshold 0.20: sensitivity 90%, specificity 80%, in sample: expect lower values",
        "Immediate (any hemorrhage), threshold 0.50: the model card states neither sensitivity nor specificity",
    )
