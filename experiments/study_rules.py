"""Tries study rules for `any` on the out-of-fold scores of a run: other ways from slice scores to one score.

    python experiments/study_rules.py experiments/results/default --output experiments/results/score-trials

Everything is nested, in ten assignments of patients to five folds: the smoothing width, the rule's own setting, its
Platt scaling and the threshold that a fold of patients gets are chosen on the other folds. The setting is that with the
highest AUROC; the threshold is the highest with a target sensitivity. Of the targets, each rule gets that with the
highest mean specificity whose mean cross-fitted sensitivity is at least .92; it is chosen on the same patients, which
flatters every rule alike. AUROC is of the calibrated scores, the mean of the ten assignments. Differences from what
ships have a 95% interval by patient (paired bootstrap, 2,000 rounds). CT-ICH's slices are taken as 5 mm
apart. A minute.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from calibration_trials import drawn_patients
from numpy.typing import NDArray
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hemoscope.evaluation.calibrate import fit_platt, group_folds
from hemoscope.evaluation.intervals import placements
from hemoscope.evaluation.thresholds import at_sensitivity
from hemoscope.inference.calibration import StudyRule
from hemoscope.training.export import read_run
from hemoscope.training.fitted_smoothing import smoothing_of
from hemoscope.training.run_scores import SliceAndStudyScores, out_of_fold_scores

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
SEEDS = range(10)
FOLDS = 5
SLICE_MM = 5.0
TARGETS = (0.9, 0.92, 0.94, 0.96, 0.98)
SENSITIVITY = 0.92
LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10)  # slices
BASELINE = "mean of the highest 25 mm, raw (ships)"

# A study's slice logits (slices, 6) from feet to head, and a setting: its score.
Score = Callable[[Floats, float], float]


def top_mean(logits: Floats, count: float) -> float:
    """Mean of the highest slices."""
    return float(np.sort(logits[:, 0])[::-1][: int(count)].mean())


def run_of(logits: Floats, count: float) -> float:
    """The highest level that a run of neighboring slices of this length reaches throughout."""
    length = min(int(count), len(logits))
    windows = np.lib.stride_tricks.sliding_window_view(logits[:, 0], length)
    return float(windows.min(axis=1).max())


def run_mean(logits: Floats, count: float) -> float:
    """The highest mean over neighboring slices of this length."""
    length = min(int(count), len(logits))
    return float(np.lib.stride_tricks.sliding_window_view(logits[:, 0], length).mean(axis=1).max())


def noisy_or(logits: Floats, shift: float) -> float:
    """One minus the product of the peaks' complements; ``shift`` moves what counts as a peak's probability."""
    values = np.concatenate([[-np.inf], logits[:, 0], [-np.inf]])
    peaks = values[1:-1][(values[1:-1] >= values[:-2]) & (values[1:-1] >= values[2:])]
    none = -np.logaddexp(0.0, peaks - shift).sum()
    return float(np.log(-np.expm1(none)) - none)


def soft_maximum(logits: Floats, sharpness: float) -> float:
    """Logarithm of the mean exponential, between the mean and the maximum."""
    values = sharpness * logits[:, 0]
    return float((np.logaddexp.reduce(values) - np.log(len(values))) / sharpness)


def any_and_type(logits: Floats, count: float) -> float:
    """Mean of the highest slices of `any` and of the type that is highest so."""
    tops = np.sort(logits, axis=0)[::-1][: int(count)].mean(axis=0)
    return float((tops[0] + tops[1:].max()) / 2)


def above_own_median(logits: Floats, count: float) -> float:
    """Mean of the highest slices, less half of the median of the study's slices: its own background."""
    return top_mean(logits, count) - 0.5 * float(np.median(logits[:, 0]))


def middle(logits: Floats, _: float) -> float:
    """The median of the study's slices."""
    return float(np.median(logits[:, 0]))


# A rule, its setting, and whether it reads smoothed slices.
Part = tuple[Score, float, bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with the settings to choose from; of raw or smoothed slices."""

    name: str
    score: Score
    settings: Sequence[float]
    smoothed: bool


RULES = (
    Rule(BASELINE, top_mean, (5,), False),
    Rule("mean of the highest 25 mm, smoothed", top_mean, (5,), True),
    Rule("mean of the highest, raw", top_mean, LENGTHS, False),
    Rule("mean of the highest, smoothed", top_mean, LENGTHS, True),
    Rule("run, lowest slice, raw", run_of, LENGTHS, False),
    Rule("run, lowest slice, smoothed", run_of, LENGTHS, True),
    Rule("run, mean, raw", run_mean, LENGTHS, False),
    Rule("noisy-or of peaks, raw", noisy_or, (-2, 0, 2, 4), False),
    Rule("noisy-or of peaks, smoothed", noisy_or, (-2, 0, 2, 4), True),
    Rule("soft maximum, raw", soft_maximum, (0.25, 0.5, 1, 2, 4), False),
    Rule("any and highest type, raw", any_and_type, LENGTHS, False),
    Rule("any and highest type, smoothed", any_and_type, LENGTHS, True),
    Rule("less half the study's median, raw", above_own_median, LENGTHS, False),
    Rule("less half the study's median, smoothed", above_own_median, LENGTHS, True),
)
# Logistic regression of the scores of several rules with one setting each.
COMBINED: dict[str, tuple[Part, ...]] = {
    "logistic: 25 mm raw, peak smoothed": ((top_mean, 5, False), (top_mean, 1, True)),
    "logistic: 25 mm raw, run of 15 mm smoothed": ((top_mean, 5, False), (run_of, 3, True)),
    "logistic: 15 mm raw, study's median": ((top_mean, 3, False), (middle, 0, False)),
    "logistic: 25 mm of any, and with the highest type": ((top_mean, 5, False), (any_and_type, 5, False)),
}


@dataclass(frozen=True, slots=True)
class Studies:
    """Slice logits of each study, raw and by smoothing width, and its truth (studies,)."""

    by_width: dict[float | None, list[Floats]]
    truth: Booleans


def studies_of(scored: SliceAndStudyScores) -> tuple[Studies, Callable[[Booleans], float | None]]:
    """Return the studies of a run, and the choice of the smoothing width on some of them; one series a patient."""
    smoothing = smoothing_of(scored)
    assert smoothing is not None
    assert scored.places is not None
    owners = np.array(scored.slices.patients)
    rows = [np.flatnonzero(owners == owner) for owner in scored.studies.patients]
    rows = [one[np.argsort(scored.places.positions_mm[one], kind="stable")] for one in rows]
    by_width = {width: [logits[one] for one in rows] for width, logits in smoothing.logits.items()}
    studies = Studies(by_width, scored.studies.truth[:, 0] == 1.0)

    def width_mm(known: Booleans) -> float | None:
        chosen = np.zeros(len(owners), dtype=bool)
        for one in np.flatnonzero(known):
            chosen[rows[one]] = True
        return smoothing.width_mm(chosen)

    return studies, width_mm


def auroc(scores: Floats, truth: Booleans) -> float:
    """Return the AUROC."""
    return float(placements(scores, truth)[truth].mean())


def rule_scores(rule: Rule, studies: Studies, known: Booleans, width_mm: float | None) -> Floats:
    """Return the scores of all studies by the setting that is best on the known ones."""
    logits = studies.by_width[width_mm if rule.smoothed else None]
    tables = {setting: np.array([rule.score(one, setting) for one in logits]) for setting in rule.settings}
    return max(tables.values(), key=lambda scores: auroc(scores[known], studies.truth[known]))


def combined_scores(parts: Sequence[Part], studies: Studies, known: Booleans, width_mm: float | None) -> Floats:
    """Return the logits of a logistic regression that was fitted on the known studies."""
    columns = [
        [score(one, setting) for one in studies.by_width[width_mm if smooth else None]]
        for score, setting, smooth in parts
    ]
    table = np.array(columns).T
    scaler = StandardScaler().fit(table[known])
    model = LogisticRegression(C=1.0).fit(scaler.transform(table[known]), studies.truth[known])
    return np.asarray(model.decision_function(scaler.transform(table)))


def cross_fitted(
    scores_by: Callable[[Booleans, float | None], Floats],
    studies: Studies,
    widths: Callable[[Booleans], float | None],
    seed: int,
) -> tuple[Floats, Booleans]:
    """Return calibrated probabilities (studies,) and decisions (targets, studies), each from the other folds."""
    truth = studies.truth
    part = group_folds(truth, np.arange(len(truth)), FOLDS, seed=seed)
    shown, decided = np.empty(len(truth)), np.empty((len(TARGETS), len(truth)), dtype=bool)
    for fold in range(FOLDS):
        held_out = part == fold
        scores = scores_by(~held_out, widths(~held_out))
        line = fit_platt(scores[~held_out], truth[~held_out])
        shown[held_out] = line.apply(scores[held_out])
        for k, target in enumerate(TARGETS):
            point = at_sensitivity(line.apply(scores[~held_out]), truth[~held_out], target)
            decided[k, held_out] = shown[held_out] >= point.threshold
    return shown, decided


@dataclass(frozen=True, slots=True)
class Found:
    """Of one rule: how often each positive outranks each negative, and how often each study is flagged at a target."""

    name: str
    wins: Floats
    flagged: Floats
    target: float
    ranges: dict[str, tuple[float, float]]


def measure(name: str, runs: Sequence[tuple[Floats, Booleans]], truth: Booleans) -> Found:
    """Average over the assignments of patients to folds, and choose the target."""
    wins = np.mean(
        [(shown[truth][:, None] > shown[~truth]) + 0.5 * (shown[truth][:, None] == shown[~truth]) for shown, _ in runs],
        axis=0,
    )
    flagged = np.mean([decided for _, decided in runs], axis=0)
    sensitivity, specificity = flagged[:, truth].mean(axis=1), 1 - flagged[:, ~truth].mean(axis=1)
    enough = np.flatnonzero(sensitivity >= SENSITIVITY)
    best = int(enough[np.argmax(specificity[enough])]) if enough.size else int(np.argmax(sensitivity))
    of_seeds = [decided[best] for _, decided in runs]
    ranges = {
        "sensitivity": _range([one[truth].mean() for one in of_seeds]),
        "specificity": _range([1 - one[~truth].mean() for one in of_seeds]),
        "auroc": _range([auroc(shown, truth) for shown, _ in runs]),
    }
    return Found(name, wins, flagged[best], TARGETS[best], ranges)


def _range(values: Sequence[float]) -> tuple[float, float]:
    return float(min(values)), float(max(values))


def compared(
    scored: SliceAndStudyScores, rules: Sequence[Rule] = RULES, combined: Mapping[str, Sequence[Part]] = COMBINED
) -> list[dict[str, Any]]:
    """Return one row for each rule; differences are from the first."""
    studies, chosen_width = studies_of(scored)
    truth = studies.truth
    known_widths: dict[bytes, float | None] = {}

    def widths(known: Booleans) -> float | None:
        key = known.tobytes()
        if key not in known_widths:
            known_widths[key] = chosen_width(known)
        return known_widths[key]

    ways: dict[str, Callable[[Booleans, float | None], Floats]] = {
        rule.name: partial(rule_scores, rule, studies) for rule in rules
    }
    ways |= {name: partial(combined_scores, parts, studies) for name, parts in combined.items()}
    found = {
        name: measure(name, [cross_fitted(way, studies, widths, seed) for seed in SEEDS], truth)
        for name, way in ways.items()
    }
    weights = drawn_patients(len(truth), np.random.default_rng(16))
    weights = weights[(weights[:, truth].sum(axis=1) > 0) & (weights[:, ~truth].sum(axis=1) > 0)]
    drawn = {name: _drawn(one, truth, weights) for name, one in found.items()}
    return [_row(one, truth, drawn[name], drawn[rules[0].name]) for name, one in found.items()]


def _drawn(one: Found, truth: Booleans, weights: Floats) -> dict[str, Floats]:
    """Return the scores in every bootstrap sample."""
    positive, negative = weights[:, truth], weights[:, ~truth]
    both = positive.sum(axis=1) * negative.sum(axis=1)
    return {
        "auroc": np.einsum("rp,pn,rn->r", positive, one.wins, negative, optimize=True) / both,
        "sensitivity": positive @ one.flagged[truth] / positive.sum(axis=1),
        "specificity": 1 - negative @ one.flagged[~truth] / negative.sum(axis=1),
    }


def _row(one: Found, truth: Booleans, drawn: dict[str, Floats], base: dict[str, Floats]) -> dict[str, Any]:
    values = {
        "auroc": one.wins.mean(),
        "sensitivity": one.flagged[truth].mean(),
        "specificity": 1 - one.flagged[~truth].mean(),
    }
    return {
        "rule": one.name,
        "target": one.target,
        **{
            name: {
                "value": float(value),
                "interval": np.quantile(drawn[name], (0.025, 0.975)).tolist(),
                "range": list(one.ranges[name]),
                "difference": np.quantile(drawn[name] - base[name], (0.025, 0.975)).tolist(),
            }
            for name, value in values.items()
        },
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table."""
    lines = [
        "Study rules for `any`, nested, mean of ten assignments of patients to folds: AUROC by patient, and",
        "specificity at the target of sensitivity whose mean cross-fitted sensitivity is at least .92; in brackets the",
        "95% interval by patient. Differences are from the rule that ships, paired. `experiments/study_rules.py`.\n",
        "| rule | AUROC | difference | sensitivity | specificity | difference |",
        "|---|---|---|---|---|---|",
    ]
    base = rows[0]
    for row in rows:
        cells = [row["rule"]]
        for name in ("auroc", "sensitivity", "specificity"):
            low, high = row[name]["interval"]
            cells.append(f"{row[name]['value']:.3f} ({low:.3f} to {high:.3f})")
            if name != "sensitivity":
                low, high = row[name]["difference"]
                change = row[name]["value"] - base[name]["value"]
                cells.append("-" if row is base else f"{change:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, help="folder for study-rules.json and study-rules.md")
    chosen = parser.parse_args()
    experiment = read_run(chosen.run)
    scored = out_of_fold_scores(chosen.run, experiment, StudyRule(extent_mm=experiment.reading.extent_mm))
    rows = compared(scored)
    if chosen.output is not None:
        chosen.output.mkdir(parents=True, exist_ok=True)
        (chosen.output / "study-rules.json").write_text(json.dumps(rows, indent=1) + "\n")
        (chosen.output / "study-rules.md").write_text(markdown(rows))
    Console().print(markdown(rows), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
