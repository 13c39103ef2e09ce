"""The JSON document is a contract: its keys, its schema, and what must never stand in it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import jsonschema
import pytest

from hemoscope.labels import LABELS
from hemoscope.reports.findings_json import findings_document, findings_json, findings_schema
from hemoscope.reports.report import PatientIdentity, Report
from hemoscope.version import DISCLAIMER


def validate(report: Report) -> dict:
    document = json.loads(findings_json(report))
    jsonschema.Draft202012Validator(findings_schema()).validate(document)
    return document


def test_the_schema_itself_is_valid_and_closed_everywhere() -> None:
    schema = findings_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    pending, objects = [schema], []
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if part.get("type") == "object":
                objects.append(part)
                assert part["additionalProperties"] is False
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    assert len(objects) == 10


def test_a_report_has_exactly_the_documented_keys(report: Report) -> None:
    document = validate(report)
    assert list(document) == ["schema", "disclaimer", "model", "studies", "rejected"]
    assert document["schema"] == "hemoscope.findings/1"
    assert document["disclaimer"] == DISCLAIMER
    assert document["model"] == {"name": "default", "version": "1.0", "sha256": "ab" * 32}
    (study,) = document["studies"]
    assert list(study) == [
        "study_instance_uid",
        "series_instance_uid",
        "urgency",
        "probabilities",
        "findings",
        "slices",
        "quality",
        "skipped_series",
    ]
    assert list(study["findings"][0]) == ["label", "present", "established", "probability", "threshold", "slices"]
    assert list(study["slices"][0]) == [
        "sop_instance_uid",
        "source",
        "position_mm",
        "probabilities",
        "present",
        "quality",
    ]
    assert study["quality"] == [{"code": "gantry_tilt", "message": "The gantry was tilted by 12 degrees"}]
    assert list(study["skipped_series"][0]) == ["series_instance_uid", "reason", "instances"]
    assert list(document["rejected"][0]) == ["source", "code", "message"]


def test_every_number_stands_under_its_own_label_to_the_last_digit(report: Report) -> None:
    document = validate(report)
    study = report.studies[0].findings
    assert document["studies"][0]["probabilities"] == study.probabilities.as_dict()
    for written, finding in zip(document["studies"][0]["findings"], study.findings, strict=True):
        assert written["label"] == finding.label.value
        assert written["probability"] == finding.probability
        assert written["threshold"] == finding.threshold
        assert (written["present"], written["established"]) == (finding.present, finding.established)
        assert written["slices"] == list(finding.slices)
    for written, one in zip(document["studies"][0]["slices"], study.slices, strict=True):
        assert written["probabilities"] == one.probabilities.as_dict()


def test_a_run_that_read_nothing_is_still_a_valid_document(report: Report) -> None:
    document = validate(replace(report, studies=()))
    assert document["studies"] == []
    assert document["rejected"]


def test_an_unknown_position_is_null(change_slice: Callable[..., Report]) -> None:
    assert validate(change_slice(position_mm=None))["studies"][0]["slices"][0]["position_mm"] is None


@pytest.mark.parametrize("source", ["CT/höhe.dcm", "CT/\udcff.dcm", 'CT/"quoted"\n.dcm', "CT/\x1b[31m.dcm"])
def test_any_file_name_survives_in_plain_ascii(change_slice: Callable[..., Report], source: str) -> None:
    text = findings_json(change_slice(source=source))
    assert text.isascii()
    assert json.loads(text)["studies"][0]["slices"][0]["source"] == source


def test_a_number_that_is_no_number_is_refused(change_slice: Callable[..., Report]) -> None:
    with pytest.raises(ValueError, match=re.escape("not JSON compliant")):
        findings_json(change_slice(position_mm=float("nan")))


def test_identity_is_absent_unless_asked_for(report: Report, change_study: Callable[..., Report]) -> None:
    assert "patient" not in findings_json(report)
    someone = PatientIdentity(name="Roe^Jane", id="7", study_date="20190101")
    document = validate(change_study(patient=someone))
    assert document["studies"][0]["patient"] == {"name": "Roe^Jane", "id": "7", "study_date": "20190101"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.update(schema="hemoscope.findings/2"),
        lambda document: document.update(extra=1),
        lambda document: document["studies"][0].update(PatientName="x"),
        lambda document: document["studies"][0]["probabilities"].pop("any"),
        lambda document: document["studies"][0]["probabilities"].update(any=1.5),
        lambda document: document["studies"][0]["findings"].pop(),
        lambda document: document["studies"][0].update(urgency="soon"),
        lambda document: document["model"].update(sha256="short"),
    ],
)
def test_the_schema_refuses_what_is_no_findings_document(report: Report, damage: Callable[[dict], object]) -> None:
    document = findings_document(report)
    damage(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(findings_schema()).validate(document)


def test_the_schema_knows_the_six_labels_in_their_order() -> None:
    definitions = findings_schema()["$defs"]
    names = [label.value for label in LABELS]
    assert definitions["label"]["enum"] == names
    assert definitions["probabilities"]["required"] == names
    assert list(definitions["probabilities"]["properties"]) == names
