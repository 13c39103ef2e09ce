"""Plain-text summaries of an evaluation and of a tuning, for a terminal."""

from collections.abc import Mapping
from typing import Any

from hemoscope.dicom.wording import counted
from hemoscope.labels import LABELS

_COLUMNS = ("log loss", "calibration error", "sensitivity", "specificity", "precision")
_METRICS = ("log_loss", "ece", "recall", "specificity", "precision")


def evaluation_summary(report: Mapping[str, Any]) -> str:
    """Return AUROC and average precision of each label, the scores by image, and the warnings, as plain lines."""
    groups = "" if report["n_groups"] is None else f", {counted(report['n_groups'], 'group')}"
    lines = [f"{counted(report['n_images'], 'image')}{groups}", f"{'':<18}{'AUROC':<26}average precision"]
    for label in LABELS:
        found = report["labels"][label.value]
        lines.append(f"{label.display:<18}{_score(found['auroc']):<26}{_score(found['average_precision'])}".rstrip())
    lines += [
        f"exact match        {_score(report['exact_match'])}",
        f"weighted log loss  {_score(report['weighted_log_loss'])}",
        f"  once calibrated  {_score(report['calibrated']['weighted_log_loss'])}",
        f"* {report['definitions']['unreliable'].removeprefix('marked *: ')}",
        *_strata(report["strata"]),
        *_comparison(report["comparison"]),
        *(f"warning: {text}" for text in report["warnings"]),
    ]
    return "\n".join(lines)


def _strata(document: Mapping[str, Any] | None) -> list[str]:
    """Return one line for each stratum of slices."""
    if document is None:
        return []
    start = f"strata of slices, flagged where any hemorrhage has a specificity of {document['specificity']:g}"
    lines = [start, f"{'':<40}{'found':<34}flagged of the others"]
    for one in document["strata"]:
        name = f"{one['kind']}: {one['name']}"
        lines.append(f"{name:<40}{stratum_words(one['found']):<34}{stratum_words(one['false_alarms'])}")
    return lines


def stratum_words(share: Mapping[str, Any] | None) -> str:
    """Return a share of a stratum with its interval and counts."""
    if share is None:
        return "-"
    return f"{share['value']:.2f} ({share['low']:.2f}-{share['high']:.2f}) {share['hits']} of {share['rows']}"


def _comparison(document: Mapping[str, Any] | None) -> list[str]:
    """Return the difference of AUROC of each label by image, with its p values and the rule of their adjustment."""
    if document is None:
        return []
    margin = document["margin"]
    lines = [f"AUROC less that of {document['with']}, by image"]
    for label in LABELS:
        found = document["levels"]["slice"]["labels"][label.value]["auroc"]
        if found["p"] is None or found["difference"]["low"] is None:
            lines.append(f"{label.display:<18}not tested: {found['reason']}")
            continue
        shown = (
            "" if margin is None else f"; not worse by {margin:g}: {'shown' if found['noninferior'] else 'not shown'}"
        )
        p_values = f"p {found['p']:.3g}, adjusted {found['p_holm']:.3g}"
        lines.append(f"{label.display:<18}{_score(found['difference'])}; {p_values}{shown}")
    return [*lines, f"p values: {document['multiplicity']}"]


def _score(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "not defined"
    return f"{score['value']:.4f} ({score['low']:.4f}-{score['high']:.4f}{'*' if score.get('unreliable') else ''})"


def tuning_summary(record: Mapping[str, Any]) -> str:
    """Return, for each level and label, the scores before and after tuning (cross-fitted), and what was not fitted."""
    groups = "" if record["n_groups"] is None else f", {counted(record['n_groups'], 'group')}"
    lines = [f"{counted(record['n_images'], 'image')}{groups}; {record['folds']} folds by {record['folds_by']}"]
    for name, level in record["levels"].items():
        lines += [
            "",
            f"By {name} ({level['n']}): before and after tuning (cross-fitted: each fold by a fit on the others)",
        ]
        lines.append(f"{'':<18}" + "".join(f"{column:<20}" for column in _COLUMNS).rstrip())
        for label in LABELS:
            entry = level["labels"][label.value]
            cells = [_pair(entry["before"][metric], entry["cross_fitted"][metric]) for metric in _METRICS]
            lines.append(f"{label.display:<18}" + "".join(f"{cell:<20}" for cell in cells).rstrip())
        lines += ["", "Operating points"]
        for label in LABELS:
            entry = level["labels"][label.value]
            lines.append(f"{label.display:<18}{entry['threshold']:<10.4f}{entry['rule']}")
            if (shares := _shares(entry["cross_fitted"])) is not None:
                lines.append(f"{'':<18}{shares}")
            if entry["kept"] is not None:
                lines.append(f"{'':<18}not fitted: {entry['kept']}")
    return "\n".join([*lines, *(f"note: {text}" for text in record["warnings"])])


def _shares(scores: Mapping[str, Any]) -> str | None:
    """Return the cross-fitted performance of a threshold with its 95% intervals and counts; None if undefined."""
    found = {"sensitivity": scores["recall"], "specificity": scores["specificity"], "precision": scores["precision"]}
    parts = [
        f"{name} {one['value']:.2f} ({one['low']:.2f}-{one['high']:.2f}) {one['hits']} of {one['rows']}"
        for name, one in found.items()
        if one is not None
    ]
    return "; ".join(parts) or None


def _pair(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> str:
    values = ("-" if score is None else f"{score['value']:.4f}" for score in (before, after))
    return " -> ".join(values)
