"""The JSON document is a contract: its keys, its schema, and what must never stand in it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from hemoscope.dicom.slices import Rejected, SliceRef, UnreadSlices
from hemoscope.inference.findings import Triage
from hemoscope.labels import LABELS
from hemoscope.reports.findings_json import findings_document, findings_json, findings_schema
from hemoscope.reports.report import PatientIdentity, Report
from hemoscope.version import DISCLAIMER

from .conftest import make_frame


def validate(report: Report, version: int = 2) -> dict:
    document = json.loads(findings_json(report, version=version))
    jsonschema.Draft202012Validator(findings_schema(version)).validate(document)
    return document


@pytest.mark.parametrize(("version", "count"), [(1, 10), (2, 13)])
def test_the_schema_itself_is_valid_and_closed_everywhere(version: int, count: int) -> None:
    schema = findings_schema(version)
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
    assert len(objects) == count


def test_a_report_has_exactly_the_documented_keys(report: Report) -> None:
    document = validate(report)
    assert list(document) == ["schema", "disclaimer", "model", "studies", "rejected"]
    assert document["schema"] == "hemoscope.findings/2"
    assert document["disclaimer"] == DISCLAIMER
    assert document["model"] == {"name": "default", "version": "1.0", "sha256": "ab" * 32, "precision": "float32"}
    (study,) = document["studies"]
    assert list(study) == [
        "study_instance_uid",
        "series_instance_uid",
        "state",
        "unread",
        "triage",
        "probabilities",
        "findings",
        "slices",
        "quality",
        "skipped_series",
    ]
    assert list(study["findings"][0]) == ["label", "present", "established", "probability", "threshold", "slices"]
    assert list(study["slices"][0]) == [
        "index",
        "sop_instance_uid",
        "frame",
        "source",
        "position_mm",
        "probabilities",
        "present",
        "quality",
        "scored",
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
        assert [SliceRef(**ref) for ref in written["slices"]] == list(finding.slices)
    for written, one in zip(document["studies"][0]["slices"], study.slices, strict=True):
        assert written["probabilities"] == one.probabilities.as_dict()
        assert SliceRef(**{name: written[name] for name in ("index", "sop_instance_uid", "frame")}) == one.ref


def test_frames_of_one_file_are_told_apart(change_study: Callable[..., Report]) -> None:
    frames = tuple(make_frame(index) for index in range(4))
    (study,) = validate(change_study(slices=frames, keys=(3, 1)))["studies"]
    uid = frames[0].ref.sop_instance_uid
    assert study["findings"][0]["slices"] == [
        {"index": 3, "sop_instance_uid": uid, "frame": 0},
        {"index": 1, "sop_instance_uid": uid, "frame": 2},
    ]


def test_a_study_says_how_many_slices_are_unread_and_why(change_study: Callable[..., Report]) -> None:
    (whole,) = validate(change_study())["studies"]
    assert (whole["state"], whole["unread"]) == ("complete", {"count": 0, "reasons": []})
    lost = (
        UnreadSlices(code="no_rescale", message="no rescale. Export it again", count=3),
        UnreadSlices(code="malformed", message="damaged. Export it again", count=1),
    )
    (study,) = validate(change_study(unread=lost))["studies"]
    assert study["state"] == "incomplete"
    assert study["unread"]["count"] == 4
    assert [(one["code"], one["count"]) for one in study["unread"]["reasons"]] == [("no_rescale", 3), ("malformed", 1)]


@pytest.mark.parametrize("triage", Triage)
def test_every_triage_is_in_both_versions(change_study: Callable[..., Report], triage: Triage) -> None:
    report = change_study(triage=triage)
    assert validate(report)["studies"][0]["triage"] == triage.value
    earlier = validate(report, version=1)["studies"][0]["urgency"]
    assert earlier == ("prompt" if triage is Triage.UNSURE else triage.value)


def test_a_slice_says_whether_it_was_scored_or_interpolated(change_slice: Callable[..., Report]) -> None:
    scored = [one["scored"] for one in validate(change_slice(scored=False))["studies"][0]["slices"]]
    assert scored == [False, True, True, True]
    assert "scored" not in validate(change_slice(scored=False), version=1)["studies"][0]["slices"][0]


def test_version_1_is_written_to_the_letter_as_it_was(change_study: Callable[..., Report]) -> None:
    someone = PatientIdentity(name="Roe^Jane", id="7", study_date="20190101")
    expected = Path(__file__).with_name("findings-1.json").read_text()
    assert findings_json(change_study(patient=someone), version=1) == expected
    jsonschema.Draft202012Validator(findings_schema(1)).validate(json.loads(expected))


def test_a_run_that_read_nothing_is_still_a_valid_document(report: Report) -> None:
    document = validate(replace(report, studies=()))
    assert document["studies"] == []
    assert document["rejected"]


def test_an_unknown_position_is_null(change_slice: Callable[..., Report]) -> None:
    assert validate(change_slice(position_mm=None))["studies"][0]["slices"][0]["position_mm"] is None


@pytest.mark.parametrize("source", ["CT/höhe.dcm", 'CT/"quoted"\n.dcm', "CT/\x1b[31m.dcm"])
def test_any_file_name_survives_in_plain_ascii(change_slice: Callable[..., Report], source: str) -> None:
    text = findings_json(change_slice(source=source))
    assert text.isascii()
    assert json.loads(text)["studies"][0]["slices"][0]["source"] == source


def test_a_file_name_that_is_no_unicode_is_escaped_and_the_document_is_valid(
    change_slice: Callable[..., Report],
) -> None:
    report = change_slice(source="\udcb8\udcb8/\ud800.dcm")
    rejected = (Rejected(source="\udcc4", code="x", message="\udcc4: no"),)
    text = findings_json(replace(report, rejected=rejected))
    document = json.loads(text)
    json.dumps(document, ensure_ascii=False).encode("utf-8")  # fails on a lone surrogate
    assert document["studies"][0]["slices"][0]["source"].startswith("\\")
    assert document["rejected"] == [{"source": "\\xc4", "code": "x", "message": "\\xc4: no"}]


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
        lambda document: document.update(schema="hemoscope.findings/3"),
        lambda document: document.update(extra=1),
        lambda document: document["studies"][0].update(PatientName="x"),
        lambda document: document["studies"][0]["probabilities"].pop("any"),
        lambda document: document["studies"][0]["probabilities"].update(any=1.5),
        lambda document: document["studies"][0]["findings"].pop(),
        lambda document: document["studies"][0].update(triage="soon"),
        lambda document: document["studies"][0].update(urgency="prompt"),
        lambda document: document["studies"][0].update(state="done"),
        lambda document: document["studies"][0]["unread"].pop("count"),
        lambda document: document["studies"][0]["slices"][0].update(index=-1),
        lambda document: document["studies"][0]["findings"][0]["slices"].append("1.2.3"),
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
