"""A multi-frame CT, whose slices share one UID: table, JSON, CSV, overlays, report and page name the same slices."""

import csv
import io
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from pydicom.sequence import Sequence
from pypdf import PdfReader

from hemoscope import cli
from hemoscope.labels import LABELS, Hemorrhage
from hemoscope.reports.findings_1 import as_version_1
from hemoscope.reports.findings_json import document_text, findings_schema
from hemoscope.store import tables
from hemoscope.store.database import database_url
from hemoscope.store.store import Store
from hemoscope.testing.dicom_writer import enhanced_ct_dataset, save
from hemoscope.testing.phantom import make_phantom

SLICES = 12
Keys = dict[str, list[int]]


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file whose frames stand from head to feet, so that no frame has the number of its slice."""
    head = make_phantom(seed=6, shape=(SLICES, 64, 64), bleeds=frozenset({Hemorrhage.SUBDURAL}))
    dataset = enhanced_ct_dataset(head.hounsfield)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(reversed(dataset.PerFrameFunctionalGroupsSequence))
    frames = np.frombuffer(dataset.PixelData, np.uint16).reshape(head.hounsfield.shape)
    dataset.PixelData = frames[::-1].tobytes()
    return save(dataset, tmp_path_factory.mktemp("enhanced") / "enhanced.dcm")


@pytest.fixture(scope="module")
def predicted(enhanced: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``hemoscope predict --output`` fills."""
    output = tmp_path_factory.mktemp("output")
    assert cli.main(["predict", str(enhanced), "--model", str(tiny_bundle), "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="module")
def document(predicted: Path) -> dict[str, Any]:
    found = json.loads((predicted / "findings.json").read_text())
    Draft202012Validator(findings_schema()).validate(found)
    return dict(found)


@pytest.fixture(scope="module")
def keys(document: dict[str, Any]) -> Keys:
    """The numbers of the key slices of each label, as the JSON has them."""
    (study,) = document["studies"]
    named = {one["label"]: [ref["index"] + 1 for ref in one["slices"]] for one in study["findings"]}
    assert any(len(numbers) == 3 and numbers != [1, 2, 3] for numbers in named.values())
    return named


@pytest.fixture
def study_id(room: TestClient, enhanced: Path, work: Callable[..., None]) -> str:
    """The same file in the reading room, read."""
    answer = room.post("/api/v1/uploads", files=[("files", ("name", enhanced.read_bytes()))])
    assert answer.status_code == HTTPStatus.ACCEPTED
    work()
    return str(answer.json()["study"]["study_id"])


def joined(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def reported(page: str) -> dict[str, str]:
    """The key slices in the report's table, by label."""
    rows = re.findall(r"<tr class=\"\w+\">(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    names = {label.display: label.value for label in LABELS}
    return {names[row[0].strip()]: row[-1].strip() for row in cells}


def test_the_frames_of_the_file_are_named_one_by_one(document: dict[str, Any]) -> None:
    (study,) = document["studies"]
    assert [one["index"] for one in study["slices"]] == list(range(SLICES))
    assert [one["frame"] for one in study["slices"]] == list(reversed(range(SLICES)))
    assert len({one["sop_instance_uid"] for one in study["slices"]}) == 1
    for finding in study["findings"]:
        named = [study["slices"][ref["index"]] for ref in finding["slices"]]
        assert [one["frame"] for one in named] == [ref["frame"] for ref in finding["slices"]]
        scores = [one["probabilities"][finding["label"]] for one in named]
        assert scores == sorted(scores, reverse=True)


def test_the_table_names_the_slices_of_the_json(
    enhanced: Path, tiny_bundle: Path, keys: Keys, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["predict", str(enhanced), "--model", str(tiny_bundle)]) == 0
    lines = capsys.readouterr().out
    for label in LABELS:
        row = re.search(rf"^{label.display} .*?(?=^\S|^\s*$)", lines, re.MULTILINE | re.DOTALL)
        assert row is not None
        assert [int(number) for number in re.findall(r"(\d+) \(-?\d+\.\d\)", row[0])] == keys[label]


def test_csv_and_overlays_name_the_slices_of_the_json(predicted: Path, document: dict[str, Any], keys: Keys) -> None:
    (row,) = csv.DictReader(io.StringIO((predicted / "studies.csv").read_text()))
    assert {label.value: row[f"{label}_key_slice_numbers"] for label in LABELS} == {
        label: " ".join(map(str, numbers)) for label, numbers in keys.items()
    }
    pictures = {path.name for path in (predicted / "overlays").rglob("*.png")}
    assert pictures == {f"slice-{number:03d}-{label}.png" for label, numbers in keys.items() for number in numbers}


def test_the_page_and_its_reports_name_the_slices_of_the_json(
    room: TestClient, study_id: str, document: dict[str, Any], keys: Keys
) -> None:
    entry = room.get(f"/api/v1/studies/{study_id}").json()
    assert {label: [index + 1 for index in found] for label, found in entry["geometry"]["key_slices"].items()} == keys
    assert entry["geometry"]["frames"] == [one["frame"] for one in document["studies"][0]["slices"]]
    assert entry["findings"]["studies"][0]["findings"] == document["studies"][0]["findings"]
    page = room.get(f"/api/v1/studies/{study_id}/report.html").text
    assert reported(page) == {label: joined(numbers) for label, numbers in keys.items()}
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    shown = {label.display: keys[label][0] for label in LABELS if keys[label]}
    assert len(captions) == len(set(shown.values())), "a picture for each slice"
    for name, number in shown.items():
        assert any(name in caption and f"slice {number} of {SLICES}" in caption for caption in captions)
    pdf = PdfReader(io.BytesIO(room.get(f"/api/v1/studies/{study_id}/report.pdf").content))
    text = " ".join(sheet.extract_text() for sheet in pdf.pages)
    assert all(joined(numbers) in text for numbers in keys.values())


@pytest.fixture
def earlier(store: Store, database: str, study_id: str) -> str:
    """The study as an earlier program stored it: findings of version 1, a geometry without frames."""
    entry = store.get(study_id)
    assert entry.geometry is not None
    assert entry.findings is not None
    geometry = json.dumps({name: value for name, value in entry.geometry.items() if name != "frames"})
    findings = document_text(as_version_1(entry.findings))
    engine = sa.create_engine(database_url(database))
    with engine.begin() as connection:
        for table, values in ((tables.studies, {"geometry": geometry}), (tables.results, {"findings": findings})):
            connection.execute(table.update().where(table.c.study_id == study_id).values(**values))
    engine.dispose()
    return study_id


def test_a_reading_of_an_earlier_program_still_opens_and_names_the_same_slices(
    room: TestClient, earlier: str, keys: Keys
) -> None:
    document = room.get(f"/api/v1/studies/{earlier}/findings").json()
    Draft202012Validator(findings_schema(1)).validate(document)
    entry = room.get(f"/api/v1/studies/{earlier}").json()
    assert entry["findings"] == document
    assert entry["urgency"] == document["studies"][0]["urgency"]
    page = room.get(f"/api/v1/studies/{earlier}/report.html").text
    assert reported(page) == {label: joined(numbers) for label, numbers in keys.items()}
    assert room.get(f"/api/v1/studies/{earlier}/report.pdf").status_code == HTTPStatus.OK
