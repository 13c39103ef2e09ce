"""``hemoscope reproduce paper``: every number of the paper beside the recomputed one, as JSON and as one page.

Shape of ``reproduction.json`` (``hemoscope.reproduction/1``): see docs/reference/reproduction.md.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hemoscope.data.rsna import read_rsna_labels
from hemoscope.evaluation.prediction_files import LabelledPredictions, read_predictions
from hemoscope.evaluation.published_paper import PAPER_CITATION, PLACES, PUBLISHED, PublishedNumber, Source
from hemoscope.evaluation.recomputed_numbers import (
    Recomputed,
    Values,
    at_printed_thresholds,
    from_labels,
    from_recipe,
    from_report,
    from_timing,
    point_intervals,
    with_intervals,
)
from hemoscope.evaluation.report import evaluate
from hemoscope.evaluation.reproduction_page import render_reproduction
from hemoscope.evaluation.reproduction_plots import draw_label_counts, draw_windows
from hemoscope.evaluation.score_documents import Document
from hemoscope.files import write_bytes, write_text
from hemoscope.labels import LABELS
from hemoscope.version import DISCLAIMER, __version__

SCHEMA = "hemoscope.reproduction/1"
# Folder of the evaluation report inside the output.
EVALUATION = "evaluation"
# Pictures that the evaluation report does not hold.
OWN_PICTURES = {"label_counts", "windows"}
_ROUNDING = 1e-9  # of binary fractions, so that .9825 counts as rounding to .983


class Status(StrEnum):
    """What became of a published number."""

    REPRODUCED = "reproduced"
    CONSISTENT = "consistent"
    DIFFERS = "differs"
    MEASURED = "measured"
    NOT_RECOMPUTED = "not recomputed"


STATUSES: dict[Status, str] = {
    Status.REPRODUCED: "equal, rounded to the digits that the paper prints",
    Status.CONSISTENT: "other digits, but the published number lies within the 95% interval of the recomputed one",
    Status.DIFFERS: "outside that interval, or without an interval and with other digits: see the notes",
    Status.MEASURED: "measured on this machine, beside the paper's own machine",
    Status.NOT_RECOMPUTED: "needs something that was not given, or that nobody has published",
}

_OWN_COMMAND = "hemoscope reproduce paper --output DIR"
_SCORES = "--predictions P.csv.gz --labels L.csv.gz"
_PREPARE = "hemoscope prepare rsna --images stage_2_train --labels stage_2_train.csv --output cache/rsna"
_IMAGES = "the DICOM files of RSNA 2019 (Kaggle), ImageNet weights, and a GPU for days"
# What a number of each source needs, and the command that recomputes it.
NEEDS: dict[Source, tuple[str, str | None]] = {
    Source.PREDICTIONS: (
        "the probabilities of the paper's network for its test slices, and the official labels of the same slices",
        f"{_OWN_COMMAND} {_SCORES}",
    ),
    Source.DATASET: (
        "the label file of RSNA 2019, stage_2_train.csv (Kaggle)",
        f"{_OWN_COMMAND} --rsna-labels stage_2_train.csv",
    ),
    Source.RECIPE: ("nothing: paper.toml is part of the package", _OWN_COMMAND),
    Source.TIMING: (
        "the extra train, and a series of head CT as DICOM",
        f"{_OWN_COMMAND} --timing --slices FOLDER",
    ),
    Source.TRAINING: (_IMAGES, f"{_PREPARE} && hemoscope train paper --data cache/rsna --output runs/paper"),
    Source.FROZEN: (_IMAGES, f"{_PREPARE} && hemoscope train paper-frozen --data cache/rsna --output runs/frozen"),
    Source.NOWHERE: ("information that the public files do not contain", None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperData:
    """Files to recompute from; each may be None.

    ``predictions`` and ``labels`` belong together, and are as for ``evaluate_predictions``; ``group_column`` names the
    patient in them. ``rsna_labels`` is Kaggle's ``stage_2_train.csv``.
    """

    predictions: Path | None = None
    labels: Path | None = None
    group_column: str | None = None
    rsna_labels: Path | None = None


def reproduce_paper(
    output: Path,
    data: PaperData,
    *,
    timing: Document | None = None,
    rounds: int,
    seed: int,
) -> Document:
    """Write ``reproduction.json``, ``reproduction.html`` and PNGs into ``output``, and return the JSON document.

    With predictions, their whole evaluation report is written to ``output/evaluation``.

    Args:
        output: a folder, created if missing; files of an earlier reproduction are replaced.
        data: the files to recompute from.
        timing: the document of ``training.deployment_timing``, if it was measured.
        rounds: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: a file cannot be read, or predictions and labels do not match.
        MissingExtraError: matplotlib is not installed.
    """
    output.mkdir(parents=True, exist_ok=True)
    found = _Evidence.of(data, output, rounds=rounds, seed=seed)
    values = from_recipe() | found.values | ({} if timing is None else from_timing(timing))
    document = reproduction_document(values, data, found.explanations, rounds=rounds, seed=seed) | {
        "warnings": list(found.warnings),
        "table_1": found.rows,
        "timing": timing,
    }
    for name in OWN_PICTURES & set(found.pictures):
        write_bytes(output / f"{name}.png", found.pictures[name])
    write_text(output / "reproduction.json", json.dumps(document, indent=2, allow_nan=False) + "\n")
    write_text(output / "reproduction.html", render_reproduction(document, found.pictures))
    return document


def reproduction_document(
    values: Values, data: PaperData, explanations: Mapping[str, str], *, rounds: int, seed: int
) -> Document:
    """Compare every published number with the recomputed values; see the reference for the keys.

    Args:
        values: recomputed values by key.
        data: the files that they come from, for the commands.
        explanations: of numbers that differ, by id; added to their notes.
        rounds: of the bootstrap.
        seed: of the bootstrap.
    """
    numbers = [compared(number, values.get(number.key), _command(number, data, rounds, seed)) for number in PUBLISHED]
    for number in numbers:
        if number["status"] == Status.DIFFERS and number["id"] in explanations:
            number["note"] = f"{number['note']} {explanations[number['id']]}".strip()
    counts = Counter(str(number["status"]) for number in numbers)
    return {
        "schema": SCHEMA,
        "hemoscope": __version__,
        "disclaimer": DISCLAIMER,
        "paper": PAPER_CITATION,
        "files": {
            "predictions": _name(data.predictions),
            "labels": _name(data.labels),
            "rsna_labels": _name(data.rsna_labels),
        },
        "bootstrap": {"rounds": rounds, "seed": seed, "unit": "image" if data.group_column is None else "group"},
        "statuses": {str(status): meaning for status, meaning in STATUSES.items()},
        "counts": {str(status): counts[status] for status in STATUSES},
        "places": {where: {"title": title, "note": note} for where, (title, note) in PLACES.items()},
        "numbers": numbers,
    }


def compared(number: PublishedNumber, found: Recomputed | None, command: str | None) -> Document:
    """Return one number of the document: published, recomputed, difference, status, note, command and what it needs."""
    status = _status(number, found)
    needs, missing_command = NEEDS[number.source]
    return {
        "id": number.id,
        "where": number.where,
        "row": number.row,
        "column": number.column,
        "printed": number.printed,
        "published": number.value,
        "unit": number.unit,
        "recomputed": None
        if found is None
        else {"value": found.value, "low": found.low, "high": found.high, "basis": found.basis},
        "difference": None if found is None else found.value - number.value,
        "status": str(status),
        "note": number.note,
        "command": missing_command if found is None else command,
        "needs": needs if found is None else None,
    }


def _status(number: PublishedNumber, found: Recomputed | None) -> Status:
    if found is None:
        return Status.NOT_RECOMPUTED
    if number.where == "VI":
        return Status.MEASURED
    half = number.step / 2 + _ROUNDING
    if abs(found.value - number.value) <= half:
        return Status.REPRODUCED
    if found.low is None or found.high is None:
        return Status.DIFFERS
    return Status.CONSISTENT if found.low - half <= number.value <= found.high + half else Status.DIFFERS


def _command(number: PublishedNumber, data: PaperData, rounds: int, seed: int) -> str | None:
    """The command that recomputes this number alone, with the files' names."""
    if number.source is Source.PREDICTIONS and data.predictions is not None and data.labels is not None:
        groups = "" if data.group_column is None else f" --groups {data.group_column}"
        files = f"--predictions {data.predictions.name} --labels {data.labels.name}{groups}"
        return f"hemoscope evaluate {files} --output DIR --rounds {rounds} --seed {seed}"
    if number.source is Source.DATASET and data.rsna_labels is not None:
        return f"{_OWN_COMMAND} --rsna-labels {data.rsna_labels.name}"
    if number.source is Source.DATASET and data.labels is not None:
        return f"{_OWN_COMMAND} {_SCORES}"
    return NEEDS[number.source][1]


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """What the given files yield: values, rows for Table I, pictures and warnings."""

    values: Values
    rows: list[Document]
    pictures: Mapping[str, bytes]
    warnings: tuple[str, ...]
    explanations: Mapping[str, str]

    @classmethod
    def of(cls, data: PaperData, output: Path, *, rounds: int, seed: int) -> "_Evidence":
        values: Values = {}
        pictures = {"windows": draw_windows()}
        warnings: list[str] = []
        explanations: dict[str, str] = {}
        named: dict[str, tuple[float | int | None, ...]] = {}
        if data.predictions is not None and data.labels is not None:
            scored = read_predictions(data.predictions, data.labels, group_column=data.group_column)
            values |= _scores(scored, output / EVALUATION, warnings, rounds=rounds, seed=seed)
            pictures |= {
                name: (output / EVALUATION / f"{name}.png").read_bytes() for name in ("precision_recall", "roc")
            }
            explanations = _explanations(scored)
            named = dict(zip(scored.image_ids, map(tuple, scored.labels.tolist()), strict=True))
            values |= from_labels(named.values(), f"{len(named):,} test slices", whole=False)
        if data.rsna_labels is not None:
            named = {image_id: image.labels for image_id, image in read_rsna_labels(data.rsna_labels).items()}
            values |= from_labels(named.values(), data.rsna_labels.name, whole=True)
        if named:
            pictures["label_counts"] = draw_label_counts(named.values())
        return cls(
            values=values,
            rows=_table_one(named),
            pictures=pictures,
            warnings=tuple(warnings),
            explanations=explanations,
        )


def _scores(scored: LabelledPredictions, folder: Path, warnings: list[str], *, rounds: int, seed: int) -> Values:
    report = evaluate(scored, folder, rounds=rounds, seed=seed)
    warnings += report["warnings"]
    ends = point_intervals(scored.probabilities, scored.labels, scored.groups, rounds=rounds, seed=seed)
    return with_intervals(from_report(report), ends)


def _explanations(scored: LabelledPredictions) -> dict[str, str]:
    return {
        number: f"At the printed threshold, accuracy here is {accuracy:.3f}."
        for number, accuracy in at_printed_thresholds(scored.probabilities, scored.labels).items()
    }


def _table_one(named: Mapping[str, tuple[float | int | None, ...]]) -> list[Document]:
    """The first image of each number of diagnoses, as in the paper's Table I: an id and six labels."""
    first: dict[int, Document] = {}
    for image_id, six in named.items():
        if all(value in (0, 1) for value in six):
            labels = {label.value: int(value or 0) for label, value in zip(LABELS, six, strict=True)}
            first.setdefault(sum(labels.values()), {"image_id": image_id, "labels": labels})
    return [first[count] for count in sorted(first)]
