"""The figures of ``bars.py``, each beside what is wanted of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from calibration_trials import drawn_patients
from mimic_set import interval as mimic_interval
from numpy.typing import NDArray
from study_rules import LENGTHS, Rule, compared, top_mean

from hemoscope.evaluation.paired_bootstrap import paired_bootstrap
from hemoscope.evaluation.performance import proportion
from hemoscope.inference.bundle import load_bundle
from hemoscope.inference.calibration import Proportion, StudyRule
from hemoscope.inference.card import Estimate, LabelScore, ModelCard
from hemoscope.inference.engine import Engine
from hemoscope.labels import Hemorrhage
from hemoscope.training.export import read_dataset, read_run
from hemoscope.training.fitted_card import Origin, folds_card
from hemoscope.training.fitted_settings import established_labels, fit, with_unsure
from hemoscope.training.fitted_smoothing import smoothing_of
from hemoscope.training.held_out import HeldOut, cross_fitted, settings_of
from hemoscope.training.run_scores import SliceAndStudyScores, out_of_fold_scores

Floats = NDArray[np.float64]
ROUNDS = 2000
NO_BAR = "-"  # in place of what is wanted
FINGERS = "ctich_084"  # whose fingers lie beside the head, inside the crop
INFANT_YEARS = 2.0
PEAK_PX = 10.0
TIMED_SLICES, TIMED_REPEATS = 12, 5
_AVERAGE_PRECISION = {
    Hemorrhage.SUBARACHNOID: 0.20,
    Hemorrhage.INTRAVENTRICULAR: 0.35,
    Hemorrhage.INTRAPARENCHYMAL: 0.50,
    Hemorrhage.EPIDURAL: 0.62,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A figure beside what is wanted of it; without a figure, ``note`` says why, else how it was counted."""

    name: str
    wanted: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    met: bool | None = None
    note: str = ""


def at_least(name: str, target: float, found: Estimate | Proportion | None, *, note: str = "") -> Bar:
    """Return a bar that a share or a score reaches."""
    return _bar(name, f">= {target:g}", found, lambda value: value >= target, note)


def at_most(name: str, target: float, found: Estimate | Proportion | None, *, note: str = "") -> Bar:
    """Return a bar that a share or a score stays below."""
    return _bar(name, f"<= {target:g}", found, lambda value: value <= target, note)


def _bar(name: str, wanted: str, found: Estimate | Proportion | None, meets: Callable[[float], bool], note: str) -> Bar:
    if found is None:
        return Bar(name=name, wanted=wanted, note=note or "no such slices")
    if isinstance(found, Proportion):
        note = ", ".join(filter(None, [f"{found.hits} of {found.rows}", note]))
    return Bar(
        name=name, wanted=wanted, value=found.value, low=found.low, high=found.high, met=meets(found.value), note=note
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run with its card, and what its cross-fitted settings show and decide.

    ``shown`` (slices, 6) are served probabilities of scores that are smoothed by the width of the other folds; they
    rank.
    """

    scored: SliceAndStudyScores
    card: ModelCard
    held_out: HeldOut
    shown: Floats
    outlines: pd.DataFrame | None

    @property
    def brier_by_study(self) -> Floats:
        """Squared errors of the probability of `any` (studies,)."""
        return (self.held_out.studies.probabilities[:, 0] - self.scored.studies.truth[:, 0]) ** 2


def measured(run: Path) -> Measured:
    """Fit everything on the out-of-fold scores of a run."""
    experiment = read_run(run)
    rule = StudyRule(extent_mm=experiment.reading.extent_mm)
    scored = out_of_fold_scores(run, experiment, rule)
    smoothing = smoothing_of(scored)
    found = with_unsure(fit(scored, established_labels(scored), smoothing), scored)
    held_out = cross_fitted(scored, found, None if found.slice_rule is None else smoothing)
    assert held_out is not None
    shown = settings_of(found)[0].probabilities(held_out.slices.logits)
    origin = Origin(experiment=experiment, dataset=read_dataset(run), split=None, embedding_size=0)
    card = folds_card(origin, scored, rule, version="measured", more=())
    return Measured(scored=scored, card=card, held_out=held_out, shown=shown, outlines=_outlines(run))


def _outlines(run: Path) -> pd.DataFrame | None:
    """Return how far each outlined slice's map peaks from its outline, in the order of the run's slices."""
    tables = [pd.read_csv(path, dtype={"image_id": str}) for path in sorted(run.glob("fold-*/scores.csv"))]
    if any("peak_distance_px" not in table for table in tables):
        return None
    order = pd.read_csv(run / "slices.csv", dtype={"image_id": str})["image_id"]
    return pd.concat(tables).set_index("image_id").loc[order, ["outline_px", "peak_distance_px"]]


def score_bars(run: Path, *, baseline: Path) -> Iterator[Bar]:
    """Yield the bars of a run's out-of-fold scores."""
    one = measured(run)
    slices, studies = (table.labels for table in one.card.scores[:2])
    yield from _ranking(slices[Hemorrhage.ANY], studies[Hemorrhage.ANY])
    yield at_least("types by slice, mean AUROC", 0.945, _types(one))
    for label, target in _AVERAGE_PRECISION.items():
        yield at_least(f"average precision of {label.value}", target, slices[label].average_precision)
    yield from _study_rules(one)
    yield at_least("outlines under 300 px found at specificity .90", 0.60, _stratum(one.card, "under 300 px"))
    yield from _calibration(slices[Hemorrhage.ANY], studies[Hemorrhage.ANY])
    yield _brier(one, one if run == baseline else measured(baseline))
    yield _peaks(one)
    yield Bar(
        name="intraparenchymal map of the 36-slice study lies on its bleed",
        wanted="yes",
        note="is looked at, see slice-to-study.md: with maps that are consistent at each place, it does",
    )
    yield from _false_alarms(one)
    unsure = one.card.unsure.used.performance if one.card.unsure else None
    if unsure is not None:
        yield replace(at_most("studies unsure (no bar)", 1, unsure.unsure), wanted=NO_BAR, met=None)
    else:
        yield Bar(name="studies unsure (no bar)", wanted=NO_BAR, note="no study can be unsure: too few studies")


def _ranking(by_slice: LabelScore, by_patient: LabelScore) -> Iterator[Bar]:
    found = by_slice.auroc
    yield at_least("any by slice, AUROC", 0.970, found)
    low = None if found is None or found.low is None else Estimate(value=found.low, low=None, high=None)
    yield at_least("any by slice, lower bound", 0.95, low)
    yield at_least("any by patient, AUROC", 0.955, by_patient.auroc, note="the length of the study rule is given")


def _types(one: Measured) -> Estimate | None:
    """Return the mean AUROC of the five types by slice, as served, with a bootstrap interval by patient."""
    slices, shown = one.scored.slices, one.shown
    patients = list(slices.patients)
    # Constant scores have an AUROC of exactly .5 in every sample, so the difference from them is the score itself.
    found = paired_bootstrap(
        shown, np.zeros_like(shown), slices.truth, patients, [0] * len(patients), rounds=ROUNDS
    ).types["auroc"]
    if found is None or found.low is None or found.high is None:
        return None
    return Estimate(value=found.first, low=found.low + 0.5, high=found.high + 0.5)


def _study_rules(one: Measured) -> Iterator[Bar]:
    count = one.card.study_rule.count
    rules = (
        Rule("given length", top_mean, (count,), smoothed=False),
        Rule("length chosen on the other folds", top_mean, LENGTHS, smoothed=False),
    )
    given, chosen = compared(one.scored, rules, {})
    yield at_least("any by patient, AUROC, everything nested", 0.955, _estimate(chosen["auroc"]), note=chosen["rule"])
    for row in (given, chosen):
        reached = row["sensitivity"]["value"]
        name = f"specificity by study at cross-fitted sensitivity >= .92, {row['rule']}"
        bar = at_least(name, 0.80, _estimate(row["specificity"]), note=f"at sensitivity {reached:.3f}")
        yield bar if reached >= 0.92 else replace(bar, met=False)


def _estimate(found: dict[str, object]) -> Estimate:
    low, high = found["interval"]  # type: ignore[misc]
    return Estimate(value=float(found["value"]), low=low, high=high)  # type: ignore[arg-type]


def _stratum(card: ModelCard, name: str) -> Proportion | None:
    return next((one.found for table in card.strata or () for one in table.strata if one.name == name), None)


def _calibration(by_slice: LabelScore, by_study: LabelScore) -> Iterator[Bar]:
    calibrated = by_slice.ece_if_calibrated
    note = "" if calibrated is None else f"{calibrated.value:.3f} if calibrated"
    yield at_most("calibration error of any by slice", 0.01, by_slice.ece, note=note)
    for name, found, ideal in (("slope", by_study.slope, 1.0), ("intercept", by_study.intercept, 0.0)):
        known = found is not None and found.low is not None and found.high is not None
        yield Bar(
            name=f"calibration {name} of any by study",
            wanted=f"interval holds {ideal:g}",
            value=found.value if found else None,
            low=found.low if found else None,
            high=found.high if found else None,
            met=known and found.low <= ideal <= found.high,
        )


def _brier(one: Measured, base: Measured) -> Bar:
    """The Brier score by study with its interval, beside the shipped model's on the same patients."""
    ours, theirs = one.brier_by_study, base.brier_by_study
    if one.scored.studies.patients != base.scored.studies.patients:
        return Bar(name="Brier score of any by study", wanted="not worse", note="other patients than the shipped model")
    weights = drawn_patients(len(ours), np.random.default_rng(16))
    low, high = np.quantile(weights @ ours / len(ours), (0.025, 0.975))
    change = np.quantile(weights @ (ours - theirs) / len(ours), (0.025, 0.975))
    note = f"{ours.mean() - theirs.mean():+.3f} ({change[0]:+.3f} to {change[1]:+.3f}) from the shipped model"
    return Bar(
        name="Brier score of any by study",
        wanted=f"<= {theirs.mean():.3f}, the shipped model's",
        value=float(ours.mean()),
        low=float(low),
        high=float(high),
        met=bool(ours.mean() <= theirs.mean()),
        note="" if one is base else note,
    )


def _peaks(one: Measured) -> Bar:
    name, target = "heat map of any peaks within 10 px of the outline, true positives", 0.80
    if one.outlines is None:
        return at_least(name, target, None, note="the scores do not have peaks. Score the networks again: --data CACHE")
    rows = one.held_out.slices.decisions[:, 0] & (one.outlines["outline_px"].to_numpy(dtype=float) > 0)
    near = one.outlines["peak_distance_px"].to_numpy(dtype=float)[rows] <= PEAK_PX
    return at_least(name, target, proportion(near, np.array(one.scored.slices.patients)[rows]))


def _false_alarms(one: Measured) -> Iterator[Bar]:
    """Slices without hemorrhage that reach the slice threshold, cross-fitted, of some patients."""
    clean, patients = one.scored.slices.truth[:, 0] == 0.0, np.array(one.scored.slices.patients)
    flagged = one.held_out.slices.decisions[:, 0]

    def share(members: NDArray[np.bool_]) -> Proportion | None:
        rows = clean & members
        return proportion(flagged[rows], patients[rows]) if rows.any() else None

    yield at_most(
        "slices of patient 084 without blood (fingers beside the head) flagged", 0.0, share(patients == FINGERS)
    )
    ages = None if one.scored.places is None else one.scored.places.age
    infants = None if ages is None else share(ages <= INFANT_YEARS)
    yield at_most("slices of infants up to 2 years flagged, of those without blood", 0.04, infants)


def mimic_bar(files: Sequence[Path]) -> Bar:
    """Return the share of clean slices that rise above the slice threshold with one mimic."""
    name, target = "clean slices that rise with a mimic of the independent set", 0.02
    if not files:
        return at_most(name, target, None, note="give the rows: mimic_set.py CACHE --bundle BUNDLE --write ROWS.csv")
    rows = pd.concat([pd.read_csv(path) for path in files])
    low, high = mimic_interval(rows, np.random.default_rng(0))
    found = Estimate(value=float(rows["rises"].mean()), low=low, high=high)
    return at_most(name, target, found, note=f"{int(rows['rises'].sum())} of {len(rows)}")


def bundle_bars(folder: Path | None, shipped: Path) -> Iterator[Bar]:
    """Yield the size of a bundle, and the CPU time of a slice as a multiple of the shipped model's."""
    names = ("size of the bundle in MB", 25.0), ("CPU time of a slice beside the shipped model", 1.5)
    if folder is None:
        for name, target in names:
            yield at_most(name, target, None, note="there is no bundle yet. Export one, and give it: --bundle BUNDLE")
        return
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    yield at_most(*names[0], Estimate(value=size, low=None, high=None))
    ratio = 1.0 if folder.resolve() == shipped.resolve() else _time_ratio(folder, shipped)
    yield at_most(*names[1], Estimate(value=ratio, low=None, high=None))


def _time_ratio(folder: Path, shipped: Path) -> float:
    """Return the ratio of the medians of CPU seconds, both measured in turns."""
    engines = [Engine(load_bundle(path), threads=1, precision="float32") for path in (folder, shipped)]
    rng, seconds = np.random.default_rng(0), ([], [])
    inputs = [[rng.random(engine.input_shape, dtype=np.float32)] * TIMED_SLICES for engine in engines]
    for turn in range(TIMED_REPEATS + 1):
        for engine, slices, found in zip(engines, inputs, seconds, strict=True):
            start = time.process_time()
            engine.run(slices)
            if turn:  # the first warms up
                found.append(time.process_time() - start)
    return float(np.median(seconds[0]) / np.median(seconds[1]))
