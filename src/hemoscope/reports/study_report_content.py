"""What a report on one study says, in plain words, before it becomes a page (``html``) or a sheet of paper (``pdf``).

It is written from the findings document (``findings_json``), not from the findings: a study that was read last week,
by another process, is reported from what was stored.
"""

import io
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from hemoscope.dicom.wording import counted
from hemoscope.inference.findings import Triage
from hemoscope.inference.precision import Precision
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.reports.findings_1 import key_slice_indices, triage_of
from hemoscope.reports.overlays import SlicePicture, draw_overlay
from hemoscope.reports.report import printable, shown_probability, unread_words

T = TypeVar("T", bound=Hashable)

# The words of the worklist and of the reading page.
TRIAGE_WORDS = {
    Triage.IMMEDIATE: "Immediate: any hemorrhage is at or above the urgent threshold",
    Triage.PROMPT: "Prompt: a finding reached its threshold, any hemorrhage is below the urgent one",
    Triage.UNSURE: "Unsure: the model is unsure about this study. Read it before routine ones",
    Triage.ROUTINE: "Routine: no established finding reached its threshold. This does not rule out hemorrhage",
}
INCOMPLETE_WORDS = "Incomplete: not the whole head was read. Nothing reached its threshold in what was read"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLine:
    """One label as the report shows it."""

    name: str
    probability: str
    threshold: str
    verdict: str
    key_slices: str
    present: bool
    established: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRemark:
    """What a reader said of one finding: ``verdict`` and ``note`` in the reader's words, and when."""

    label: Hemorrhage
    verdict: str
    note: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyDocument:
    """Everything that a report on one study says, in reading order; texts are plain, to be escaped where shown.

    ``tone`` names the color of the headline: the triage, or ``incomplete`` where it is routine only for what was read.
    ``unread`` says what of the head was not read, "" if the whole head was.
    ``pictures`` are pairs of a caption and a PNG; ``thresholds`` say what each threshold means.
    """

    disclaimer: str
    triage: Triage
    tone: str
    headline: str
    unread: str
    facts: tuple[tuple[str, str], ...]
    labels: tuple[LabelLine, ...]
    remarks: tuple[str, ...]
    thresholds: tuple[str, ...]
    reader: tuple[str, ...]
    measurements: tuple[str, ...]
    pictures: tuple[tuple[str, bytes], ...]


def study_document(
    document: Mapping[str, Any],
    *,
    study: int = 0,
    key_slices: Mapping[str, Sequence[int]] | None = None,
    pictures: Sequence[SlicePicture] = (),
    thresholds: Sequence[str] = (),
    reader: Sequence[ReaderRemark] = (),
    measurements: Sequence[str] = (),
    stored: Sequence[tuple[str, str]] = (),
) -> StudyDocument:
    """Put one study of a findings document into words.

    Args:
        document: of schema ``hemoscope.findings/2``, or 1.
        study: its place in the document.
        key_slices: indices by label, stored beside a document of version 1, which cannot name frames.
        pictures: slices to show, drawn as overlays.
        thresholds: what the model's thresholds mean (``threshold_words``).
        reader: what readers said of the findings.
        measurements: what readers measured, in words.
        stored: more facts, of the place where the study is kept.
    """
    found = document["studies"][study]
    triage = Triage(triage_of(found))
    incomplete = found.get("state") == "incomplete"
    partial = incomplete and triage is Triage.ROUTINE
    return StudyDocument(
        disclaimer=document["disclaimer"],
        triage=triage,
        tone="incomplete" if partial else triage.value,
        headline=INCOMPLETE_WORDS if partial else TRIAGE_WORDS[triage],
        unread=_unread(found, "Reason" if partial else "Not the whole head was read") if incomplete else "",
        facts=(*((name, printable(value)) for name, value in stored), *_facts(document["model"], found)),
        labels=tuple(
            _label(finding, key_slice_indices(finding, found["slices"], key_slices)) for finding in found["findings"]
        ),
        remarks=_remarks(found),
        thresholds=tuple(thresholds),
        reader=tuple(_remark(remark) for remark in reader),
        measurements=tuple(printable(text) for text in measurements),
        pictures=tuple((_caption(picture), _png(draw_overlay(picture))) for picture in pictures),
    )


def shown_slices(key_slices: PerLabel[Sequence[T]]) -> Iterator[tuple[T, tuple[Hemorrhage, ...]]]:
    """Yield what a report shows as pictures: a slice, and the labels that it is shown for; its map is the first's.

    These are the key slices of each label that has any. Labels that share a slice share a picture.

    Args:
        key_slices: those of the highest own score first.
    """
    shown: dict[T, tuple[Hemorrhage, ...]] = {}
    for label, slices in key_slices.items():
        if slices:
            shown[slices[0]] = (*shown.get(slices[0], ()), label)
    return iter(shown.items())


def _unread(study: Mapping[str, Any], title: str) -> str:
    reasons = study.get("unread", {}).get("reasons", ())
    words = "; ".join(unread_words(one["count"], one["message"]) for one in reasons)
    return printable(f"{title}: {words or 'not stated'}")


def _facts(model: Mapping[str, Any], study: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    patient = study.get("patient") or {}
    named = [
        ("Patient", patient.get("name")),
        ("Patient ID", patient.get("id")),
        ("Study date", patient.get("study_date")),
    ]
    slices = counted(len(study["slices"]), "slice")
    facts = [
        *((name, printable(value)) for name, value in named if value),
        ("Study", printable(study["study_instance_uid"])),
        ("Series read", f"{printable(study['series_instance_uid'])} ({slices}{_state(study)})"),
        ("Model", f"{model['name']} {model['version']} (bundle {model['sha256'][:12]}, {_precision(model)})"),
    ]
    return tuple(facts)


def _precision(model: Mapping[str, Any]) -> str:
    """How the network was computed; documents of earlier versions do not say."""
    return str(model.get("precision", Precision.FLOAT32.value))


def _state(study: Mapping[str, Any]) -> str:
    return ", incomplete" if study.get("state") == "incomplete" else ""


def _label(finding: Mapping[str, Any], key_slices: Sequence[int]) -> LabelLine:
    return LabelLine(
        name=Hemorrhage(finding["label"]).display,
        probability=shown_probability(finding["probability"]),
        threshold=shown_probability(finding["threshold"]),
        verdict=_verdict(present=finding["present"], established=finding["established"]),
        key_slices=", ".join(str(index + 1) for index in key_slices),
        present=finding["present"],
        established=finding["established"],
    )


def _verdict(*, present: bool, established: bool) -> str:
    if established:
        return "Suspected" if present else "Below threshold"
    return "Not established, suspected" if present else "Not established"


def _remarks(study: Mapping[str, Any]) -> tuple[str, ...]:
    reported = {note["code"] for note in study["quality"]}
    reasons = study.get("unread", {}).get("reasons", ())
    remarks = [
        unread_words(one["count"], one["message"]) for one in reasons if one["count"] or one["code"] not in reported
    ]
    remarks += [note["message"] for note in study["quality"]]
    notes = [note for one in study["slices"] for note in one["quality"] if note["code"] not in reported]
    messages = {note["code"]: note["message"] for note in reversed(notes)}
    counts = Counter(note["code"] for note in notes)
    remarks += [f"{messages[code]} ({count} of {len(study['slices'])} slices)" for code, count in counts.items()]
    remarks += [
        f"A series of {counted(one['instances'], 'slice')} was not read: {one['reason']}"
        for one in study["skipped_series"]
    ]
    if not all(finding["established"] for finding in study["findings"]):  # last: it stands in nearly every report
        remarks.append(
            "Not established: validation does not support this label. Suspected only together with any hemorrhage."
        )
    return tuple(printable(remark[:1].upper() + remark[1:]) for remark in remarks)


def _remark(remark: ReaderRemark) -> str:
    parts = (f"{remark.label.display}: {remark.verdict}", remark.note, remark.at)
    return printable(". ".join(part for part in parts if part))


def _caption(picture: SlicePicture) -> str:
    names = " and ".join(", ".join(one.display for one in named) for named in _last_apart(picture.labels))
    words = f"{names}, slice {picture.number} of {picture.count}"
    if len(picture.labels) > 1:
        words += f". Heat map of {picture.label.display.lower()}"
    return words if picture.shows_heat else f"{words}. The heat map shows nothing on this slice"


def _last_apart(labels: tuple[Hemorrhage, ...]) -> Iterator[tuple[Hemorrhage, ...]]:
    """The labels before the last one, if there are any, then the last one."""
    return (part for part in (labels[:-1], labels[-1:]) if part)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
