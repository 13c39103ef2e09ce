r"""Findings as JSON, schema ``hemoscope.findings/2``: for programs, stable, described by ``findings.schema.json``.

Numbers are written in full: a probability stands on the same side of its threshold in the file as in the program.
Non-ASCII characters are escaped, so the text is valid in any encoding. Bytes of file names that are no valid UTF-8 are
written as ``\xNN``: the document holds no lone surrogates.
"""

import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from hemoscope.dicom.slices import QualityNote, SliceRef, UnreadSlices
from hemoscope.files import valid_text
from hemoscope.inference.findings import Finding, SkippedSeries, SliceFindings, StudyFindings
from hemoscope.reports.findings_1 import as_version_1
from hemoscope.reports.report import PatientIdentity, Report
from hemoscope.version import DISCLAIMER

SCHEMA = "hemoscope.findings/2"


def findings_json(report: Report, *, version: int = 2) -> str:
    """Write the report as indented JSON text, ending in a newline.

    Args:
        report: what to write.
        version: of the schema, 1 or 2; 1 is for programs that do not know 2 yet.
    """
    document = findings_document(report)
    return document_text(as_version_1(document) if version == 1 else document)


def document_text(document: dict[str, Any]) -> str:
    """Write a findings document as ``findings_json`` does."""
    return json.dumps(_valid(document), indent=2, allow_nan=False) + "\n"


def _valid(value: Any) -> Any:
    """Return a document whose texts are valid Unicode: JSON may hold no lone surrogates (RFC 8259, 8.2)."""
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {key: _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list) else value


def findings_document(report: Report) -> dict[str, Any]:
    """Turn the report into plain dictionaries and lists that validate against ``findings_schema()``."""
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "model": asdict(report.model),
        "studies": [_study(study.findings, study.patient) for study in report.studies],
        "rejected": [{"source": r.source, "code": r.code, "message": r.message} for r in report.rejected],
    }


def findings_schema(version: int = 2) -> dict[str, Any]:
    """Read the JSON Schema (draft 2020-12) of a version, as shipped in the package."""
    name = "findings.schema.json" if version == 2 else f"findings-{version}.schema.json"
    text = resources.files("hemoscope.reports").joinpath(name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _study(study: StudyFindings, patient: PatientIdentity | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "study_instance_uid": study.study_instance_uid,
        "series_instance_uid": study.series_instance_uid,
        "state": study.state,
        "unread": _unread(study.unread_reasons),
        "triage": study.triage.value,
        "probabilities": study.probabilities.as_dict(),
        "findings": [_finding(finding) for finding in study.findings],
        "slices": [_slice(one) for one in study.slices],
        "quality": _quality(study.quality),
        "skipped_series": [_skipped(series) for series in study.skipped_series],
    }
    if patient is not None:
        document["patient"] = {"name": patient.name, "id": patient.id, "study_date": patient.study_date}
    return document


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "label": finding.label.value,
        "present": finding.present,
        "established": finding.established,
        "probability": finding.probability,
        "threshold": finding.threshold,
        "slices": [_ref(ref) for ref in finding.slices],
    }


def _slice(one: SliceFindings) -> dict[str, Any]:
    return {
        **_ref(one.ref),
        "source": one.source,
        "position_mm": one.position_mm,
        "probabilities": one.probabilities.as_dict(),
        "present": [label.value for label in one.present],
        "quality": _quality(one.quality),
        "scored": one.scored,
    }


def _ref(ref: SliceRef) -> dict[str, Any]:
    return {"index": ref.index, "sop_instance_uid": ref.sop_instance_uid, "frame": ref.frame}


def _unread(unread: tuple[UnreadSlices, ...]) -> dict[str, Any]:
    reasons = [{"code": one.code, "message": one.message, "count": one.count} for one in unread]
    return {"count": sum(one.count for one in unread), "reasons": reasons}


def _quality(notes: tuple[QualityNote, ...]) -> list[dict[str, str]]:
    return [{"code": note.code, "message": note.message} for note in notes]


def _skipped(series: SkippedSeries) -> dict[str, Any]:
    return {
        "series_instance_uid": series.series_instance_uid,
        "reason": series.reason,
        "instances": series.instances,
    }
