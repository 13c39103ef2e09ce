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

from hemoscope.inference.findings import Triage
from hemoscope.inference.precision import Precision
from hemoscope.labels import Hemorrhage, PerLabel
from hemoscope.messages.catalogue import Catalogue, english
from hemoscope.reports.findings_1 import key_slice_indices, triage_of
from hemoscope.reports.overlays import SlicePicture, draw_overlay
from hemoscope.reports.report import printable, shown_probability

T = TypeVar("T", bound=Hashable)

# Of a study of which the head was not read in full, and nothing reached its threshold in what was read.
INCOMPLETE = "incomplete"


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
    ``catalogue`` has the texts of all this, and of the page or sheet around it.
    """

    catalogue: Catalogue
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


def study_document(  # noqa: PLR0913  (what a report is made of)
    document: Mapping[str, Any],
    *,
    study: int = 0,
    key_slices: Mapping[str, Sequence[int]] | None = None,
    pictures: Sequence[SlicePicture] = (),
    thresholds: Sequence[str] = (),
    reader: Sequence[ReaderRemark] = (),
    measurements: Sequence[str] = (),
    stored: Sequence[tuple[str, str]] = (),
    catalogue: Catalogue | None = None,
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
        catalogue: of the texts; without one, that which ships.
    """
    texts = catalogue or english()
    found = document["studies"][study]
    triage = Triage(triage_of(found))
    incomplete = found.get("state") == "incomplete"
    partial = incomplete and triage is Triage.ROUTINE
    return StudyDocument(
        catalogue=texts,
        disclaimer=texts.instead("report.disclaimer", document["disclaimer"]),
        triage=triage,
        tone=INCOMPLETE if partial else triage.value,
        headline=texts.text(headline_key(INCOMPLETE if partial else triage.value)),
        unread=_unread(texts, found, "report.reason" if partial else "report.not-whole") if incomplete else "",
        facts=(*((name, printable(value)) for name, value in stored), *_facts(texts, document["model"], found)),
        labels=tuple(
            _label(texts, finding, key_slice_indices(finding, found["slices"], key_slices))
            for finding in found["findings"]
        ),
        remarks=_remarks(texts, found),
        thresholds=tuple(thresholds),
        reader=tuple(_remark(texts, remark) for remark in reader),
        measurements=tuple(printable(text) for text in measurements),
        pictures=tuple((_caption(texts, picture), _png(draw_overlay(picture, texts))) for picture in pictures),
    )


def headline_key(tone: str) -> str:
    """The catalogue's key of a study's headline, by its triage or ``INCOMPLETE``."""
    return f"report.headline-{tone}"


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


def _unread(texts: Catalogue, study: Mapping[str, Any], key: str) -> str:
    reasons = study.get("unread", {}).get("reasons", ())
    words = "; ".join(_unread_words(texts, one) for one in reasons)
    return printable(texts.text(key, reasons=words or texts.text("report.not-stated")))


def _unread_words(texts: Catalogue, reason: Mapping[str, Any]) -> str:
    """Put one reason of ``unread`` into words."""
    said = _noted(texts, reason)
    return texts.text("report.unread", count=reason["count"], reason=said) if reason["count"] else said


def _noted(texts: Catalogue, note: Mapping[str, Any]) -> str:
    """The message of a note, which is English; a site's own catalogue has a title for it in its language."""
    key = f"quality.{note['code']}"
    if not texts.translates(key):
        return str(note["message"])
    return texts.text("study.reason", what=texts.text(key), reason=note["message"])


def _facts(texts: Catalogue, model: Mapping[str, Any], study: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    patient = study.get("patient") or {}
    named = [
        ("report.patient", patient.get("name")),
        ("report.patient-id", patient.get("id")),
        ("report.study-date", patient.get("study_date")),
    ]
    series = {
        "uid": printable(study["series_instance_uid"]),
        "slices": texts.text("count.slices", count=len(study["slices"])),
    }
    incomplete = study.get("state") == INCOMPLETE
    read_by = {
        "name": model["name"],
        "version": model["version"],
        "bundle": model["sha256"][:12],
        "precision": _precision(model),
    }
    facts = [
        *((key, printable(value)) for key, value in named if value),
        ("report.study", printable(study["study_instance_uid"])),
        (
            "report.series",
            texts.text("report.series-incomplete" if incomplete else "report.series-slices", **series),
        ),
        ("report.model", texts.text("report.model-bundle", **read_by)),
    ]
    return tuple((texts.text(key), value) for key, value in facts)


def _precision(model: Mapping[str, Any]) -> str:
    """How the network was computed; documents of earlier versions do not say."""
    return str(model.get("precision", Precision.FLOAT32.value))


def _label(texts: Catalogue, finding: Mapping[str, Any], key_slices: Sequence[int]) -> LabelLine:
    return LabelLine(
        name=texts.text(f"label.{Hemorrhage(finding['label']).value}"),
        probability=shown_probability(finding["probability"]),
        threshold=shown_probability(finding["threshold"]),
        verdict=texts.text(_verdict(present=finding["present"], established=finding["established"])),
        key_slices=", ".join(str(index + 1) for index in key_slices),
        present=finding["present"],
        established=finding["established"],
    )


def _verdict(*, present: bool, established: bool) -> str:
    if established:
        return "finding.suspected" if present else "finding.below"
    return "finding.not-established-suspected" if present else "finding.not-established"


def _remarks(texts: Catalogue, study: Mapping[str, Any]) -> tuple[str, ...]:
    reported = {note["code"] for note in study["quality"]}
    reasons = study.get("unread", {}).get("reasons", ())
    remarks = [_unread_words(texts, one) for one in reasons if one["count"] or one["code"] not in reported]
    remarks += [_noted(texts, note) for note in study["quality"]]
    notes = [note for one in study["slices"] for note in one["quality"] if note["code"] not in reported]
    messages = {note["code"]: _noted(texts, note) for note in reversed(notes)}
    counts = Counter(note["code"] for note in notes)
    remarks += [
        texts.text("report.remark-of-slices", remark=messages[code], found=found, count=len(study["slices"]))
        for code, found in counts.items()
    ]
    remarks += [
        texts.text("report.series-not-read", count=one["instances"], reason=one["reason"])
        for one in study["skipped_series"]
    ]
    if not all(finding["established"] for finding in study["findings"]):  # last: it stands in nearly every report
        remarks.append(texts.text("report.not-established"))
    return tuple(printable(remark[:1].upper() + remark[1:]) for remark in remarks)


def _remark(texts: Catalogue, remark: ReaderRemark) -> str:
    said = texts.text("report.reader", label=texts.text(f"label.{remark.label.value}"), verdict=remark.verdict)
    parts = (said, remark.note, remark.at)
    return printable(". ".join(part for part in parts if part))


def _caption(texts: Catalogue, picture: SlicePicture) -> str:
    *first, last = (texts.text(f"label.{one.value}") for one in picture.labels)
    names = texts.text("report.and", first=", ".join(first), last=last) if first else last
    words = texts.text("report.caption", labels=names, number=picture.number, total=picture.count)
    if first:
        within = texts.text(f"label-within.{picture.label.value}")
        words = texts.text("report.caption-heat", caption=words, label=within)
    return words if picture.shows_heat else texts.text("report.caption-nothing", caption=words)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()
