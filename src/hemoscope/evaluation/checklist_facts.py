"""Facts that an evaluation and a model's card hold, in one sentence each, for the items of reporting guidelines.

A fact is None if it is unknown. Nothing is inferred: a fact says what a file holds, never that an item is fulfilled.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from hemoscope.evaluation.clinical_tables import LEVELS
from hemoscope.evaluation.flow import counted
from hemoscope.inference.card import ModelCard
from hemoscope.labels import LABELS
from hemoscope.version import __version__

_PACKAGES = ("numpy", "scipy", "scikit-learn", "openvino")
_CASE_LEVELS = ("series_level", "group_level")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """The report of an evaluation (``report.json``), and the card of its model; None for a file of predictions."""

    report: Mapping[str, Any]
    card: ModelCard | None


def _technology(evidence: Evidence) -> str | None:
    card = evidence.card
    if card is None:
        return None
    return f"Deep learning on CT images: {card.description}"


def _model_identity(evidence: Evidence) -> str | None:
    source = evidence.report["source"]
    if source is None:
        return None
    model = source["model"]
    return f"{model['name']} {model['version']}, SHA-256 {model['sha256']}."


def _architecture(evidence: Evidence) -> str | None:
    card = evidence.card
    if card is None:
        return None
    size, neighbors = card.preprocessing.size, card.preprocessing.neighbours
    series = "" if card.sequence is None else " A second network reads the whole series."
    return f"{card.description} Input: {size} x {size} pixels, {neighbors} neighboring slices on each side.{series}"


def _preprocessing(evidence: Evidence) -> str | None:
    if evidence.card is None:
        return None
    plain = evidence.card.preprocessing.to_json()
    return f"From the card: {', '.join(f'{name} {value}' for name, value in plain.items())}."


def _intended_use(evidence: Evidence) -> str | None:
    return None if evidence.card is None else " ".join(evidence.card.limits_of_use)


def _limitations(evidence: Evidence) -> str | None:
    limits = [] if evidence.card is None else [f"The card: {' '.join(evidence.card.limits_of_use)}"]
    warnings = [f"The report warns: {text}" for text in evidence.report["warnings"]]
    return " ".join([*limits, *warnings]) or None


def _source(evidence: Evidence) -> str | None:
    source = evidence.report["source"]
    return None if source is None else f"Evaluated on {source['dataset']}."


def _training_data(evidence: Evidence) -> str | None:
    if evidence.card is None:
        return None
    named = [f"{d.name} ({d.version}; DOI {d.doi}; {d.license})" for d in evidence.card.training_data]
    return f"Trained on {'; '.join(named)}."


def _availability(evidence: Evidence) -> str | None:
    training = _training_data(evidence)
    analysis = f"The analysis is Hemoscope {__version__}, open source (Apache-2.0)."
    return analysis if training is None else f"{analysis} {training}"


def _partition(evidence: Evidence) -> str | None:
    split = None if evidence.card is None else evidence.card.split
    if split is None:
        return None
    return (
        f"{split.dataset} was split by {split.by} with seed {split.seed}: validation {split.validation:g}, test "
        f"{split.test:g}."
    )


def _disjoint(evidence: Evidence) -> str | None:
    split = None if evidence.card is None else evidence.card.split
    if split is None or evidence.report["source"]["dataset"] != split.dataset:
        return None
    if split.by == "slice":
        return "Partitions are disjoint by slice only: slices of one patient stand on both sides."
    return "Partitions are disjoint by patient."


def _selection(evidence: Evidence) -> str | None:
    split = (evidence.report["source"] or {}).get("split")
    return None if split is None else f"The part {split['part']!r} of the dataset was scored."


def _is_external(evidence: Evidence) -> bool | None:
    if evidence.card is None:
        return None
    return evidence.report["source"]["dataset"] not in {data.name for data in evidence.card.training_data}


def _internal(evidence: Evidence) -> str | None:
    return "The evaluated dataset is one that the model was trained on." if _is_external(evidence) is False else None


def _external(evidence: Evidence) -> str | None:
    if not _is_external(evidence):
        return None
    return (
        f"By name, {evidence.report['source']['dataset']!r} is none of the training datasets. Whether patients, "
        f"scanners or hospitals overlap is not known here."
    )


def _left(flow: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*flow["left"], *([flow["unlabelled"]] if flow["unlabelled"]["count"] else [])]


def _flow(evidence: Evidence) -> str | None:
    flow = evidence.report["flow"]
    left = [f"{counted(step['count'], step['unit'])} ({step['reason']})" for step in _left(flow)]
    patients = "" if flow["scored_patients"] is None else f" of {flow['scored_patients']:,} patients"
    scored = f"{flow['scored_images']:,} images{patients} were scored"
    return f"{flow['inputs']:,} {flow['unit']}; left: {', '.join(left) or 'none'}; {scored}. See the diagram."


def _exclusions(evidence: Evidence) -> str | None:
    left = _left(evidence.report["flow"])
    if not left:
        return None
    parts = [f"{counted(step['count'], step['unit'])}, {step['reason']}" for step in left]
    return f"Left here: {'; '.join(parts)}."


def _missing(evidence: Evidence) -> str | None:
    flow = evidence.report["flow"]
    unknown = [f"{label.display} {flow['labels'][label.value]['unknown']:,}" for label in LABELS]
    return (
        f"An image without a known label is excluded for that label alone; nothing is imputed. Unknown in scored "
        f"images: {', '.join(unknown)}."
    )


def _sample(evidence: Evidence) -> str | None:
    flow = evidence.report["flow"]
    patients = "patients unknown" if flow["scored_patients"] is None else f"{flow['scored_patients']:,} patients"
    return f"{flow['scored_images']:,} images, {patients}."


def _standard_counts(evidence: Evidence) -> str | None:
    labels = evidence.report["flow"]["labels"]
    parts = []
    for label in LABELS:
        counts = labels[label.value]
        patients = "" if counts["patients"] is None else f" ({counts['patients']['positive']:,} patients)"
        parts.append(f"{label.display} {counts['positive']:,}{patients}")
    return f"Positive images by the reference standard: {', '.join(parts)}."


def _prevalence(evidence: Evidence) -> str | None:
    counts = evidence.report["flow"]["labels"]["any"]
    known = counts["positive"] + counts["negative"]
    return f"{counts['positive'] / known:.1%} of the images have hemorrhage of any type." if known else None


def _characteristics(evidence: Evidence) -> str | None:
    found = evidence.report["subgroups"]
    if found is None:
        return None
    columns = found["levels"]["slice"]["columns"]
    parts = []
    for name, subgroups in columns.items():
        counts = [f"{one['value'] or 'unknown'} {one['n']:,} images" for one in subgroups]
        parts.append(f"{name}: {', '.join(counts)}")
    return f"{'; '.join(parts)}."


def _subgroups(evidence: Evidence) -> str | None:
    found = evidence.report["subgroups"]
    if found is None:
        return None
    return f"Scores by {', '.join(found['levels']['slice']['columns'])} are in the report, with intervals and counts."


def _measures(_: Evidence) -> str | None:
    return (
        "AUROC, average precision, sensitivity, specificity, precision, F1, Brier score, log loss; calibration slope, "
        "intercept, observed to expected; ROC, precision-recall and calibration curves."
    )


def _utility(evidence: Evidence) -> str | None:
    return f"Decision curves: {evidence.report['definitions']['net_benefit']}."


def _comparison(evidence: Evidence) -> str | None:
    found = evidence.report["comparison"]
    if found is None:
        return None
    return f"Compared with {found['with']}: {evidence.report['definitions']['difference']}. {found['multiplicity']}."


def _uncertainty(evidence: Evidence) -> str | None:
    boot = evidence.report["bootstrap"]
    unit = "patients" if boot["unit"] == "group" else "single images, as no patients were given"
    return f"Intervals: {evidence.report['definitions']['interval']}; {boot['rounds']:,} rounds over {unit}."


def _estimates(evidence: Evidence) -> str | None:
    report = evidence.report
    levels = {"slice": report, **{name.removesuffix("_level"): report[name] for name in _CASE_LEVELS if report[name]}}
    parts = []
    for name, level in levels.items():
        found = level["labels"]["any"]["auroc"]
        if found is not None:
            parts.append(f"{LEVELS[name]} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})")
    return f"AUROC of any hemorrhage: {'; '.join(parts)}. All labels and measures: report.html." if parts else None


def _cross_tabulation(_: Evidence) -> str | None:
    return "Below: true and false positives and negatives of every label."


def _failures(evidence: Evidence) -> str | None:
    errors = evidence.report["errors"]
    return f"The report shows the {len(errors)} worst errors as pictures." if errors else None


def _heat_maps(evidence: Evidence) -> str | None:
    errors = evidence.report["errors"]
    return "Class-activation maps beside the worst errors; not validated here." if errors else None


def _thresholds(evidence: Evidence) -> str | None:
    points = (evidence.report["operating_points"] or {}).get("slice")
    if points is None:
        return "A probability above 0.5 counts as positive."
    named = [
        f"{label.display} {points[label.value]['threshold']:.3f} ({points[label.value]['rule']})" for label in LABELS
    ]
    return f"The card's operating points: {', '.join(named)}."


def _recalibration(evidence: Evidence) -> str | None:
    after = evidence.report["calibrated"]
    return (
        f"The report shows the effect of calibration ({after['method']}), cross-fitted in {after['folds']} folds; the "
        f"model itself is not changed."
    )


def _prediction(evidence: Evidence) -> str | None:
    identity = _model_identity(evidence)
    return None if identity is None else f"By Hemoscope {__version__} with the model bundle {identity}"


def _output(_: Evidence) -> str | None:
    return f"A probability for each of six labels: {', '.join(label.display.lower() for label in LABELS)}."


def _software(evidence: Evidence) -> str | None:
    versions = []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Evaluation: Hemoscope {evidence.report['hemoscope']}, Python {python}, {', '.join(versions)}."


def _training(evidence: Evidence) -> str | None:
    return None if evidence.card is None else f"From the card: {evidence.card.description}"


def _when_model(text: str) -> Callable[[Evidence], str | None]:
    return lambda evidence: None if evidence.card is None else text


FACTS: Mapping[str, Callable[[Evidence], str | None]] = {
    "architecture": _architecture,
    "availability": _availability,
    "characteristics": _characteristics,
    "comparison": _comparison,
    "cross_tabulation": _cross_tabulation,
    "disjoint": _disjoint,
    "estimates": _estimates,
    "exclusions": _exclusions,
    "external": _external,
    "failures": _failures,
    "flow": _flow,
    "heat_maps": _heat_maps,
    "indeterminate": lambda _: "Every scored image has a probability and a decision: none is indeterminate.",
    "index_blind": _when_model("The model reads pixels and geometry alone, no report and no clinical information."),
    "input_checks": _when_model("Inputs that cannot be read are refused with a code; others carry notes on quality."),
    "intended_use": _intended_use,
    "internal": _internal,
    "limitations": _limitations,
    "measures": _measures,
    "missing": _missing,
    "model_identity": _model_identity,
    "output": _output,
    "partition": _partition,
    "prediction": _prediction,
    "predictors": _when_model("The pixels of the CT images, in Hounsfield units; no clinical variables."),
    "preprocessing": _preprocessing,
    "prevalence": _prevalence,
    "recalibration": _recalibration,
    "sample": _sample,
    "selection": _selection,
    "software": _software,
    "source": _source,
    "standard_counts": _standard_counts,
    "stored": _when_model("Every probability and label of this run: predictions.csv, labels.csv, scores.json."),
    "subgroups": _subgroups,
    "technology": _technology,
    "thresholds": _thresholds,
    "training": _training,
    "training_data": _training_data,
    "uncertainty": _uncertainty,
    "utility": _utility,
}
