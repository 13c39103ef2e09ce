"""Hand-made findings: every report is tested on values, without a model or a DICOM file."""

from collections.abc import Callable
from typing import Any

import pytest

from hemoscope.dicom.slices import QualityNote, Rejected, SliceRef
from hemoscope.inference.findings import Finding, SkippedSeries, SliceFindings, StudyFindings, Triage
from hemoscope.labels import LABELS, Hemorrhage, PerLabel
from hemoscope.reports.report import ModelIdentity, Report, ReportedStudy

STUDY_UID = "1.2.826.0.1.3680043.8.498.111"
# Each label its own number, so that no two can change places unseen.
PROBABILITIES = PerLabel.of([0.91, 0.12, 0.83, 0.04, 0.45, 0.26])
PRESENT = {Hemorrhage.ANY, Hemorrhage.INTRAPARENCHYMAL, Hemorrhage.SUBARACHNOID}
NOT_ESTABLISHED = {Hemorrhage.SUBARACHNOID, Hemorrhage.EPIDURAL}


def make_slice(index: int, **changes: Any) -> SliceFindings:
    fields: dict[str, Any] = {
        "ref": SliceRef(index=index, sop_instance_uid=f"{STUDY_UID}.1.{index}", frame=0),
        "source": f"CT/IM{index:04d}.dcm",
        "position_mm": -10.0 + 5.0 * index,
        "probabilities": PerLabel.of([p / (index + 1) for p in PROBABILITIES.values]),
        "present": (Hemorrhage.ANY,) if index == 0 else (),
        "quality": (),
    }
    return SliceFindings(**{**fields, **changes})


def make_finding(label: Hemorrhage, slices: tuple[SliceRef, ...]) -> Finding:
    return Finding(
        label=label,
        present=label in PRESENT,
        established=label not in NOT_ESTABLISHED,
        probability=PROBABILITIES[label],
        threshold=0.3 + 0.01 * LABELS.index(label),
        slices=slices if label in PRESENT else (),
    )


def make_frame(index: int, **changes: Any) -> SliceFindings:
    """A slice of a multi-frame file: all share one UID, and frames stand from head to feet in the file."""
    ref = SliceRef(index=index, sop_instance_uid=f"{STUDY_UID}.1.0", frame=3 - index)
    return make_slice(index, ref=ref, source="CT/IM0000.dcm", **changes)


def make_study(**changes: Any) -> StudyFindings:
    """``keys`` are the indices of the key slices of every label that is present."""
    slices = changes.pop("slices", tuple(make_slice(index) for index in range(4)))
    key = tuple(slices[index].ref for index in changes.pop("keys", (0, 1)) if index < len(slices))
    fields: dict[str, Any] = {
        "study_instance_uid": STUDY_UID,
        "series_instance_uid": f"{STUDY_UID}.1",
        "triage": Triage.IMMEDIATE,
        "probabilities": PROBABILITIES,
        "findings": tuple(make_finding(label, key) for label in LABELS),
        "slices": slices,
        "quality": (QualityNote(code="gantry_tilt", message="The gantry was tilted by 12 degrees"),),
        "skipped_series": (SkippedSeries(series_instance_uid=f"{STUDY_UID}.2", reason="bone kernel", instances=64),),
    }
    return StudyFindings(**{**fields, **changes})


def make_reported(**changes: Any) -> ReportedStudy:
    """``patient`` is the reported study's own, all else the findings'."""
    patient = changes.pop("patient", None)
    return ReportedStudy(findings=make_study(**changes), patient=patient)


def make_report(**changes: Any) -> Report:
    fields: dict[str, Any] = {
        "model": ModelIdentity(name="default", version="1.0", sha256="ab" * 32, precision="float32"),
        "studies": (make_reported(),),
        "rejected": (
            Rejected(source="CT/notes.txt", code="not_dicom", message="it is not a DICOM file. Leave it out"),
        ),
    }
    return Report(**{**fields, **changes})


@pytest.fixture
def report() -> Report:
    """One study with findings, a quality note and a skipped series; one refused input."""
    return make_report()


@pytest.fixture
def change_study() -> Callable[..., Report]:
    """``change_study(triage=...)``: the report with its study changed."""
    return lambda **changes: make_report(studies=(make_reported(**changes),))


@pytest.fixture
def change_slice() -> Callable[..., Report]:
    """``change_slice(source=...)``: the report with its first slice changed."""

    def change(**changes: Any) -> Report:
        return make_report(studies=(make_reported(slices=(make_slice(0, **changes), *make_study().slices[1:])),))

    return change
